"""The charts of reports: what leads, what is in the frame, and one colour for a model everywhere."""

from pathlib import Path

import numpy as np
import pytest
from answers import TWO, downstream, pairs, section
from matplotlib.figure import Figure
from pages import picture

from bids_alphagan.models import MODELS
from bids_alphagan.report import charts, figures


def test_samples_through_training_are_axial_slices_with_the_last_stage_below(tmp_path: Path) -> None:
    paths = []
    for stage, step in enumerate((10, 20, 50, 100, 200, 500, 1000), start=1):
        planes = np.zeros((2, 3, 8, 8), np.uint8)
        planes[0, 2, 4:, :] = 30 * stage  # the first latent's right half, across z
        paths.append(tmp_path / f"step-{step:06d}.npy")
        np.save(paths[-1], planes, allow_pickle=False)
    uri = figures.progress(paths)
    assert uri is not None
    grey = picture(uri).astype(float).mean(axis=2)
    height, width = grey.shape
    size = width / (2 + 0.6)
    assert height == pytest.approx(6 * size, rel=0.02)  # the first of seven stages is left out
    for row, stage in enumerate(range(2, 8)):
        y = int((row + 0.5) * size)
        assert grey[y, int((0.6 + 0.75) * size)] == pytest.approx(30 * stage, abs=12)
        assert grey[y, int((0.6 + 0.2) * size)] < 12
        assert grey[y, int((0.6 + 1.75) * size)] < 12
    assert figures.progress([]) is None


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> list[Figure]:
    """The charts that are made from now on."""
    made: list[Figure] = []
    monkeypatch.setattr(charts, "svg", lambda figure: made.append(figure) or "")
    return made


def test_first_values_do_not_flatten_a_loss_curve(drawn: list[Figure]) -> None:
    curve = np.r_[1000.0, np.linspace(1, 2, 999)]
    charts.losses({"step": np.arange(1000.0), "generator_loss": curve})
    low, high = drawn[0].axes[0].get_ylim()
    assert 0.9 <= low <= 1.02
    assert 2 <= high < 3
    charts.losses({"step": np.arange(20.0), "generator_loss": curve[:20]})
    assert drawn[1].axes[0].get_ylim()[1] > 1000


def test_generator_and_discriminator_lead_the_loss_curves(drawn: list[Figure]) -> None:
    names = ("generator_mse", "generator_loss", "code_discriminator_loss", "discriminator_loss")
    charts.losses({"step": np.arange(3.0), **dict.fromkeys(names, np.ones(3))})
    large, *small = drawn[0].axes
    assert [text.get_text() for text in large.get_legend().texts] == ["generator loss", "discriminator loss"]
    assert [axes.get_title() for axes in small] == ["generator mse", "code discriminator loss"]


def test_the_ceiling_is_a_line_in_each_metric_s_panel(drawn: list[Figure]) -> None:
    section("pairs", pairs(), TWO)
    for panel, value in zip(drawn[0].axes, (0.8, 0.9, 0.01), strict=True):
        dotted = [line for line in panel.lines if line.get_linestyle() == ":"]
        assert [list(line.get_xdata()) for line in dotted] == [[value, value]]


def test_a_model_has_one_colour_in_all_sections(drawn: list[Figure]) -> None:
    """Whichever other models and rows are there."""
    section("pairs", pairs(), TWO)
    section("downstream", downstream(0.1, "yes"))
    dots = [{line.get_color() for line in f.axes[0].lines if line.get_marker() == "o"} for f in drawn]
    own, other = charts.colour("sigmarat2"), charts.colour("adni")
    assert dots == [{charts.INK, own, other}, {charts.INK, own}]
    assert len({charts.colour(name) for name in (*MODELS, "real", None)}) == len(MODELS) + 1
    assert charts.colour("real") == charts.colour("real+noise") == charts.INK
