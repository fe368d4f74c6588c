"""Histograms and loss curves as SVG, in the colours of the reader's light or dark theme."""

import io
from collections.abc import Mapping, Sequence
from pathlib import Path

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure

from bids_alphagan.models import MODELS
from bids_alphagan.report.figures import COLOURS, TISSUES, data_uri, load

# Placeholders that `svg` replaces by the colours of the reader's theme.
INK, GRID = "#010203", "#040506"
ACCENTS = ("#1f9e89", "#d1495b", "#6f7fd8", "#c98a1b", "#8e5bb5", "#5b8c3e")
THEME = (
    "<style>:root{--ink:#39424e;--grid:#d9dee5}"
    "@media (prefers-color-scheme:dark){:root{--ink:#c3cbd6;--grid:#333c48}}</style>"
)


def colour(model: str | None) -> str:
    """A model's colour, the same in every chart of every page; the page's text colour for real scans."""
    return ACCENTS[list(MODELS).index(model) % len(ACCENTS)] if model in MODELS else INK


def histograms(reference: Path, preproc: Path, maps: Mapping[str, np.ndarray]) -> str:
    """Intensities of the scan as acquired, in total and by tissue, and after scaling to [-1, 1]."""
    scan, scaled = load(reference).data, load(preproc).data
    figure = Figure(figsize=(9, 2.6))
    before, after = figure.subplots(1, 2)
    figure.subplots_adjust(left=0.065, right=0.99, bottom=0.18, top=0.89, wspace=0.12)
    edges = np.linspace(scan.min(), np.percentile(scan, 99.9), 81)
    before.hist(scan.ravel(), edges, histtype="step", color=INK, linewidth=1.1, label="all voxels")
    for tissue in TISSUES:
        if tissue in maps:
            inside = scan[maps[tissue] > 0.5]
            before.hist(inside, edges, histtype="stepfilled", color=COLOURS[tissue], alpha=0.55, label=tissue)
    before.set(title="before: as acquired", xlabel="intensity", ylabel="voxels", yscale="log")
    _legend(before)
    after.hist(scaled.ravel(), np.linspace(-1, 1, 81), histtype="step", color=INK, linewidth=1.1)
    after.set(title="after: the network's input", xlabel="intensity", yscale="log", xlim=(-1.05, 1.05))
    for axes in (before, after):
        chart(axes)
    return svg(figure)


def losses(columns: Mapping[str, np.ndarray]) -> str:
    """Loss curves: generator and discriminator large, as in Figure 8 of the paper, all other terms small.

    Parameters
    ----------
    columns: name to (n,) values; "step" is the horizontal axis.
    """
    step = columns["step"]
    terms = {name: values for name, values in columns.items() if name != "step"}
    main = [name for name in terms if leading(name)] or list(terms)[:2]
    small = [name for name in terms if name not in main]
    n_rows = -(-len(small) // 3)
    figure = Figure(figsize=(9, 3 + 1.7 * n_rows))
    grid = figure.add_gridspec(1 + n_rows, 3, height_ratios=[2, *[1] * n_rows], hspace=0.55, wspace=0.2)
    figure.subplots_adjust(
        left=0.065, right=0.99, bottom=0.5 / (3 + 1.7 * n_rows), top=1 - 0.1 / (3 + 1.7 * n_rows)
    )
    axes = figure.add_subplot(grid[0, :])
    for name, colour in zip(main, ACCENTS, strict=False):
        _curve(axes, step, terms[name], colour, name.replace("_", " "))
    axes.set(xlabel="iteration", ylabel="loss")
    _frame(axes, [terms[name] for name in main])
    _legend(axes)
    chart(axes)
    for i, name in enumerate(small):
        axes = figure.add_subplot(grid[1 + i // 3, i % 3])
        _curve(axes, step, terms[name], ACCENTS[2], name)
        axes.set_title(name.replace("_", " "))
        _frame(axes, [terms[name]])
        chart(axes)
    return svg(figure)


def leading(term: str) -> bool:
    """Whether a loss column is the total loss of the generator or the discriminator."""
    return term.removesuffix("_loss") in ("generator", "discriminator")


def _curve(
    axes: Axes, step: np.ndarray, values: np.ndarray, colour: str, label: str, bins: int = 200
) -> None:
    """A line through means of bins, over a band from the lowest to the highest value of each bin."""
    groups = [g for g in np.array_split(np.arange(len(step)), min(bins, len(step))) if len(g)]
    x = [step[g].mean() for g in groups]
    low, mean, high = ([f(values[g]) for g in groups] for f in (np.min, np.mean, np.max))
    axes.fill_between(x, low, high, color=colour, alpha=0.2, linewidth=0)
    axes.plot(x, mean, color=colour, linewidth=1.3, label=label, marker="." if len(x) < 3 else None)


def _frame(axes: Axes, curves: Sequence[np.ndarray]) -> None:
    """Let a few extreme values, mostly early ones, leave the frame if they would flatten all others."""
    values = np.concatenate(curves)
    values = values[np.isfinite(values)]
    if len(values) < 50:
        return
    low, high = np.percentile(values, (1, 99))
    if np.ptp(values) > 3 * (high - low) > 0:
        margin = 0.2 * (high - low)
        axes.set_ylim(max(low - margin, values.min()), min(high + margin, values.max()))


def _legend(axes: Axes) -> None:
    axes.legend(frameon=False, labelcolor=INK, fontsize=8)


def chart(axes: Axes) -> None:
    """Apply the style of all charts to axes: a light grid, no frame, the page's colours."""
    axes.set_facecolor("none")
    axes.grid(color=GRID, linewidth=0.6)
    axes.set_axisbelow(True)
    axes.tick_params(colors=INK, labelsize=7.5, which="both", length=0)
    axes.title.set(color=INK, fontsize=9)
    for label in (axes.xaxis.label, axes.yaxis.label):
        label.set(color=INK, fontsize=8)
    axes.spines[:].set_visible(False)


def svg(figure: Figure) -> str:
    """The figure as a data URI, in the colours of the reader's theme."""
    figure.set_facecolor("none")
    stream = io.StringIO()
    # Reproducible bytes; text stays text, in the reader's sans-serif font.
    with mpl.rc_context({"svg.hashsalt": "report", "svg.fonttype": "none"}):
        FigureCanvasSVG(figure).print_svg(stream, metadata={"Date": None})
    text = stream.getvalue().replace(INK, "var(--ink)").replace(GRID, "var(--grid)")
    return data_uri(text.replace("<defs>", THEME + "<defs>", 1).encode(), "image/svg+xml")
