"""Reading, conforming and restoring scans on grids with unequal axes."""

import gzip
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from bids_alphagan.common import volume
from bids_alphagan.common.errors import ScanError, UserError

ZOOMS = (0.5, 0.75, 1.25)


def write(path: Path, data: np.ndarray, axcodes: str = "RAS", slope: float | None = None) -> Path:
    """Write `data`, given in RAS axes, as a file whose axes run along `axcodes`."""
    image = nib.Nifti1Image(data, nib.affines.from_matvec(np.diag(ZOOMS), (-3.0, 5.0, -7.0)))
    to = nib.orientations.ornt_transform(
        nib.orientations.axcodes2ornt("RAS"), nib.orientations.axcodes2ornt(axcodes)
    )
    image = image.as_reoriented(to)
    image.header.set_xyzt_units("mm", "sec")
    if slope is not None:
        image.header.set_slope_inter(slope, 1.5)
    nib.save(image, path)
    return path


@pytest.fixture
def head() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 3000, (7, 8, 9)).astype(np.int16)


@pytest.mark.parametrize("axcodes", ["RAS", "LPI", "SRA", "AIL", "PSR"])
def test_conform_then_restore_gives_the_scan_back(tmp_path: Path, head: np.ndarray, axcodes: str) -> None:
    path = write(tmp_path / "a.nii.gz", head, axcodes)
    image, _ = volume.read_reference(path)
    conformed = volume.conform(image, 16, 100)
    assert conformed.data.shape == (16, 16, 16)
    assert conformed.data.min() == -1
    assert conformed.data.max() == 1
    # One data set in five orientations is one and the same cube.
    inside = conformed.data[volume.field_of_view(conformed.record)]
    np.testing.assert_allclose((inside + 1) / 2 * head.max(), head, atol=1e-3)
    back = volume.restore(conformed.data, nib.load(path), conformed.record)
    raw = nib.load(path)
    np.testing.assert_array_equal(np.asarray(back.dataobj), np.asarray(raw.dataobj))
    np.testing.assert_array_equal(back.affine, raw.affine)
    assert back.get_data_dtype() == raw.get_data_dtype()


@pytest.mark.parametrize("grid", [16, 6])  # padded, and resampled
@pytest.mark.parametrize("axcodes", ["RAS", "LPI", "SRA"])
def test_a_map_follows_its_scan_to_the_cube_and_back(
    tmp_path: Path, head: np.ndarray, axcodes: str, grid: int
) -> None:
    scan, _ = volume.read_reference(write(tmp_path / "scan.nii.gz", head.astype(np.float32), axcodes))
    conformed = volume.conform(scan, grid, 100)
    share = np.asarray(scan.dataobj) / head.max()  # a map in [0, 1] that differs from voxel to voxel
    for name, array in (("map.nii.gz", share), ("series.nii.gz", share[..., None])):
        nib.save(nib.Nifti1Image(array, scan.affine), tmp_path / name)
        cube = volume.read_map(tmp_path / name, conformed.record)
        assert cube.dtype == np.float32
        high = conformed.record["IntensityRange"][1] / head.max()
        np.testing.assert_allclose((cube + 1) / 2, (conformed.data + 1) / 2 * high, atol=1e-5)
    back = volume.restore_map(cube, scan, conformed.record)
    assert back.shape == scan.shape
    if grid == 16:
        np.testing.assert_allclose(back, share, atol=1e-6)
    else:
        restored = volume.restore(conformed.data, scan, conformed.record)
        np.testing.assert_allclose(back, np.asarray(restored.dataobj) / head.max(), atol=1e-5)


@pytest.mark.parametrize("how", ["another grid", "another orientation", "damaged"])
def test_a_map_that_does_not_fit_its_scan_is_refused(tmp_path: Path, head: np.ndarray, how: str) -> None:
    scan, _ = volume.read_reference(write(tmp_path / "scan.nii.gz", head))
    record = volume.conform(scan, 16, 100).record
    path = tmp_path / "map.nii.gz"
    share = head.astype(np.float32) / head.max()
    write(
        path, share[1:] if how == "another grid" else share, "LAS" if how == "another orientation" else "RAS"
    )
    if how == "damaged":
        path.write_bytes(path.read_bytes()[:300])
    with pytest.raises(UserError, match=r"map\.nii\.gz: .*Run participant again for this scan"):
        volume.read_map(path, record)


def test_padding_keeps_the_anatomy_in_place(tmp_path: Path, head: np.ndarray) -> None:
    head[2, 3, 4] = 9000
    image, _ = volume.read_reference(write(tmp_path / "a.nii.gz", head, "LIP"))
    conformed = volume.conform(image, 16, 100)
    peak = np.unravel_index(conformed.data.argmax(), conformed.data.shape)
    np.testing.assert_allclose(
        nib.affines.apply_affine(conformed.affine, peak), np.array((2, 3, 4)) * ZOOMS + (-3, 5, -7), atol=1e-5
    )


def test_a_scan_larger_than_the_grid_is_resampled_not_cropped(tmp_path: Path) -> None:
    x = np.linspace(0, 1, 40)[:, None, None] * np.ones((40, 8, 9))
    image, _ = volume.read_reference(write(tmp_path / "a.nii.gz", x.astype(np.float32)))
    conformed = volume.conform(image, 16, 100)
    assert conformed.record["ResampledGrid"] == [16, 8, 9]
    # Both ends of the ramp are still there, and the field of view is the same in mm.
    inside = conformed.data[volume.field_of_view(conformed.record)]
    assert inside[0].max() < -0.9
    assert inside[-1].min() > 0.9
    assert abs(conformed.affine[0, 0]) * 16 == pytest.approx(ZOOMS[0] * 40)
    back = volume.restore(conformed.data, nib.load(tmp_path / "a.nii.gz"), conformed.record)
    assert back.shape == (40, 8, 9)
    assert np.abs(np.asarray(back.dataobj) - x).max() < 0.03


def test_percentile_clips_and_says_so(tmp_path: Path, head: np.ndarray) -> None:
    head[0, 0, 0] = 30000
    image, _ = volume.read_reference(write(tmp_path / "a.nii.gz", head))
    conformed = volume.conform(image, 16, 99)
    assert conformed.record["IntensityRange"][1] < 3100
    assert 0 < conformed.record["ClippedFraction"] < 0.02


def test_scale_factors_and_time_axis_are_kept(tmp_path: Path, head: np.ndarray) -> None:
    series = np.stack([head, head, head], axis=3)
    path = write(tmp_path / "a.nii.gz", series, slope=0.25)
    image, record = volume.read_reference(path)
    np.testing.assert_allclose(np.asarray(image.dataobj), head * 0.25 + 1.5)
    assert record["VolumesAveraged"] == 3
    written = volume.with_header(np.asarray(image.dataobj), nib.load(path))
    volume.save(written, tmp_path / "b.nii.gz")
    again = nib.load(tmp_path / "b.nii.gz")
    assert again.shape == (7, 8, 9, 1)
    assert again.dataobj.slope == 0.25
    np.testing.assert_allclose(again.get_fdata()[..., 0], head * 0.25 + 1.5)
    assert list(tmp_path.glob(".writing-*")) == []


def test_complex_becomes_magnitude(tmp_path: Path, head: np.ndarray) -> None:
    path = write(tmp_path / "a.nii", (head * np.exp(0.7j)).astype(np.complex64))
    image, record = volume.read_reference(path)
    assert record["ComplexMagnitudeTaken"]
    np.testing.assert_allclose(np.asarray(image.dataobj), head, rtol=1e-4, atol=1e-3)
    assert volume.with_header(np.asarray(image.dataobj), nib.load(path)).get_data_dtype() == np.float32


def test_robust_mean_leaves_a_moved_volume_out(head: np.ndarray) -> None:
    rng = np.random.default_rng(1)
    series = head[..., None] + rng.normal(0, 20, (7, 8, 9, 12)).astype(np.float32)
    series[..., 5] = np.roll(series[..., 5], 2, axis=1)
    mean, kept = volume.robust_mean(series)
    assert kept < 12
    np.testing.assert_allclose(mean, np.delete(series, 5, 3).mean(3), atol=15)


def _broken_affine(data: np.ndarray, path: Path) -> None:
    image = nib.Nifti1Image(data, np.eye(4))
    image.header.set_sform(np.zeros((4, 4)), code=1)
    image.header.set_qform(None, code=0)
    image._affine = None
    nib.save(image, path)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda d, p: p.write_bytes(b""), "empty"),
        (lambda d, p: p.write_bytes(b"not a scan"), "not a readable NIfTI"),
        (lambda d, p: nib.save(nib.Nifti1Image(d[:, :, 0], np.eye(4)), p), "3D, or 4D"),
        (lambda d, p: nib.save(nib.Nifti1Image(d[..., None, None], np.eye(4)), p), "3D, or 4D"),
        (lambda d, p: nib.save(nib.Nifti1Image(np.where(d > 5, np.nan, d), np.eye(4)), p), "NaN"),
        (lambda d, p: nib.save(nib.Nifti1Image(np.where(d > 5, np.inf, d), np.eye(4)), p), "infinite"),
        (lambda d, p: nib.save(nib.Nifti1Image(np.full_like(d, 4), np.eye(4)), p), "every voxel"),
        (_broken_affine, "affine"),
    ],
)
def test_bad_scans_give_one_clear_reason(tmp_path: Path, head: np.ndarray, make, message: str) -> None:
    path = tmp_path / "bad.nii.gz"
    make(head.astype(np.float32), path)
    with pytest.raises(ScanError, match=message) as caught:
        volume.read_reference(path)
    assert str(path) in str(caught.value)


def test_truncated_and_missing_files(tmp_path: Path, head: np.ndarray) -> None:
    path = write(tmp_path / "a.nii.gz", head)
    packed = path.read_bytes()
    path.write_bytes(packed[: len(packed) // 2])
    with pytest.raises(ScanError, match=r"cannot be read|not a readable"):
        volume.read_reference(path)
    plain = tmp_path / "b.nii"
    plain.write_bytes(gzip.decompress(packed)[:-100])
    with pytest.raises(ScanError, match=r"cannot be read|not a readable"):
        volume.read_reference(plain)
    with pytest.raises(ScanError, match="no such file"):
        volume.read_reference(tmp_path / "none.nii.gz")
