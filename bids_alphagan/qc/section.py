"""The report's section on quality control: pass rates, reasons of failures, and typical failures."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from bids_alphagan.bids.study import Study
from bids_alphagan.models import MODELS
from bids_alphagan.qc import rejected
from bids_alphagan.qc.limits import Limit, kind
from bids_alphagan.qc.measures import MEASURES
from bids_alphagan.qc.verdicts import HELD_OUT, REAL, QualityControl, read_table
from bids_alphagan.report import charts, figures
from bids_alphagan.report.html import Section

_FAILED, _PASSED = charts.ACCENTS[1], charts.ACCENTS[0]


@dataclass(frozen=True)
class Failure:
    """A scan that failed: its name, the reasons (worst first), the image and its masks, as in `figures`."""

    title: str
    reasons: Sequence[str]
    scan: Path
    masks: Mapping[str, Path] = field(default_factory=dict)


@dataclass(frozen=True)
class QualitySection:
    """The content of the report's section on quality control.

    Attributes
    ----------
    sources: printed name by key in the rows' `source`, the real scans first.
    rows: those of group_quality.tsv: source, split, scan, verdict ('pass' or 'fail'), reasons (list of
        text), and each measure's value or None.
    limits: of each measure, for the real scans.
    failures: a few of each source, in the order of the sources.
    """

    sources: Mapping[str, str]
    rows: Sequence[Mapping[str, Any]]
    limits: Mapping[str, Limit]
    failures: Sequence[Failure] = ()


def qc_section(study: Study, quality: QualityControl, models: Iterable[str]) -> list[Section]:
    """The section, from group_quality.tsv and the rejected draws that were kept; empty if no scan was checked."""
    rows = read_table(study.output_dir)
    if not rows:
        return []
    present = {row["source"] for row in rows}
    sources = {REAL: "Real"} | {model: MODELS[model].title for model in models if model in present}
    section = QualitySection(sources, rows, quality.limits, _failures(study, sources, rows))
    return [Section("qc", "Quality control", view(section), "qc/section.html.j2")]


def _failures(study: Study, sources: Mapping[str, str], rows: Sequence[Mapping[str, Any]]) -> list[Failure]:
    """The first real scan with each worst reason, and the examples of each model's rejected draws."""
    failed_by = {row["scan"]: row["reasons"] for row in rows if row["source"] == REAL}
    first: dict[str, Failure] = {}
    for scan in study.scans:
        if reasons := failed_by.get(f"{scan.name.stem}_{scan.name.suffix}"):
            failure = Failure(f"Real: {scan.name.stem}", reasons, scan.reference, scan.masks)
            first.setdefault(kind(reasons[0]), failure)
    failures = list(first.values())[: rejected.EXAMPLES]
    for model in sources:
        drawn = {(row["scan"], row["draw"], row["seed"]) for row in rows if row["source"] == model}
        kept = [
            draw
            for draw in rejected.kept(rejected.folder_of(study.model_folder(model)))
            if (draw.name, str(draw.draw), str(draw.rejection.seed)) in drawn
        ]
        for draw in rejected.examples(kept):
            title = f"{sources[model]}: {draw.name}, draw {draw.draw}"
            failures.append(Failure(title, draw.rejection.reasons, draw.scan, draw.masks))
    return failures


def view(section: QualitySection) -> dict[str, Any]:
    """The content of the page: pass rates, counts of reasons, failed real scans, pictures."""
    rows = {source: [r for r in section.rows if r["source"] == source] for source in section.sources}
    failed = {source: [r for r in group if r["verdict"] == "fail"] for source, group in rows.items()}
    counts = {
        source: Counter(kind(reason) for row in group for reason in row["reasons"])
        for source, group in failed.items()
    }
    every = Counter[str]()
    for count in counts.values():
        every.update(count)
    real = failed[next(iter(section.sources))]
    return {
        "names": list(section.sources.values()),
        "rates": [
            {
                "name": section.sources[source],
                "judged": len(group),
                "passed": len(group) - len(failed[source]),
            }
            for source, group in rows.items()
        ],
        "reasons": [(reason, [counts[s][reason] for s in rows]) for reason, _ in every.most_common()],
        "real_failures": [(row["scan"], row["split"] == HELD_OUT, "; ".join(row["reasons"])) for row in real],
        "limits": [_limit(name, limit) for name, limit in section.limits.items()],
        "strips": strips(section) if section.limits else None,
        "failures": [(failure, _picture(failure)) for failure in section.failures],
    }


def _limit(name: str, limit: Limit) -> dict[str, Any]:
    """A row of the table of limits."""
    return {"name": name, "measure": MEASURES[name], **limit.record()}


def _picture(failure: Failure) -> str:
    """Three planes, and below them the same with masks if there are any."""
    scan = figures.load(failure.scan)
    maps = figures.tissue_maps(failure.masks)
    at = figures.centre(scan, maps)
    return figures.three_planes(scan, maps, at, twice=True, inches=6)


def strips(section: QualitySection) -> str:
    """A panel per source, a row per measure: a dot for each scan, lines for the limits.

    Values are in robust standard deviations from the real scans' median, so that all measures share one axis.
    """
    names, limits = list(section.limits), section.limits
    reach = _reach(section)
    figure = Figure(figsize=(9, 0.8 + 0.3 * len(names)))
    panels = figure.subplots(1, len(section.sources), sharex=True, sharey=True, squeeze=False)[0]
    figure.subplots_adjust(
        left=0.17, right=0.99, bottom=0.5 / (0.8 + 0.3 * len(names)), top=0.93, wspace=0.06
    )
    rng = np.random.default_rng(0)  # vertical jitter, for visibility only
    for axes, (source, label) in zip(panels, section.sources.items(), strict=True):
        rows = [row for row in section.rows if row["source"] == source]
        for at, name in enumerate(names):
            present = [row for row in rows if row.get(name) is not None]
            values = np.array([limits[name].deviation(row[name]) for row in present])
            failed = np.array([row["verdict"] == "fail" for row in present], bool)
            _dots(axes, values, failed, at + rng.uniform(-0.25, 0.25, len(values)), reach)
            for bound in limits[name].bounds:
                if bound is not None:
                    x = [limits[name].deviation(bound)] * 2
                    axes.plot(x, [at - 0.42, at + 0.42], color=charts.INK, linewidth=1.2)
        axes.set(title=label, xlim=(-1.04 * reach, 1.04 * reach), ylim=(len(names) - 0.4, -0.6))
        axes.set_yticks(range(len(names)), [name.replace("_", " ") for name in names])
        charts.chart(axes)
    figure.supxlabel(
        "robust standard deviations from the real scans' median", fontsize=8, color=charts.INK, y=0.01
    )
    return charts.svg(figure)


def _reach(section: QualitySection) -> float:
    """Half the axis: all values and limits, but at most twice the outermost limit."""
    limits = section.limits
    values = [
        abs(limit.deviation(row[name]))
        for name, limit in limits.items()
        for row in section.rows
        if row.get(name) is not None
    ]
    bounds = [abs(limit.deviation(b)) for limit in limits.values() for b in limit.bounds if b is not None]
    furthest = max(values, default=0.0)
    return max(1.1 * min(furthest, 2 * max(bounds, default=furthest)), 1.2 * min([*bounds, 10.0]), 3.0)


def _dots(axes: Axes, values: np.ndarray, failed: np.ndarray, heights: np.ndarray, reach: float) -> None:
    """Dots inside the frame, triangles at its edge for values outside. Rasterised, because there may be many."""
    for group, colour in ((failed, _FAILED), (~failed, _PASSED)):
        for beyond, marker in ((np.abs(values) <= reach, "o"), (values > reach, ">"), (values < -reach, "<")):
            chosen = group & beyond
            if chosen.any():
                x = np.clip(values[chosen], -reach, reach)
                style: dict[str, Any] = {"s": 9, "alpha": 0.65, "linewidths": 0, "rasterized": True}
                axes.scatter(x, heights[chosen], color=colour, marker=marker, **style)
