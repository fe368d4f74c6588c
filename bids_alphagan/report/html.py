"""Reports: data in, one self-contained HTML file out."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup, escape

from bids_alphagan import __version__
from bids_alphagan.common.files import read_tsv, write_text
from bids_alphagan.evaluation import headline
from bids_alphagan.evaluation import sections as statistics
from bids_alphagan.evaluation.downstream import section as downstream
from bids_alphagan.evaluation.pairs import section as metrics
from bids_alphagan.qc import section as gate
from bids_alphagan.qc.measures import MEASURES
from bids_alphagan.report import charts, figures, scroll
from bids_alphagan.report.numbers import decimals, number

MAX_EXAMPLES = 4  # rows per gallery: more make the page heavy and show no more

Examples = tuple[str, Sequence[Path], Sequence[Path | None]]


@dataclass(frozen=True)
class ScanSection:
    """What the participant report says about one scan.

    Attributes
    ----------
    title: the scan's name, as its heading.
    reference: 3D NIfTI, or (x, y, z, 1), on the scan's own grid; None where the scan failed.
    preproc: the network's input, a cube in [-1, 1].
    masks: NIfTI on the reference's grid: probsegs under "GM", "WM", "CSF"; "dseg"; "brain". May be empty.
    measures: of the masks' quality, as `quality.MEASURES` knows them; empty where there are no masks.
    parameters: what was done, nested dicts and lists of plain values.
    notes: warnings, shown loudly.
    error: why the scan failed, or None.
    """

    title: str
    reference: Path | None = None
    preproc: Path | None = None
    masks: Mapping[str, Path] = field(default_factory=dict)
    measures: Mapping[str, float] = field(default_factory=dict)
    parameters: Mapping[str, Any] = field(default_factory=dict)
    notes: Sequence[str] = ()
    error: str | None = None


@dataclass(frozen=True)
class ModelSection:
    """What the group report says about one model.

    Attributes
    ----------
    name, label: the model's key (as in the metrics' column ``model``) and its name in print.
    examples, example_dsegs: synthetic scans and their dsegs (None where there is none), in the same order.
    losses: losses.tsv, a column ``step`` and one per loss term; None where there is none.
    samples: step-XXXXXX.npy, middle slices (n, 3, N, N) uint8 of the same latents, in order of training.
    n_accepted, n_rejected: synthetic scans kept and drawn again; why, says the section on the gate.
    settings: training settings, nested dicts and lists of plain values.
    """

    name: str
    label: str
    examples: Sequence[Path] = ()
    example_dsegs: Sequence[Path | None] = ()
    losses: Path | None = None
    samples: Sequence[Path] = ()
    n_accepted: int = 0
    n_rejected: int = 0
    settings: Mapping[str, Any] = field(default_factory=dict)


def write_participant_report(
    path: Path, subject: str, scans: Sequence[ScanSection], provenance: Mapping[str, Any], methods: str
) -> None:
    """Write the report of one participant.

    Parameters
    ----------
    path: the HTML file; replaced as a whole.
    subject: label without ``sub-``.
    provenance: versions, command line, configuration; nested dicts and lists of plain values.
    methods: text with one paragraph per blank line; a DOI written ``doi:10...`` becomes a link.
    """
    views = [_participant_figures(scan) for scan in scans]
    _render(
        path,
        "participant/participant.html.j2",
        described=MEASURES,
        subject=subject,
        scans=list(zip(scans, views, strict=True)),
        provenance=provenance,
        methods=methods,
    )


def write_group_report(
    path: Path,
    real_examples: Sequence[Path],
    real_dsegs: Sequence[Path | None],
    models: Sequence[ModelSection],
    metrics_section: metrics.MetricsSection | None,
    provenance: Mapping[str, Any],
    methods: str,
    notes: Sequence[str] = (),
    *,
    n_real: int | None = None,
    gate_section: gate.GateSection | None = None,
    downstream_section: downstream.DownstreamSection | None = None,
    statistics_section: statistics.StatisticsSection | None = None,
) -> None:
    """Write the report of the group level.

    Parameters
    ----------
    path: the HTML file; replaced as a whole.
    real_examples, real_dsegs: real scans and their dsegs (None where there is none), in the same order.
    metrics_section: the comparison with real scans; None where there was none.
    provenance, methods: as for `write_participant_report`.
    notes: warnings, shown loudly.
    n_real: number of real scans the models learnt from, where known.
    gate_section: what the gate said; None where no scan was judged.
    downstream_section: whether segmentation gains from the cohorts; None where that was not tried.
    statistics_section: what the statistics of whole cohorts found; None where there are none.
    """
    examples = _examples(real_examples, real_dsegs, models)
    _render(
        path,
        "group/group.html.j2",
        n_real=n_real,
        gate=gate.view(gate_section) if gate_section else None,
        galleries=_galleries(examples),
        scroll=_scroll(examples),
        models=models,
        answers=headline.view(
            {model.name: model.label for model in models},
            metrics_section,
            statistics_section,
            downstream_section,
        ),
        curves=[_loss_curves(model) for model in models],
        progress=[figures.progress(model.samples) for model in models],
        metrics=metrics.view(metrics_section) if metrics_section else None,
        downstream=downstream.view(downstream_section) if downstream_section else None,
        statistics=statistics.view(statistics_section) if statistics_section else None,
        provenance=provenance,
        methods=methods,
        notes=notes,
    )


def _participant_figures(scan: ScanSection) -> dict[str, Any]:
    if scan.reference is None:
        return {}
    image = figures.load(scan.reference)
    maps = figures.tissue_maps(scan.masks)
    at = figures.centre(image, maps)
    voxel = float(np.prod(image.zooms))
    views: dict[str, Any] = {
        "grid": " × ".join(str(n) for n in image.data.shape),
        "zooms": " × ".join(f"{zoom:.3g}" for zoom in image.zooms),
        "planes": figures.three_planes(image, {}, at),
        "volumes": {t: float(maps[t].sum() * voxel) for t in figures.TISSUES if t in maps},
    }
    if maps:
        views["masks"] = figures.three_planes(image, maps, at)
        views["mosaic"] = figures.mosaic(image, maps)
    if scan.preproc is not None:
        views["histograms"] = charts.histograms(scan.reference, scan.preproc, maps)
    return views


def _examples(
    real_examples: Sequence[Path], real_dsegs: Sequence[Path | None], models: Sequence[ModelSection]
) -> list[Examples]:
    """Of the real set and each model that has any: its name, and its first scans with their dsegs."""
    sets: list[Examples] = [("Real", real_examples, real_dsegs)]
    sets += [(f"Synthetic, {model.label}", model.examples, model.example_dsegs) for model in models]
    return [(label, paths[:MAX_EXAMPLES], dsegs[:MAX_EXAMPLES]) for label, paths, dsegs in sets if paths]


def _galleries(examples: Sequence[Examples]) -> dict[str, list[tuple[str, str]]]:
    """Scans, and scans with masks: of each set, its name and its picture."""
    return {
        "scans": [(label, figures.gallery(paths, dsegs, masks=False)) for label, paths, dsegs in examples],
        "masks": [
            (label, figures.gallery(paths, dsegs, masks=True))
            for label, paths, dsegs in examples
            if any(dsegs)
        ],
    }


def _scroll(examples: Sequence[Examples]) -> dict[str, Any]:
    """What the page needs to scroll through the scans of each set."""
    sets = [(label, scroll.strips(paths, dsegs)) for label, paths, dsegs in examples]
    return {"planes": list(figures.PLANES), "levels": scroll.LEVELS, "sets": sets}


def _loss_curves(model: ModelSection) -> str | None:
    rows = read_tsv(model.losses) if model.losses is not None else []
    if not rows:
        return None
    return charts.losses({name: np.array([float(row[name]) for row in rows]) for name in rows[0]})


def _render(path: Path, template: str, **content: Any) -> None:
    environment = Environment(
        loader=PackageLoader("bids_alphagan", ""),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"prose": _prose, "number": number, "decimals": decimals}
    write_text(path, environment.get_template(template).render(version=__version__, **content))


def _prose(text: str) -> Markup:
    """Plain text as paragraphs, with DOIs as links. The text itself is escaped."""
    paragraphs = [str(escape(p.strip())) for p in re.split(r"\n\s*\n", text.strip())]
    linked = [
        re.sub(r"doi:(10\.\S+?)(?=[.,;)]*(?:\s|$))", r'<a href="https://doi.org/\1">doi:\1</a>', p)
        for p in paragraphs
    ]
    headed = [re.sub(r"\AReferences\n", "<strong>References</strong>\n", p) for p in linked]
    return Markup("".join(f"<p>{p.replace(chr(10), '<br>')}</p>" for p in headed))
