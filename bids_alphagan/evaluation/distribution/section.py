"""The report's section on the distribution: do synthetic scans vary like real ones?"""

from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.figure import Figure

from bids_alphagan.evaluation.question import BAD, CHANCE, GOOD, OPEN, Answer, Headline, unasked
from bids_alphagan.report import charts
from bids_alphagan.report.numbers import number

_ENOUGH = 8  # animals; with fewer, the absence of a difference means little
_NAMES = {"real": "Other real animals", "real+noise": "The same with noise"}
_MEASURES = {
    "precision": "Precision: are they real?",
    "recall": "Recall: are all kinds there?",
    "density": "Density",
    "coverage": "Coverage",
}


def view(answer: Answer, labels: Mapping[str, str]) -> dict[str, Any]:
    """A chart, and a row of the table for each space and model."""
    shown = {"notes": answer.notes, "reason": answer.reason}
    if answer.reason:
        return shown
    rows = answer.tables["distribution"]
    names = {**_NAMES, **labels}
    lines = [{**row, "label": names[row["model"]], "verdict": _verdict(row)} for row in rows]
    against = rows[0]["against"]
    return shown | {"lines": lines, "chart": _chart(lines), "against": against}


def methods(answer: Answer) -> str:
    """A paragraph for a manuscript."""
    if answer.reason:
        return ""
    frechet = any(row["frechet"] is not None for row in answer.tables["distribution"])
    return (
        "Whole cohorts were compared with the real scans as sets of features (anatomy: volumes, shape, "
        "tissue contrast and texture from scans and masks; appearance: principal components of the training "
        "scans' lowest spatial frequencies) by the unbiased kernel maximum mean discrepancy with a "
        "permutation test over animals [@mmd], by precision and recall [@precision] and by density and "
        f"coverage [@density]{', and by the Fréchet distance [@frechet]' if frechet else ''}."
    )


def headline(model: str, answer: Answer | None) -> Headline:
    """The result of the permutation tests; a difference in any space counts."""
    question, section = "Is it real?", "distribution"
    if answer is None:
        return unasked(question, "evaluate")
    if answer.reason:
        return Headline(question, OPEN, "Left out: see why.", section)
    rows = [row for row in answer.tables["distribution"] if row["model"] == model]
    if not rows:
        return unasked(question, "evaluate")
    tested = [row for row in rows if row["mmd_p"] is not None]
    if not tested:
        return Headline(question, OPEN, "Too few scans to tell.", section)
    animals = "held-out animals" if rows[0]["against"] == "held-out" else "the training animals"
    differ = [row for row in tested if row["mmd_p"] < CHANCE]
    by = " and ".join(f"{row['space']} (p = {number(row['mmd_p'])})" for row in differ or tested)
    if differ:
        return Headline(question, BAD, f"As a set, they differ from {animals} by {by}.", section)
    n = min(row["n_real_animals"] for row in tested)
    text = f"No difference found from {n} {animals.removeprefix('the ')} by {by}"
    if animals != "held-out animals":
        return Headline(question, OPEN, f"{text}, which copies would pass, too.", section)
    if n < _ENOUGH:
        return Headline(question, OPEN, f"{text}, which are too few to tell.", section)
    return Headline(question, GOOD, f"{text}.", section)


def _verdict(row: Mapping[str, Any]) -> str:
    """The result of the permutation test, in words."""
    if row["mmd_p"] is None:
        return "too few to tell"
    if row["mmd_p"] < 0.05:
        return "differs from real animals"
    return "no difference found"


def _chart(lines: Sequence[Mapping[str, Any]]) -> str | None:
    """A panel per measure: a dot and interval for each space and set, and a tick for a perfect model."""
    shown = [line for line in lines if line["precision"] is not None]
    if not shown:
        return None
    height = 0.75 + 0.24 * len(shown)
    figure = Figure(figsize=(9, height))
    panels = figure.subplots(1, len(_MEASURES), sharey=True)
    figure.subplots_adjust(left=0.2, right=0.985, top=1 - 0.3 / height, bottom=0.3 / height, wspace=0.12)
    for axes, (measure, title) in zip(panels, _MEASURES.items(), strict=True):
        for position, line in enumerate(shown):
            perfect = {"density": 1.0, "coverage": line["expected_coverage"]}.get(measure)
            if perfect is not None:
                axes.plot([perfect] * 2, [position - 0.32, position + 0.32], color=charts.INK, linewidth=1.2)
            colour = charts.colour(line["model"])
            low, high = line.get(f"{measure}_low"), line.get(f"{measure}_high")
            if low is not None:
                axes.plot([low, high], [position] * 2, color=colour, linewidth=2, alpha=0.35, zorder=1)
            axes.plot([line[measure]], [position], "o", color=colour, markersize=5.5)
        axes.set_title(title)
        axes.set_xlim(
            -0.04, max(1.08, 1.05 * max(line.get(f"{measure}_high") or line[measure] for line in shown))
        )
        axes.set_yticks(range(len(shown)), [f"{line['label']}, {line['space']}" for line in shown])
        axes.set_ylim(len(shown) - 0.4, -0.6)
        axes.locator_params(axis="x", nbins=4)
        charts.chart(axes)
    return charts.svg(figure)
