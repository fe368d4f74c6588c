"""The pictures of a training in the group report."""

import base64
import io
from pathlib import Path

import numpy as np
import pytest
from bids_alphagan.config.choices import MODEL_NAMES
from matplotlib.figure import Figure
from PIL import Image
from test_report import metrics_section
from test_report_downstream import section

from bids_alphagan.evaluation.downstream import section as downstream
from bids_alphagan.evaluation.pairs import section as metrics
from bids_alphagan.report import charts, figures


def read_png(uri: str) -> Image.Image:
    return Image.open(io.BytesIO(base64.b64decode(uri.split(",")[1])))


def test_samples_through_training_are_axial_slices_with_the_last_stage_below(tmp_path: Path) -> None:
    paths = []
    for stage, step in enumerate((10, 20, 50, 100, 200, 500, 1000), start=1):
        planes = np.zeros((2, 3, 8, 8), np.uint8)
        planes[0, 2, 4:, :] = 30 * stage  # the first latent's right half, across z
        paths.append(tmp_path / f"step-{step:06d}.npy")
        np.save(paths[-1], planes, allow_pickle=False)
    grey = np.asarray(read_png(figures.progress(paths)).convert("L")).astype(float)
    height, width = grey.shape
    size = width / (2 + 0.6)
    assert height == pytest.approx(6 * size, rel=0.02)  # the first of seven stages is left out
    for row, stage in enumerate(range(2, 8)):
        y = int((row + 0.5) * size)
        assert grey[y, int((0.6 + 0.75) * size)] == pytest.approx(30 * stage, abs=12)
        assert grey[y, int((0.6 + 0.2) * size)] < 12
        assert grey[y, int((0.6 + 1.75) * size)] < 12
    assert figures.progress([]) is None


def test_first_values_do_not_flatten_a_loss_curve() -> None:
    axes = Figure().add_subplot()
    curve = np.r_[1000.0, np.linspace(1, 2, 999)]
    axes.plot(curve)
    charts._frame(axes, [curve])
    low, high = axes.get_ylim()
    assert 0.9 <= low <= 1.02
    assert 2 <= high < 3
    few = Figure().add_subplot()
    few.plot(curve[:20])
    charts._frame(few, [curve[:20]])
    assert few.get_ylim()[1] > 1000


def drawn(monkeypatch: pytest.MonkeyPatch) -> list[Figure]:
    """The figures that are made from now on."""
    made: list[Figure] = []
    monkeypatch.setattr(charts, "svg", lambda figure: made.append(figure) or "")
    return made


def test_the_ceiling_is_a_line_in_each_metric_s_panel(monkeypatch: pytest.MonkeyPatch) -> None:
    made = drawn(monkeypatch)
    metrics.view(metrics_section())
    for panel, value in zip(made[0].axes, (0.8, 0.9, 0.01), strict=True):
        dotted = [line for line in panel.lines if line.get_linestyle() == ":"]
        assert [list(line.get_xdata()) for line in dotted] == [[value, value]]


def test_a_model_has_one_colour_in_all_sections(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whichever other models and rows are there."""
    made = drawn(monkeypatch)
    metrics.view(metrics_section())
    downstream.view(section(0.1, "yes"))
    dots = [{line.get_color() for line in f.axes[0].lines if line.get_marker() == "o"} for f in made]
    own, other = charts.colour("sigmarat2"), charts.colour("adni")
    assert dots == [{charts.INK, own, other}, {charts.INK, own}]
    assert len({charts.colour(name) for name in (*MODEL_NAMES, "real", None)}) == len(MODEL_NAMES) + 1
    assert charts.colour("real") == charts.colour("real+noise") == charts.INK
