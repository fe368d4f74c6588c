"""Scans to scroll through in the group report: the right slices (group/test_report.py turns the page's wheel)."""

import base64
import io
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from PIL import Image

from bids_alphagan.report import scroll
from bids_alphagan.report.figures import PLANES

SHAPE, ZOOMS = (30, 36, 24), (0.5, 0.5, 1.0)


def scan(path: Path, data: np.ndarray, orientation: str = "RAS") -> Path:
    image = nib.Nifti1Image(data.astype(np.float32), np.diag([*ZOOMS, 1.0]))
    target = nib.orientations.axcodes2ornt(orientation)
    nib.save(
        image.as_reoriented(nib.orientations.ornt_transform(nib.io_orientation(image.affine), target)), path
    )
    return path


def picture(uri: str) -> np.ndarray:
    kind, content = uri.split(",")
    assert kind == "data:image/jpeg;base64"
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(content)))).astype(float)


@pytest.mark.parametrize("plane", PLANES)
def test_slices_run_through_the_brain_in_ras(tmp_path: Path, plane: str) -> None:
    """A ramp along the cut axis and a bright corner: order, extent, sides, proportions."""
    cut, across, up = (getattr(PLANES[plane], name) for name in ("cut", "across", "up"))
    ramp = np.moveaxis(
        np.broadcast_to(np.arange(SHAPE[cut]), [n for i, n in enumerate(SHAPE) if i != cut] + [SHAPE[cut]]),
        -1,
        cut,
    )
    data = ramp.astype(float)
    corner = [slice(None)] * 3
    corner[across], corner[up] = (
        slice(-8, None),
        slice(-8, None),
    )  # right or anterior, and anterior or superior
    data[tuple(corner)] = SHAPE[cut]
    brain = np.zeros(SHAPE)
    inside = [slice(None)] * 3
    inside[cut] = slice(5, SHAPE[cut] - 3)
    brain[tuple(inside)] = 1
    files = scan(tmp_path / "a.nii.gz", data, "LIP"), scan(tmp_path / "d.nii.gz", brain, "LIP")
    (strip,) = scroll.strips([files[0]], [files[1]])[plane]
    assert strip.ratio == pytest.approx(SHAPE[across] * ZOOMS[across] / (SHAPE[up] * ZOOMS[up]), rel=0.02)
    shown = picture(strip.image)
    height, width = shown.shape[0], shown.shape[1] // scroll.LEVELS
    assert width / height == pytest.approx(strip.ratio)
    slices = np.split(shown, scroll.LEVELS, axis=1)
    lower_left = [one[-height // 4 :, : width // 4].mean() for one in slices]
    expected = np.linspace(5, SHAPE[cut] - 4, scroll.LEVELS).round() / SHAPE[cut] * 255
    np.testing.assert_allclose(lower_left, expected, atol=12)
    assert min(one[: height // 8, -width // 8 :].mean() for one in slices) > 240  # pictures begin at the top


def test_without_masks_and_with_empty_ones_the_whole_scan_is_shown(tmp_path: Path) -> None:
    ramp = np.broadcast_to(np.arange(SHAPE[2]), SHAPE)
    path, empty = scan(tmp_path / "a.nii.gz", ramp), scan(tmp_path / "d.nii.gz", np.zeros(SHAPE))
    for dseg in (None, empty):
        shown = picture(scroll.strips([path], [dseg])["axial"][0].image)
        first, last = shown[:, :20].mean(), shown[:, -20:].mean()
        assert (first, last) == pytest.approx((0, 255), abs=4)


def test_large_scans_do_not_make_the_page_heavy(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).random((256, 256, 24))
    (strip,) = scroll.strips([scan(tmp_path / "a.nii.gz", noise)], [None])["axial"]
    assert picture(strip.image).shape == (scroll.PIXELS, scroll.PIXELS * scroll.LEVELS)
