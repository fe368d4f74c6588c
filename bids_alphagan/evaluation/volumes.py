"""Real and synthetic scans as comparable arrays: the network's cube without its padding, in [0, 1]."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from nibabel.orientations import apply_orientation, io_orientation

from bids_alphagan.common.errors import UserError
from bids_alphagan.common.volume import conform, field_of_view, load, read_cube, read_reference, shrink


def common_field_of_view(records: Sequence[Mapping[str, Any]]) -> tuple[slice, ...]:
    """The smallest box of the cube that contains every scan; `records`: `volume.Conformed.record` of each."""
    boxes = [field_of_view(record) for record in records]
    return tuple(
        slice(min(box[axis].start for box in boxes), max(box[axis].stop for box in boxes))
        for axis in range(3)
    )


def real_arrays(preproc: Sequence[Path], box: tuple[slice, ...]) -> np.ndarray:
    """Prepared cubes (desc-preproc) -> (n, x, y, z) float32 in [0, 1]."""
    return np.stack([(read_cube(path)[box] + 1) / 2 for path in preproc])


def synthetic_arrays(
    scans: Sequence[Path], box: tuple[slice, ...], grid: int, upper_percentile: float
) -> np.ndarray:
    """Synthetic NIfTI scans -> (n, x, y, z) float32 in [0, 1], prepared like the real ones.

    They are read from the files that users get, not from the generator, so that the published scans are measured.
    """
    prepared = (conform(read_reference(path)[0], grid, upper_percentile).data for path in scans)
    return np.stack([(cube[box] + 1) / 2 for cube in prepared])


def read_labels(path: Path, record: Mapping[str, Any]) -> np.ndarray:
    """Read labels (dseg) on a scan's own grid and bring them to its cube, as `volume.conform` does for the scan.

    If the scan was resampled, the share of each label in a voxel is resampled like the scan's intensities, and
    the largest share wins; otherwise voxels are only moved.

    Parameters
    ----------
    path: (x, y, z) or (x, y, z, 1), whole numbers from 0 to 255, stored in the order of the scan.
    record: `volume.Conformed.record` of the scan.

    Returns
    -------
    (N, N, N) uint8, 0 in the padding.

    Raises UserError if the file is damaged, is not a label image, or is on another grid than the scan.
    """
    remedy = "Make the masks again: run participant (or synthesise) for this scan."
    try:
        image = load(path)
        data = np.asarray(image.dataobj)
    except Exception as error:  # as in volume.read_reference
        raise UserError(f"{path}: cannot be read ({error}). {remedy}") from error
    data = data[..., 0] if data.ndim == 4 else data
    if data.ndim != 3 or not np.isin(np.unique(data), range(256)).all():
        raise UserError(f"{path}: is not a label image (whole numbers from 0 to 255, one volume). {remedy}")
    order = "".join(nib.aff2axcodes(image.affine))
    data = apply_orientation(data.astype(np.uint8), io_orientation(image.affine))
    if (list(data.shape), order) != (list(record["SourceGrid"]), record["SourceOrientation"]):
        raise UserError(
            f"{path}: {data.shape} voxels, stored as {order}, but its scan has "
            f"{tuple(record['SourceGrid'])}, stored as {record['SourceOrientation']}. {remedy}"
        )
    if record["ResampledGrid"]:
        labels, shape = np.unique(data), tuple(record["ResampledGrid"])
        shares = [shrink((data == label).astype(np.float32), np.eye(4), shape)[0] for label in labels]
        data = labels[np.argmax(shares, axis=0)]
    cube = np.zeros(record["PaddedGrid"], np.uint8)
    cube[field_of_view(record)] = data
    return cube
