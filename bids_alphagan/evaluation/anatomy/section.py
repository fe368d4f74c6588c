"""The report's section on anatomy: volumes of brain and tissues, real and synthetic."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from bids_alphagan.evaluation.question import Answer
from bids_alphagan.report import charts

METHODS = (
    "Volumes of brain and tissues were compared by Hedges' g [@hedges] and by the ratio of their "
    "standard deviations, with 95 % bootstrap intervals over animals [@bootstrap]."
)

_STRUCTURES = {"brain": "Brain", "gm": "Grey matter", "wm": "White matter", "csf": "CSF"}
_SIZES = ((0.2, "hardly any"), (0.5, "small"), (0.8, "medium"))  # names of smaller effects (Cohen 1988)


def view(answer: Answer, labels: Mapping[str, str]) -> dict[str, Any]:
    """A chart, and a row of the table for each model and structure."""
    shown = {"notes": answer.notes, "reason": answer.reason}
    if answer.reason:
        return shown
    rows = answer.tables["anatomy"]
    names = {"real": "Other real animals", **labels}
    lines = [
        {**row, "label": names[row["model"]], "name": _STRUCTURES[row["structure"]], "size": _size(row)}
        for row in rows
    ]
    sets = {
        name: answer.more["volumes"][name] for name in ("real", *labels) if name in answer.more["volumes"]
    }
    chart = _chart(sets, {"real": "Real", **labels})
    return shown | {"lines": lines, "chart": chart, "against": rows[0]["against"]}


def _size(row: Mapping[str, Any]) -> str:
    """The size of an effect in words, and "may be chance" if its interval contains 0."""
    effect, low, high = row["effect"], row["effect_low"], row["effect_high"]
    if effect is None:
        return "volumes do not vary"
    word = next((word for most, word in _SIZES if abs(effect) < most), "large")
    unsure = low is None or low <= 0 <= high
    return f"{word}, {'may be chance' if unsure else 'more' if effect > 0 else 'less'}"


def _chart(sets: Mapping[str, Sequence[Mapping[str, float]]], labels: Mapping[str, str]) -> str:
    """A panel per structure, a strip per set: a dot for each scan, a bar for mean and spread."""
    height = 0.9 + 0.5 * len(sets)
    figure = Figure(figsize=(9, height))
    panels = figure.subplots(1, len(_STRUCTURES), sharey=True)
    figure.subplots_adjust(left=0.15, right=0.985, top=1 - 0.3 / height, bottom=0.5 / height, wspace=0.1)
    for axes, (structure, title) in zip(panels, _STRUCTURES.items(), strict=True):
        for position, (name, scans) in enumerate(sets.items()):
            _strip(axes, position, np.array([scan[structure] for scan in scans]), charts.colour(name))
        axes.axvline(
            np.mean([scan[structure] for scan in sets["real"]]),
            color=charts.INK,
            linewidth=0.8,
            linestyle=":",
        )
        axes.set_title(title)
        axes.set_xlabel("mL")
        axes.set_yticks(range(len(sets)), [labels[name] for name in sets])
        axes.set_ylim(len(sets) - 0.4, -0.6)
        axes.margins(x=0.12)
        axes.locator_params(axis="x", nbins=4)
        charts.chart(axes)
    return charts.svg(figure)


def _strip(axes: Axes, position: int, values: np.ndarray, colour: str) -> None:
    """Dots over a light bar of one standard deviation to each side, and a line at the mean."""
    heights = position + np.random.default_rng(0).uniform(
        -0.26, 0.26, len(values)
    )  # jitter, for visibility only
    mean, sd = values.mean(), values.std(ddof=1)
    axes.barh(position, 2 * sd, 0.72, left=mean - sd, color=colour, alpha=0.16, linewidth=0)
    axes.plot([mean] * 2, [position - 0.36, position + 0.36], color=colour, linewidth=2)
    dots: dict[str, Any] = {"s": 14, "alpha": 0.8, "linewidths": 0, "rasterized": len(values) > 200}
    axes.scatter(values, heights, color=colour, **dots)
