"""Where a template meets a scan: any orientation, scale and part of a head; and what intensities add."""

from collections.abc import Iterator
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from oracles.overlap import dice
from paths import SHARED
from scipy import ndimage

from bids_alphagan.bids.prepared import warn_of_orientations
from bids_alphagan.segmenters.base import read_ras
from bids_alphagan.segmenters.intensities import refine
from bids_alphagan.segmenters.pose import Volumes, find_pose, load_template, right_angles, true_size
from bids_alphagan.segmenters.registration import (
    FULL,
    Registration,
    correct_bias,
    itk_settings,
    search_template,
    write_transform,
)
from bids_alphagan.templates import Template

REAL = SHARED / "real-bids/sub-rat15/anat/sub-rat15_T2w.nii.gz"


@pytest.fixture(scope="module")
def small(rat: Template) -> Volumes:
    return load_template(rat, 19, 0.2)


@pytest.fixture(scope="module")
def data(scan: Path) -> tuple[np.ndarray, np.ndarray]:
    values, affine, _ = read_ras(scan)
    return values, affine


def brain_in(scan: np.ndarray, affine: np.ndarray, template: Volumes, pose: np.ndarray) -> np.ndarray:
    to_template = np.linalg.inv(template.affine) @ np.linalg.inv(pose) @ affine
    return (
        ndimage.affine_transform(template.maps["brain"], to_template, output_shape=scan.shape, order=1) > 0.5
    )


def test_right_angles_are_the_24_turns() -> None:
    turns = right_angles()
    assert len({turn.tobytes() for turn in turns}) == 24
    np.testing.assert_array_equal(turns[0], np.eye(3))
    assert {round(float(np.linalg.det(turn))) for turn in turns} == {1}


@pytest.mark.parametrize("turn", [0, 5, 11, 23])
def test_wrong_orientation_is_found_and_told(turn: int, data, truth: np.ndarray, small: Volumes) -> None:
    values, affine = data
    claimed = np.eye(4)
    claimed[:3, :3] = right_angles()[turn]
    pose = find_pose(values, claimed @ affine, small)
    assert dice(brain_in(values, claimed @ affine, small, pose.matrix), truth > 0) > 0.85
    assert bool(pose.warnings) == (turn > 0)
    assert all("correct the header" in message for message in pose.warnings)


def test_brain_without_a_head_and_cut_by_the_field_of_view(data, truth: np.ndarray, small: Volumes) -> None:
    values, affine = data
    brain = values * (truth > 0)
    pose = find_pose(brain, affine, small)
    assert dice(brain_in(brain, affine, small, pose.matrix), truth > 0) > 0.85
    assert not pose.warnings
    middle = np.s_[:, :, 6:15]
    moved = affine.copy()
    moved[:3, 3] += affine[:3, 2] * 6
    pose = find_pose(values[middle], moved, small)
    assert dice(brain_in(values[middle], moved, small, pose.matrix), truth[middle] > 0) > 0.85
    assert not pose.warnings


@pytest.mark.slow
@pytest.mark.skipif(not REAL.is_file(), reason=f"the real rat is not there: {REAL}")
def test_a_real_rat_is_not_turned(rat: Template) -> None:
    """Cubic splines in the template's picture once turned it upside down."""
    values, affine, _ = read_ras(REAL)
    with itk_settings(1):
        corrected = correct_bias(values, affine, FULL.n4_iterations)
        assert find_pose(corrected, affine, search_template(rat, affine, FULL)).warnings == ()


@pytest.mark.parametrize("unit", [0.1, 1.0, 10.0])
def test_lengths_ten_times_off_are_put_right_and_told(unit: float, data, small: Volumes) -> None:
    values, affine = data
    claimed = np.diag([unit, unit, unit, 1.0]) @ affine
    found, warnings = true_size(claimed, values.shape, small)
    np.testing.assert_allclose(found, affine, rtol=1e-6)
    assert bool(warnings) == (unit != 1)


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """ITK reads its number of threads at its first use in a process, and other tests want one thread."""
    with itk_settings(1):
        yield


def test_maps_are_means_over_voxels(tmp_path: Path) -> None:
    """A map whose mean over each voxel is 1/2, though it is 0 or 1 at every voxel's centre."""
    write_transform(np.eye(4), tmp_path / "stay.mat")
    affine = np.diag([0.4, 0.5, 0.6, 1.0])
    found = Registration(np.zeros((7, 8, 9), np.float32), affine, (str(tmp_path / "stay.mat"),), ())
    shape, fine = found.grid((2, 2, 2))
    assert shape == (14, 16, 18)
    stripes = np.zeros(shape, np.float32)
    stripes[::2] = 1
    maps = found.maps(Volumes({"GM": stripes}, fine))
    np.testing.assert_allclose(maps["GM"], 0.5, atol=1e-5)


def test_thin_layers_stay_in_a_finer_template(tmp_path: Path) -> None:
    """A sheet of one voxel, seen at half of a voxel: linear interpolation takes a quarter of its height."""
    names = ("t2w", "brain_mask", "gm", "wm", "csf")
    sheet = np.zeros((20, 21, 22), np.float32)
    brain = sheet.copy()
    brain[4:-4, 4:-4, 4:-4] = 1
    sheet[10, 4:-4, 4:-4] = 1
    for name in names:
        values = sheet if name == "wm" else brain
        nib.save(nib.Nifti1Image(values, np.diag([0.5, 0.5, 0.5, 1])), tmp_path / f"{name}.nii.gz")
    paths = {name: tmp_path / f"{name}.nii.gz" for name in names}
    template = Template("sheet", **paths, species=None, citation="")
    heights = [
        load_template(template, 1000, by, 0.25, order=3).maps["WM"].max() for by in (0.2, 0.205, 0.21, 0.215)
    ]
    assert min(heights) > 0.85


def shifted(by: float) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """A ball of GM with a core of WM, and its picture; the ball lies `by` voxels off in the maps."""

    def fractions(offset: float) -> np.ndarray:
        x, y, z = np.meshgrid(*(np.arange(n) - (n - 1) / 2 for n in (23, 24, 25)), indexing="ij")
        radius = np.sqrt((x - offset) ** 2 + y**2 + z**2)
        wm, brain = np.clip(5 - radius + 0.5, 0, 1), np.clip(9 - radius + 0.5, 0, 1)
        return np.stack([brain - wm, wm, np.zeros_like(wm)])

    picture = np.tensordot([7.0, 4.0, 10.0], fractions(0), axes=1)
    noisy = picture + np.random.default_rng(0).normal(0, 0.1, picture.shape)
    return dict(zip(("GM", "WM", "CSF"), fractions(by), strict=True)), noisy


def test_intensities_move_borders_that_the_registration_missed() -> None:
    right, picture = shifted(0)
    wrong, _ = shifted(0.4)
    found = refine(wrong, picture, np.diag([0.4, 0.4, 0.4, 1]))
    for tissue, most in (("GM", 0.8), ("WM", 0.95)):  # the core has the dimmer contrast to move by
        before = np.abs(wrong[tissue] - right[tissue]).mean()
        assert np.abs(found[tissue] - right[tissue]).mean() < most * before
    assert found["GM"].dtype == np.float32
    total = np.sum(list(found.values()), axis=0)
    assert total.max() <= 1 + 1e-6
    assert min(values.min() for values in found.values()) >= 0


def test_intensities_leave_maps_that_fit() -> None:
    right, picture = shifted(0)
    found = refine(right, picture, np.diag([0.4, 0.4, 0.4, 1]))
    for tissue, values in found.items():
        assert np.abs(values - right[tissue]).mean() < 0.01


def test_headers_that_disagree_are_told(caplog: pytest.LogCaptureFixture) -> None:
    records = {f"sub-{n}": {"SourceOrientation": "RAS"} for n in range(4)}
    warn_of_orientations(records)
    assert not caplog.records
    warn_of_orientations({**records, "sub-x": {"SourceOrientation": "LAS"}})
    (message,) = caplog.messages
    assert "4 scans RAS, 1 scans LAS" in message
    assert "sub-x" in message
    assert "sub-1" not in message
