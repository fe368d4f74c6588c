"""Real and synthetic scans as comparable arrays: the network's cube without its padding, in [0, 1]."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from bids_alphagan.volume import conform, field_of_view, read_cube, read_reference


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
