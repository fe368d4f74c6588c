"""The report's section on the downstream experiment: does a network gain from synthetic scans?"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from bids_alphagan.evaluation.question import BAD, GOOD, OPEN, Answer, Headline, unasked
from bids_alphagan.report import charts
from bids_alphagan.report.figures import TISSUES
from bids_alphagan.report.numbers import decimals

REAL_ALONE = "r1"  # the arm with which all are compared
_MEASURE = "dice"
_PANELS = {"global": "all three"} | {tissue: tissue for tissue in TISSUES}
_LINE, _EDGES = 0.23, 0.62  # inches: per training set, and above and below the panels


@dataclass(frozen=True)
class DownstreamSection:
    """The content of the report's section on the downstream experiment.

    Attributes
    ----------
    rows: those of group_downstream.tsv with numbers as such, None if missing.
    experiments: by the model's key in `rows`, the record of its experiment: "headline" and "sentences" of
        `evaluation.downstream.summary.sentences`, "sizes" (real and synthetic scans by arm), "left_out" (the
        reason, by arm), "settings" ("steps", "residual_units"), "notes" (limitations of the numbers).
    models: the models' printed names.
    descriptions: of the table's columns, for its foot.
    """

    rows: Sequence[Mapping[str, Any]]
    experiments: Mapping[str, Mapping[str, Any]]
    models: Mapping[str, str]
    descriptions: Mapping[str, str] = field(default_factory=dict)


def section_of(answer: Answer, labels: Mapping[str, str], columns: Mapping[str, Any]) -> DownstreamSection:
    """The section from the answer. columns: of group_downstream.tsv."""
    descriptions = {name: column["Description"] for name, column in columns.items()}
    return DownstreamSection(answer.tables["downstream"], answer.more["models"], labels, descriptions)


def methods(section: DownstreamSection) -> str:
    """A paragraph for the methods section of a manuscript, with citations as in `report.methods.compose`."""
    settings, n_animals, n_seeds = _facts(section)
    kind = "residual U-Nets [@unet]" if settings["residual_units"] else "U-Nets"
    return (
        f"To test whether synthetic scans help, {kind} of MONAI [@monai] were trained to segment grey matter, "
        "white matter and cerebrospinal fluid from real scans, from synthetic scans and from both, by Dice "
        f"and cross-entropy loss with Adam [@Adam]: for each training set {n_seeds} networks of "
        f"{settings['steps']} steps. They were tested on {n_animals} held-out real animals. "
        "Gains in Dice are paired, with 95 % bootstrap intervals over animals [@hesterberg]; a gain was "
        "called resolved if this interval and a t interval over networks excluded 0."
    )


def headline(model: str, section: DownstreamSection | None) -> Headline:
    """The gain over real scans alone by as many synthetic scans as real ones."""
    question = "Does it help?"
    if section is None or model not in section.experiments:
        return unasked(question, "downstream")
    result = verdict(section, model)
    mark = {"ok": GOOD, "failed": BAD, "warned": OPEN}[result["tone"]]
    gain = result["gain"]
    places = decimals(gain)
    ends = "" if gain["low"] is None else f", {gain['low']:+.{places}f} to {gain['high']:+.{places}f}"
    text = f"Dice {gain['value']:+.{places}f}{ends} against real scans alone".replace("-", "−")
    if notes(section.experiments[model]):
        mark, text = OPEN, f"{text}, by networks that have hardly learned a tissue"
    return Headline(question, mark, f"{result['word']}: {text}.", "downstream")


def _facts(section: DownstreamSection) -> tuple[Mapping[str, Any], int, int]:
    """The networks' settings, and the numbers of held-out animals and of seeds."""
    settings = next(iter(section.experiments.values()))["settings"]
    animals, seeds = (max(row[key] for row in section.rows) for key in ("n_animals", "n_seeds"))
    return settings, animals, seeds


def view(section: DownstreamSection) -> dict[str, Any]:
    """The content of the page: results, a chart, a table and the comparisons in words."""
    lines = _lines(section)
    settings, n_animals, n_seeds = _facts(section)
    return {
        "verdicts": [verdict(section, model) for model in section.experiments],
        "chart": _chart(lines),
        "panels": _PANELS.values(),
        "lines": lines,
        "n_animals": n_animals,
        "n_seeds": n_seeds,
        "steps": settings["steps"],
        "sentences": [
            (section.models.get(model, model) if len(section.experiments) > 1 else "", sentence["text"])
            for model, experiment in section.experiments.items()
            for sentence in experiment["sentences"]
            if (sentence["tissue"], sentence["measure"]) == ("global", _MEASURE)
        ],
        "left_out": {
            name: why
            for experiment in section.experiments.values()
            for name, why in experiment["left_out"].items()
        },
        "notes": list(
            dict.fromkeys(note for experiment in section.experiments.values() for note in notes(experiment))
        ),
        "descriptions": section.descriptions,
    }


def notes(experiment: Mapping[str, Any]) -> list[str]:
    """Limitations of the numbers of one model's experiment."""
    return list(experiment.get("notes", []))


def _lines(section: DownstreamSection) -> list[dict[str, Any]]:
    """For each training set: its printed name, colour, and Dice and gain per panel (None: missing)."""
    sizes = {model: experiment["sizes"] for model, experiment in section.experiments.items()}
    lines: dict[tuple[str | None, str], dict[str, Any]] = {}
    for row in section.rows:
        if row["measure"] != _MEASURE:
            continue
        model, arm = row["model"], row["arm"]
        name = training_set(arm, *sizes[model or next(iter(sizes))][arm])
        if model and len(section.experiments) > 1:
            name += f" ({section.models.get(model, model)})"
        line = lines.setdefault(
            (model, arm),
            {
                "name": name,
                "colour": charts.colour(model),
                "dice": dict.fromkeys(_PANELS),
                "gain": dict.fromkeys(_PANELS),
            },
        )
        line["dice"][row["tissue"]] = {"value": row["mean"], "low": row["low"], "high": row["high"]}
        if row["compared_with"] == REAL_ALONE:
            ends = {"low": row["gain_low"], "high": row["gain_high"]}
            line["gain"][row["tissue"]] = {"value": row["gain"], **ends, "resolved": row["resolved"] == "yes"}
    return list(lines.values())


def training_set(arm: str, n_real: int, n_synthetic: int) -> str:
    """The scans of an arm, in words: 10 real + 5 synthetic."""
    kinds = ((n_real, "real"), (n_synthetic, "synthetic"))
    parts = [f"{n} {kind}" for n, kind in kinds if n]
    return " + ".join(parts) + (", augmented" if arm.endswith("+a") else "")


def verdict(section: DownstreamSection, model: str) -> dict[str, Any]:
    """The result of the comparison that leads the report."""
    headline = section.experiments[model]["headline"]
    keys = ("arm", "compared_with", "tissue", "measure")
    row = next(
        row for row in section.rows if row["model"] == model and all(row[k] == headline[k] for k in keys)
    )
    if row["resolved"] != "yes":
        word, tone = "Not shown", "warned"
    else:
        word, tone = ("Yes", "ok") if row["gain"] > 0 else ("No, they harm", "failed")
    gain = {"value": row["gain"], "low": row["gain_low"], "high": row["gain_high"]}
    name = section.models.get(model, model)
    return {"model": name, "word": word, "tone": tone, "gain": gain, "text": headline["text"]}


def _chart(lines: Sequence[Mapping[str, Any]]) -> str:
    """Dice above, gain over real scans alone below: a panel per tissue, a row per training set."""
    shown = {"dice": lines, "gain": [line for line in lines if any(line["gain"].values())]}
    inches = [_LINE * len(rows) for rows in shown.values()]
    total = sum(inches) + 2 * _EDGES
    figure = Figure(figsize=(9, total))
    grid = figure.subplots(2, len(_PANELS), sharey="row", squeeze=False, height_ratios=inches)
    widest = max(len(line["name"]) for line in lines)
    figure.subplots_adjust(
        left=min(0.32, 0.015 + 0.0069 * widest),
        right=0.985,
        top=1 - 0.3 / total,
        bottom=0.3 / total,
        wspace=0.12,
        hspace=2 * _EDGES / sum(inches),
    )
    for row, (kind, rows) in zip(grid, shown.items(), strict=True):
        for axes, (tissue, title) in zip(row, _PANELS.items(), strict=True):
            alone = (lines[0]["dice"][tissue] or {}).get("value") if kind == "dice" else 0.0
            _panel(axes, [line[kind][tissue] for line in rows], [line["colour"] for line in rows], alone)
            axes.set_title(f"Dice, {title}" if kind == "dice" else f"gain in Dice, {title}")
            axes.set_yticks(range(len(rows)), [line["name"] for line in rows])
            axes.set_ylim(len(rows) - 0.45, -0.55)
            axes.locator_params(axis="x", nbins=3)
            charts.chart(axes)
    return charts.svg(figure)


def _panel(
    axes: Axes, cells: Sequence[Mapping[str, Any] | None], colours: Sequence[str], alone: float | None
) -> None:
    """A dot and its interval for each cell; real scans `alone` as a dotted line. Hollow: not resolved."""
    if alone is not None:
        axes.axvline(alone, color=charts.INK, linewidth=0.9, linestyle=":")
    for position, (cell, colour) in enumerate(zip(cells, colours, strict=True)):
        if not cell:
            continue
        if cell["low"] is not None:
            axes.plot(
                [cell["low"], cell["high"]], [position, position], color=colour, linewidth=2.2, alpha=0.55
            )
        face = colour if cell.get("resolved", True) else "none"
        axes.plot([cell["value"]], [position], "o", color=colour, markerfacecolor=face, markersize=5.5)
