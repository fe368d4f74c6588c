"""The report's section on the metrics: a chart of each between its floor and its ceiling, and a table."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from bids_alphagan.evaluation.pairs.metrics import METRICS, Metric
from bids_alphagan.evaluation.question import Answer
from bids_alphagan.evaluation.scans import NOISY, REAL
from bids_alphagan.report import charts

CEILING, FLOOR = REAL, NOISY
_IN_PRINT = {CEILING: "Real", FLOOR: "Real with noise"}
_BETTER = {"higher": "↑ higher, up to real", "lower": "↓ lower, down to real"}
_ACROSS = 3  # charts per row

Rows = Sequence[Mapping[str, Any]]


def view(answer: Answer, labels: Mapping[str, str], descriptions: Mapping[str, str]) -> dict[str, Any]:
    """The content of the page: a chart, and a row of the table per metric."""
    shown: dict[str, Any] = {"notes": answer.notes, "reason": answer.reason}
    if answer.reason:
        return shown
    rows = answer.tables["metrics"]
    present = {row["model"] for row in rows}
    sets = {name: label for name, label in (_IN_PRINT | dict(labels)).items() if name in present}
    alike, lines = too_alike(rows, labels), []
    for metric in dict.fromkeys(row["metric"] for row in rows):
        cells = {row["model"]: row for row in rows if row["metric"] == metric}
        direction = next(iter(cells.values()))["direction"]
        lines.append(
            {
                "metric": metric,
                "unit": next(iter(cells.values()))["unit"],
                "better": _BETTER.get(direction, f"→ {direction}"),
                "best": _best(cells, [name for name in labels if name not in alike]),
                "beyond": [name for name in labels if _beyond(cells, name)],
                "word": "too alike" if direction == "closer to real" else "beyond real",
                "cells": [cells.get(name) for name in sets],
            }
        )
    table2 = answer.tables.get("table2", [])
    return shown | {
        "against": {row["against"] for row in rows} - {"itself"},
        "sets": sets.values(),
        "chart": _chart(rows, sets, [line["metric"] for line in lines]),
        "lines": lines,
        "descriptions": descriptions,
        "table2": [{**row, "model": sets.get(row["model"], row["model"])} for row in table2],
    }


def methods(answer: Answer, held_out: int) -> str:
    """A paragraph for a manuscript. held_out: number of held-out animals."""
    if held_out:
        animals = f"{held_out} animal" if held_out == 1 else f"{held_out} animals"
        compared = (
            f"Scans of {animals}, drawn at random and not used for training, were "
            "compared with synthetic scans; with the training scans, which give the values of other animals; "
            "and with these plus Gaussian noise (standard deviation a tenth of the range), as a floor."
        )
    else:
        compared = "Synthetic scans were compared with the scans that the models were trained on."
    used = {row["metric"] for row in answer.tables["metrics"]}
    metrics = [metric for name, metric in METRICS.items() if name in used]
    between = "; ".join(_cited(metric) for metric in metrics if not metric.within)
    within = "; ".join(_cited(metric) for metric in metrics if metric.within)
    return (
        f"{compared} Intensities ranged from 0 to 1. Metrics over {answer.more['pairs_per_scan']} random pairs per "
        f"training scan (all if there are fewer): {between}. Metrics over {answer.more['msssim_pairs_per_scan']} "
        f"random pairs per training scan: {within}. Values are means with 95 % bootstrap intervals over animals "
        "[@bootstrap]."
    )


def _cited(metric: Metric) -> str:
    label = metric.label[0].lower() + metric.label[1:]
    cite = f"({metric.reference})" if metric.cite is None else metric.cite
    return f"{label} {cite}".rstrip()


def too_alike(rows: Rows, models: Iterable[str]) -> list[str]:
    """Models whose scans are more similar to each other than real animals are, by a metric within a set."""
    tables = [
        {row["model"]: row for row in rows if row["metric"] == metric}
        for metric in dict.fromkeys(row["metric"] for row in rows if row["against"] == "itself")
    ]
    return [name for name in models if any(_beyond(cells, name) for cells in tables)]


def alike_cells(rows: Rows, model: str) -> tuple[Mapping[str, Any], Mapping[str, Any]] | None:
    """The rows of the model and of real scans in the metric within a set; None if one is missing."""
    within = {row["model"]: row for row in rows if row["against"] == "itself" and row["value"] is not None}
    return (within[model], within[CEILING]) if {model, CEILING} <= set(within) else None


def _best(cells: Mapping[str, Mapping[str, Any]], models: Sequence[str]) -> str | None:
    """Among several models, the one nearest to the ceiling and not beyond it; `models`: the candidates.

    Scans that are more similar to real scans than real animals are to each other are copies, or averages of many.
    """
    real = cells.get(CEILING, {}).get("value")
    rated = [name for name, cell in cells.items() if name not in _IN_PRINT and cell["value"] is not None]
    if real is None or len(rated) < 2:
        return None
    fair = {n: abs(cells[n]["value"] - real) for n in rated if n in models and not _beyond(cells, n)}
    return min(fair, key=fair.__getitem__, default=None)


def _beyond(cells: Mapping[str, Mapping[str, Any]], name: str) -> bool:
    """Whether a model is better than real scans: past the good end of their interval, or of their value without one.

    Within a set, the good end is that of scans that are all equal.
    """
    if name not in cells or cells.get(CEILING, {}).get("value") is None or cells[name]["value"] is None:
        return False
    real, sign = cells[CEILING], -1 if cells[name]["direction"] == "lower" else 1
    end = real["high"] if sign > 0 else real["low"]
    return bool(sign * cells[name]["value"] > sign * (real["value"] if end is None else end))


def _chart(rows: Sequence[Mapping[str, Any]], sets: Mapping[str, str], metrics: Sequence[str]) -> str | None:
    """A panel per metric, with a dot and its interval for each set; None if no set has a value."""
    valued = {(row["metric"], row["model"]): row for row in rows if row["value"] is not None}
    drawn = [metric for metric in metrics if any(key[0] == metric for key in valued)]
    if not drawn:
        return None
    down = -(-len(drawn) // _ACROSS)
    height = 0.55 + 0.2 * len(sets)
    figure = Figure(figsize=(9, down * height + 0.15))
    grid = figure.subplots(down, _ACROSS, squeeze=False, sharey=True)
    share = 1 / (down * height + 0.15)
    figure.subplots_adjust(
        left=0.145,
        right=0.985,
        top=1 - 0.25 * share,
        bottom=0.3 * share,
        wspace=0.1,
        hspace=0.55 / (height - 0.5),
    )
    for axes, metric in zip(grid.flat, drawn, strict=False):
        for position, name in enumerate(sets):
            if (metric, name) in valued:
                _dot(axes, position, valued[metric, name])
        ceiling = valued.get((metric, CEILING))
        if ceiling:
            axes.axvline(ceiling["value"], color=charts.INK, linewidth=0.8, linestyle=":")
        unit = next(row["unit"] for row in rows if row["metric"] == metric)
        axes.set_title(metric if unit == "1" else f"{metric}, {unit}")
        axes.set_yticks(range(len(sets)), list(sets.values()))
        axes.set_ylim(len(sets) - 0.4, -0.6)
        axes.locator_params(axis="x", nbins=4)
        charts.chart(axes)
    for axes in list(grid.flat)[len(drawn) :]:
        axes.set_axis_off()
    return charts.svg(figure)


def _dot(axes: Axes, position: int, row: Mapping[str, Any]) -> None:
    """The value and its interval, if any; real scans in the page's text colour, models in colours."""
    colour = charts.colour(row["model"])
    if row["low"] is not None:
        axes.plot([row["low"], row["high"]], [position, position], color=colour, linewidth=2, alpha=0.6)
    inside = "none" if row["model"] == FLOOR else colour
    axes.plot([row["value"]], [position], "o", color=colour, markerfacecolor=inside, markersize=5)
