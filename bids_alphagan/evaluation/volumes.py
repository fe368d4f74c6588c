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
    """The smallest box of the cube that holds every scan; `records` as in `volume.Conformed.record`."""
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
    """Synthetic NIfTI scans -> (n, x, y, z) float32 in [0, 1], prepared just as the real ones were.

    They are read from the files that users get, not from the generator: what is measured is what is given.
    """
    prepared = (conform(read_reference(path)[0], grid, upper_percentile).data for path in scans)
    return np.stack([(cube[box] + 1) / 2 for cube in prepared])


def read_labels(path: Path, record: Mapping[str, Any]) -> np.ndarray:
    """Read labels (dseg) on a scan's own grid; bring them to its cube, as `volume.conform` brought the scan.

    Where the scan was resampled, each label's share of a voxel is, just as the scan's intensities were, and
    the largest share wins; else voxels are moved and nothing is lost.

    Parameters
    ----------
    path: (x, y, z) or (x, y, z, 1), whole numbers from 0 to 255, stored in the order of the scan.
    record: `volume.Conformed.record` of the scan.

    Returns
    -------
    (N, N, N) uint8, 0 in the padding.

    Raises UserError where the file is damaged, is no label image or lies on another grid than the scan.
    """
    again = "Make the masks again: run participant (or synthesise) for this scan."
    try:
        image = load(path)
        data = np.asarray(image.dataobj)
    except Exception as error:  # as in volume.read_reference
        raise UserError(f"{path}: cannot be read ({error}). {again}") from error
    data = data[..., 0] if data.ndim == 4 else data
    if data.ndim != 3 or not np.isin(np.unique(data), range(256)).all():
        raise UserError(f"{path}: holds no labels (whole numbers from 0 on, one volume). {again}")
    order = "".join(nib.aff2axcodes(image.affine))
    data = apply_orientation(data.astype(np.uint8), io_orientation(image.affine))
    if (list(data.shape), order) != (list(record["SourceGrid"]), record["SourceOrientation"]):
        raise UserError(
            f"{path}: {data.shape} voxels, stored {order}; the scan that it belongs to has "
            f"{tuple(record['SourceGrid'])}, stored {record['SourceOrientation']}. {again}"
        )
    if record["ResampledGrid"]:
        there, shape = np.unique(data), tuple(record["ResampledGrid"])
        shares = [shrink((data == label).astype(np.float32), np.eye(4), shape)[0] for label in there]
        data = there[np.argmax(shares, axis=0)]
    cube = np.zeros(record["PaddedGrid"], np.uint8)
    cube[field_of_view(record)] = data
    return cube
