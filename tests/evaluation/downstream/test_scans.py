"""Labels and scans from their files."""

import logging
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import tiny
from toy_scans import SHAPE

from bids_alphagan.bids.derivatives import real_uri, write_masks, write_prepared
from bids_alphagan.bids.names import ScanName, sidecar
from bids_alphagan.bids.prepared import subject_scans
from bids_alphagan.common.errors import UserError
from bids_alphagan.common.files import write_json
from bids_alphagan.common.volume import conform, load, read_reference, save
from bids_alphagan.evaluation import volumes
from bids_alphagan.evaluation.downstream.scans import real_scans, synthetic_scans


@pytest.mark.parametrize("axcodes", ["RAS", "LPI", "SRA", "AIL", "PSR"])
@pytest.mark.parametrize("grid", [16, 6])
def test_labels_land_on_the_voxels_of_their_scan(tmp_path: Path, axcodes: str, grid: int) -> None:
    """The scan is bright where a label is: in the cube, on whatever grid, it must be so still."""
    labels = np.zeros((7, 8, 12), np.uint8)
    labels[1:3, 2:7, 3:9], labels[3:6, 1:4, 2:6], labels[4:6, 5:7, 8:11] = 1, 2, 3
    ras = nib.orientations.axcodes2ornt("RAS")
    turn = nib.orientations.ornt_transform(ras, nib.orientations.axcodes2ornt(axcodes))
    path = tmp_path / "labels.nii.gz"
    nib.save(nib.Nifti1Image(labels, tiny.AFFINE).as_reoriented(turn), path)
    cubes = []
    for label in (1, 2, 3):
        bright = nib.Nifti1Image((labels == label).astype(np.float32), tiny.AFFINE).as_reoriented(turn)
        made = conform(bright, grid, 100)
        cubes.append((made.data + 1) / 2)
    found = volumes.read_labels(path, made.record)
    assert (found.shape, found.dtype) == ((grid,) * 3, np.uint8)
    if grid == 16:
        inside = found[volumes.field_of_view(made.record)]
        np.testing.assert_array_equal(inside, labels)
        assert found.sum() == labels.sum()
    else:  # resampled to half of its slices and fewer rows: where one label fills most of a voxel, it is it
        for label, cube in enumerate(cubes, start=1):
            assert (found[cube > 0.75] == label).all()
            assert (cube > 0.75).sum() > 0
            assert (cube[found == label] > 0.3).all()


def test_labels_of_another_grid_or_none_are_refused(tmp_path: Path) -> None:
    labels = np.ones(SHAPE, np.uint8)
    record = conform(nib.Nifti1Image(tiny.values(), tiny.AFFINE), 16, 100).record
    path = tmp_path / "dseg.nii.gz"
    for data, affine, message in (
        (labels[:-1], tiny.AFFINE, r"\(6, 8, 9\) voxels, stored as RAS, but its scan has \(7, 8, 9\)"),
        (labels, np.diag([-1, 1, 1, 1]) @ tiny.AFFINE, r"stored as LAS, but its scan has .* stored as RAS"),
        (labels * np.float32(0.5), tiny.AFFINE, "is not a label image"),
    ):
        nib.save(nib.Nifti1Image(data, affine), path)
        with pytest.raises(UserError, match=message):
            volumes.read_labels(path, record)
    path.write_bytes(b"damaged")
    with pytest.raises(UserError, match="cannot be read"):
        volumes.read_labels(path, record)


def test_real_and_synthetic_scans_from_their_files(tmp_path: Path, caplog) -> None:
    labels = np.random.default_rng(0).integers(0, 4, SHAPE).astype(np.uint8)
    image = nib.Nifti1Image(tiny.values(), tiny.AFFINE).as_reoriented([[2, 1], [0, -1], [1, 1]])
    nib.save(image, tmp_path / "raw.nii.gz")
    image = load(tmp_path / "raw.nii.gz")
    stored = nib.Nifti1Image(labels, tiny.AFFINE).as_reoriented([[2, 1], [0, -1], [1, 1]])
    maps = {t: np.asarray(stored.dataobj) == k for k, t in enumerate(("GM", "WM", "CSF"), start=1)}
    maps |= {"dseg": np.asarray(stored.dataobj), "brain": np.asarray(stored.dataobj) > 0}
    made = conform(image, 16, 100)
    cube = nib.Nifti1Image(made.data, made.affine)
    names = [ScanName((("sub", label),), "T2w") for label in ("01", "02")]
    for name in names:
        reference = np.asarray(image.dataobj)
        write_prepared(tmp_path, name, image, "bids:raw:x", reference, cube, made.record, {})
    write_masks(tmp_path, names[0], image, maps, "x", {}, {"brain_volume": 1.0})
    prepared = [scan for label in ("01", "02") for scan in subject_scans(tmp_path, label)]
    box = volumes.common_field_of_view([scan.record for scan in prepared])
    with caplog.at_level(logging.WARNING, logger="bids_alphagan"):
        (scan,) = real_scans(prepared, box)
    assert "sub-02 has no masks" in caplog.text
    assert (scan.name, scan.animal, scan.spacing) == ("sub-01", "01", pytest.approx((0.5, 0.75, 1.25)))
    np.testing.assert_array_equal(scan.labels, labels)
    expected = tiny.values() / tiny.values().max()
    np.testing.assert_allclose(scan.image, expected, atol=1e-6)

    cohort = tmp_path / "derivatives" / "m"
    for name, desc in zip(names, ("synthetic", None), strict=True):
        save(image, cohort / name.image())
        write_json(sidecar(cohort / name.image()), {"Sources": [real_uri(tmp_path, prepared[0].preproc)]})
        if desc:
            write_masks(cohort, name, image, maps, "x", {}, {}, desc=desc)
    (drawn,) = synthetic_scans(cohort, box, 16, 100)
    np.testing.assert_array_equal(drawn.labels, labels)
    np.testing.assert_allclose(drawn.image, expected, atol=1e-6)
    assert synthetic_scans(cohort, box, 16, 100, most=0) == []
    dseg = prepared[0].masks["dseg"]
    save(nib.Nifti1Image(np.asarray(load(dseg).dataobj) + np.uint8(4), load(dseg).affine), dseg)
    with pytest.raises(UserError, match=r"sub-01_dseg.*has the label 7"):
        real_scans(prepared, box)
    assert read_reference(cohort / names[0].image())[0].shape == image.shape
