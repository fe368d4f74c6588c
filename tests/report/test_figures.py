"""Pictures of scans and masks: right sides, right proportions, and a grey scale that shows the brain."""

from pathlib import Path

import numpy as np
import pytest
from heads import SHAPE, ZOOMS, save
from matplotlib.figure import Figure
from pages import picture

from bids_alphagan.report import figures


def test_scans_are_shown_in_ras(tmp_path: Path) -> None:
    data = np.zeros(SHAPE, np.float32)
    data[0, 0, 0] = 1  # x to the left, y to posterior: this voxel is the rightmost, foremost, lowest one
    scan = figures.load(save(tmp_path / "a.nii.gz", data[..., None]))
    assert scan.data.shape == SHAPE
    assert np.argwhere(scan.data).tolist() == [[6, 7, 0]]
    rotated = np.array([[0, 0, 0.9, 0], [0.4, 0, 0, 0], [0, 0.7, 0, 0], [0, 0, 0, 1]])
    turned = figures.load(
        save(tmp_path / "b.nii.gz", np.arange(504, dtype=np.float32).reshape(SHAPE), rotated)
    )
    assert turned.data.shape == (9, 7, 8)
    assert turned.zooms == pytest.approx((0.9, 0.4, 0.7))


@pytest.mark.parametrize(
    ("plane", "shape", "extent"),
    [("axial", (8, 7), (3.5, 3.2)), ("coronal", (9, 7), (3.5, 9.0)), ("sagittal", (9, 8), (3.2, 9.0))],
)
def test_slices_keep_their_axes_and_millimetres(
    plane: str, shape: tuple, extent: tuple, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn: list[Figure] = []
    monkeypatch.setattr(figures, "png", lambda figure: drawn.append(figure) or "")
    data = np.arange(504, dtype=np.float32).reshape(SHAPE)
    figures.three_planes(figures.Scan(data, ZOOMS), {}, np.array([2, 2, 2]))
    cut = drawn[0].axes[0].images[list(figures.PLANES).index(plane)]
    values, (left, right, bottom, top) = cut.get_array(), cut.get_extent()
    assert values.shape == shape
    place = [0, 0, 0]
    place[figures.PLANES[plane].cut] = 2
    place[figures.PLANES[plane].up] = 3
    place[figures.PLANES[plane].across] = 5
    assert values[3, 5] == data[tuple(place)]
    assert cut.origin == "lower"
    assert (right - left, top - bottom) == pytest.approx(extent)


def test_pictures_keep_the_proportions_and_show_the_masks() -> None:
    scan = figures.Scan(np.random.default_rng(0).random(SHAPE, dtype=np.float32), (1.0, 1.0, 0.5))
    at = np.array([3, 4, 4])
    plain = picture(figures.three_planes(scan, {}, at))
    widths, height, gap = (7, 7, 8), 8, 0.02 * 22
    assert plain.shape[1] / plain.shape[0] == pytest.approx((sum(widths) + 2 * gap) / height, rel=0.02)
    mask = np.zeros(SHAPE, np.float32)
    mask[2:5, 3:6, 3:6] = 1
    masked = picture(figures.three_planes(scan, {"CSF": mask}, at))
    blue = (masked[..., 2].astype(int) - masked[..., 0] > 60).mean(axis=0)
    assert (blue > 0).any()
    assert not (plain[..., 2].astype(int) - plain[..., 0] > 60).any()


def test_outlines_run_along_the_voxels_edges() -> None:
    inside = np.zeros((3, 4), bool)
    inside[2, 1] = True  # third row, second column, at the border
    edges = {frozenset(map(tuple, edge)) for edge in figures.outline(inside).tolist()}
    corners = [(1, 2), (2, 2), (2, 3), (1, 3)]
    assert edges == {frozenset(pair) for pair in zip(corners, corners[1:] + corners[:1], strict=True)}
    assert figures.outline(np.zeros((3, 4), bool)).shape == (0, 2, 2)


def test_grey_scale_is_not_spoilt_by_a_few_voxels() -> None:
    data = np.random.default_rng(0).random((20, 21, 22), dtype=np.float32)
    data[0, 0, :3] = 1e6
    low, high = figures.window(data)
    assert 0 <= low < 0.05
    assert 0.9 < high <= 1
    assert figures.window(np.full(SHAPE, 3.0))[1] > 3
