"""The report's section on memorisation: the result in one sentence, and the most suspicious pairs."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure

from bids_alphagan.evaluation.pairs.section import alike_cells, too_alike
from bids_alphagan.evaluation.question import (
    BAD,
    CHANCE,
    GOOD,
    OPEN,
    Answer,
    Headline,
    row_of,
    unasked,
)
from bids_alphagan.report import figures
from bids_alphagan.report.numbers import decimals

METHODS = (
    "To find copies, each synthetic scan and its mirror image was aligned with the training scans. The "
    "ratio of its distances to the nearest and the second nearest training animal [@twonn] was tested "
    "against that of real scans, with p adjusted for the number of scans [@holm]."
)

_LIMIT = 0.5  # difference in full colour, as a share of the intensity range
_DIFFERENCE = LinearSegmentedColormap.from_list("difference", ["#4cc3ff", figures.BACKGROUND, "#ff8a5c"])
REPEATED = 0.1  # share of repeating scans above which a cohort fails
_SHOWN = 2  # most suspicious scans to show if none is a copy
_TITLES = ("synthetic, aligned", "nearest training scan", "difference")


def view(answer: Answer, labels: Mapping[str, str], pictures: Path) -> dict[str, Any]:
    """The result, a row of the table and pictures for each model."""
    shown: dict[str, Any] = {"notes": answer.notes, "reason": answer.reason}
    if answer.reason:
        return shown
    tables, more = answer.tables, answer.more
    every = np.load(pictures, allow_pickle=False) if pictures.is_file() else {}
    models = []
    for line in tables["memorisation_summary"]:
        model = line["model"]
        rows = [row for row in tables["memorisation"] if row["model"] == model]
        pairs = every.get(model, [])
        worst = [rows[index] for index in more[model]][: max(line["copies"], _SHOWN)]
        models.append(
            {
                **line,
                "label": labels[model],
                "bad": line["copies"] > 0 or line["n"] - line["distinct"] > REPEATED * line["n"],
                "verdict": _verdict(line, labels[model]),
                "closeness": _closeness(line),
                "pairs": [
                    (row, _picture(pair, more["zooms"])) for row, pair in zip(worst, pairs, strict=False)
                ],
            }
        )
    return shown | {"models": models}


def diverse(model: str, answer: Answer | None, pairs: Answer | None) -> Headline:
    """The result on repetitions within the cohort, and on its scans' similarity beside real ones (`pairs`)."""
    question = "Is it diverse?"
    line = _summary(model, answer)
    rows = pairs.tables["metrics"] if pairs and not pairs.reason else []
    cells = alike_cells(rows, model)
    if line is None and cells is None:
        return unasked(question, "evaluate")
    section, mark, parts = "memorisation", GOOD, []
    if line:
        n, distinct = line["n"], line["distinct"]
        parts.append(f"All {n} scans are different from each other")
        if distinct < n:
            verb = "is" if distinct == 1 else "are"
            parts = [f"Only {distinct} of {n} scans {verb} different from the others"]
            mark = BAD if n - distinct > REPEATED * n else OPEN
    if cells:
        own, real = cells
        parts.append(f"{own['metric']} is {_value(own)}, and {_value(real)} in real scans")
        alike = model in too_alike(rows, [model])
        if alike:
            parts[-1] += ": too alike"
            mark = OPEN if real["high"] is None and mark != BAD else BAD
        section = "pairs" if line is None or alike else section
    return Headline(question, mark, f"{'; '.join(parts)}.", section)


def copied(model: str, answer: Answer | None) -> Headline:
    """The result of the test of each scan's nearest training animal."""
    question, section = "Is it a copy?", "memorisation"
    if answer and answer.reason:
        return Headline(question, OPEN, "Left out: see why.", section)
    line = _summary(model, answer)
    if line is None:
        return unasked(question, "evaluate")
    n, copies = line["n"], line["copies"]
    if copies:
        many = "is a copy" if copies == 1 else "are copies"
        return Headline(question, BAD, f"{copies} of {n} scans {many} of a training scan.", section)
    text = f"None of {n} scans is found to copy a training scan"
    if line["closer_p"] is not None and line["closer_p"] < CHANCE:
        p = f"{line['closer_p']:.2g}"
        text += f", but as a set they lie closer to the training animals than to others (p = {p})."
        return Headline(question, OPEN, text, section)
    if line["notes"]:
        return Headline(question, OPEN, f"{text}, as far as these few animals can show.", section)
    return Headline(question, GOOD, f"{text}.", section)


def _summary(model: str, answer: Answer | None) -> Mapping[str, Any] | None:
    """The model's row of group_memorisation_summary.tsv, or None."""
    return row_of(answer.tables.get("memorisation_summary", []), model) if answer else None


def _value(cell: Mapping[str, Any]) -> str:
    return f"{cell['value']:.{decimals(cell)}f}"


def _verdict(line: Mapping[str, Any], label: str) -> str:
    """The result in one sentence."""
    n, copies, twins = line["n"], line["copies"], line["n"] - line["distinct"]
    if copies:
        many = "is a copy" if copies == 1 else "are copies"
        sentence = f"{copies} of {n} scans of {label} {many} of a training scan"
    else:
        sentence = f"None of {n} scans of {label} is a copy of a training scan"
    if not twins:
        return f"{sentence}, and all are different from each other."
    few = "1 is different" if line["distinct"] == 1 else f"{line['distinct']} are different"
    return f"{sentence}, {'and' if copies else 'but'} only {few} from each other."


def _closeness(line: Mapping[str, Any]) -> str | None:
    """Whether the cohort as a whole is closer to the training animals than to others."""
    if line["closer"] is None:
        return None
    more = "more than expected by chance" if line["closer_p"] < 0.05 else "compatible with chance"
    share, usual = (f"{100 * line[key]:.0f} %" for key in ("closer", "closer_expected"))
    return (
        f"{share} are nearest to a training animal; {usual} are expected of a model that has memorised no "
        f"animal: {more} (p = {line['closer_p']:.2g})."
    )


def _picture(pair: np.ndarray, zooms: Sequence[float]) -> str:
    """Synthetic and training scan, (2, x, y, z) uint8, and their difference in three planes."""
    synthetic, real = pair.astype(np.float32) / 255
    synthetic = _same_scale(synthetic, real)
    size = np.array(real.shape) * zooms
    at = figures.centre(figures.Scan(real, (1.0, 1.0, 1.0)), {})
    low, high = figures.window(real)
    heights = [size[plane.up] for plane in figures.PLANES.values()]
    widths = [size[plane.across] for plane in figures.PLANES.values()]
    figure = Figure(figsize=(6, 6 * sum(heights) / (3 * max(widths)) + 0.25), facecolor=figures.BACKGROUND)
    grid = figure.subplots(3, 3, gridspec_kw={"height_ratios": heights})
    figure.subplots_adjust(0.004, 0.004, 0.996, 1 - 0.25 / figure.get_figheight(), 0.015, 0.015)
    for number, plane in enumerate(figures.PLANES.values()):
        for axes, volume, title in zip(
            grid[number], (synthetic, real, synthetic - real), _TITLES, strict=True
        ):
            flat = np.take(volume, at[plane.cut], axis=plane.cut)
            image = flat if plane.up < plane.across else flat.T
            extent = (0, size[plane.across], 0, size[plane.up])
            style: dict[str, Any] = {"cmap": "gray", "vmin": low, "vmax": high}
            if title == _TITLES[2]:
                reach = _LIMIT * (high - low)
                style = {"cmap": _DIFFERENCE, "vmin": -reach, "vmax": reach}
            axes.imshow(image, origin="lower", extent=extent, interpolation="bicubic", **style)
            axes.set_axis_off()
            if number == 0:
                axes.set_title(title, color="#dfe6ee", fontsize=8.5, pad=4)
    return figures.png(figure)


def _same_scale(synthetic: np.ndarray, real: np.ndarray) -> np.ndarray:
    """`synthetic` with the gain and offset that bring it closest to `real`, as in the search."""
    gain, offset = np.polyfit(synthetic.ravel(), real.ravel(), 1) if synthetic.std() > 0 else (1.0, 0.0)
    return np.asarray(gain * synthetic + offset, np.float32)
