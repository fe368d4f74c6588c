"""Scans made equal in all but anatomy: one grid, one field of view, one grey scale, one number of bytes.

Differences other than anatomy, and how they are removed:

- A synthetic scan has passed through the network's cube (clipped, resampled if the scan is larger, rounded
  to a real scan's data type). A real scan is passed through its own cube before both are read.
- Grids: all are resampled to the most frequent one, in RAS order. Outside a scan's own field of view its
  outermost voxels are repeated, so that no zeros reveal another grid.
- Grey: 255 is the scan's `WHITE` percentile, so that each scan has the same share of white voxels. A
  network's output reaches neither end of its range, but real scans do.
- Exact zeros (outside the coil's reach, padding, masks) are black in a real scan and nearly black in a
  synthetic one. Everything up to `BLACK` of white becomes 0 in both; noise above it stays, as part of the
  appearance.
- Margins that are dark in every scan are cropped, equally in all scans.
- Eight bits per voxel, uncompressed, so that a smooth scan has as many bytes as a noisy one.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import nibabel as nib
import numpy as np
from nibabel.orientations import apply_orientation, io_orientation
from scipy import ndimage

from bids_alphagan.common.errors import ScanError, UserError
from bids_alphagan.common.volume import load, read_cube, read_reference, restore
from bids_alphagan.turing.selection import Chosen, Grid

WHITE = 99.5  # percentile; lower if the real scans were clipped lower
BLACK = 0.03  # of white
_DARK = 26  # of 255, in a smoothed scan: the head is brighter
_MARGIN = 2  # voxels kept around the heads
# The RAS axes of slices, rows and columns; the paper shows only axial slices.
PLANES = {"axial": (2, 1, 0), "coronal": (1, 2, 0), "sagittal": (0, 2, 1)}


@dataclass(frozen=True)
class Stack:
    """Scans for display: (n, slices, rows, columns) uint8; zooms (slice, row, column) in mm.

    Superior (anterior, right) slices are last, anterior (superior) rows first, right (anterior) columns last.
    """

    data: np.ndarray
    zooms: tuple[float, float, float]
    notes: tuple[str, ...]


def prepare(scans: Sequence[Chosen], grid: Grid, most_bytes: int, plane: str = "axial") -> Stack:
    """Read scans, make them equal, and cut them into slices of one of `PLANES`.

    If they would take more than `most_bytes`, all are made coarser within the slices, with a note.
    Raises UserError, with the path, for scans that cannot be read.
    """
    white = white_percentile(scans)
    grey = np.stack([to_grey(to_grid(read(scan), scan.grid, grid), white) for scan in scans])
    grey = grey[(slice(None), *heads_box(grey))]
    notes, zooms, axes = [], grid.zooms, PLANES[plane]
    away = sum(scan.grid != grid for scan in scans)
    if away:
        notes.append(f"scans resampled to the grid of the others: {away}")
    if grey.nbytes > most_bytes:
        factor = float(np.sqrt(grey.nbytes / most_bytes))
        grey, zooms = _coarser(grey, grid.zooms, factor, keep=axes[0])
        notes.append(f"voxels made {factor:.2f} times as large within the slices, in all scans")
    cut = grey.transpose(0, *(axis + 1 for axis in axes))[:, :, ::-1]
    return Stack(np.ascontiguousarray(cut), (zooms[axes[0]], zooms[axes[1]], zooms[axes[2]]), tuple(notes))


def white_percentile(scans: Sequence[Chosen]) -> float:
    """Just below the percentile at which the real scans were clipped, so that clipping is not visible."""
    white = WHITE
    for scan in scans:
        try:
            if scan.prepared:
                white = min(white, scan.prepared.record["IntensityUpperPercentile"] - 0.5)
        except (KeyError, TypeError) as error:
            raise _unusable(scan, error) from error
    return white


def _unusable(scan: Chosen, error: Exception) -> UserError:
    return UserError(f"{scan.path}: cannot be used ({error}). Make or copy it again.")


def read(scan: Chosen) -> np.ndarray:
    """A scan's intensities, (x, y, z) float32 in RAS order; a real scan passes through the network's cube."""
    try:
        if scan.prepared is None:
            image = read_reference(scan.path)[0]
        else:
            like = load(scan.path)
            passed = restore(read_cube(scan.prepared.preproc), like, scan.prepared.record)
            image = nib.Nifti1Image.from_bytes(passed.to_bytes())  # as if read from a file
    except (ScanError, OSError, ValueError, KeyError, TypeError, IndexError) as error:
        raise _unusable(scan, error) from error
    data = np.asarray(image.dataobj, dtype=np.float32)
    return apply_orientation(data.reshape(data.shape[:3]), io_orientation(image.affine))


def to_grid(data: np.ndarray, own: Grid, grid: Grid) -> np.ndarray:
    """Resample (linear, smoothed against aliasing if `grid` is coarser) about the centre, in mm."""
    if own == grid:
        return data
    factor = np.array(grid.zooms) / np.array(own.zooms)
    smooth = ndimage.gaussian_filter(data, 0.5 * np.maximum(factor - 1, 0))
    offset = (np.array(own.shape) - 1) / 2 - factor * (np.array(grid.shape) - 1) / 2
    return ndimage.affine_transform(
        smooth, np.diag(factor), offset=offset, output_shape=grid.shape, order=1, mode="nearest"
    )


def to_grey(data: np.ndarray, white: float) -> np.ndarray:
    """Intensities as uint8: the percentile `white` becomes 255, everything up to `BLACK` of it 0."""
    low = min(0.0, float(data.min()))
    high = float(np.percentile(data, white))
    if high <= low:
        high = float(data.max())
    share = (data - low) / max(high - low, 1e-12)
    return np.rint(255 * np.clip((share - BLACK) / (1 - BLACK), 0, 1)).astype(np.uint8)


def heads_box(grey: np.ndarray) -> tuple[slice, ...]:
    """The smallest box of (n, x, y, z) that contains everything that is not dark in all scans."""
    bright = np.zeros(grey.shape[1:], np.uint8)
    for scan in grey:
        np.maximum(bright, ndimage.uniform_filter(scan, 3), out=bright)
    boxes = ndimage.find_objects((bright > _DARK).astype(np.uint8))
    if not boxes:
        return tuple(slice(0, size) for size in grey.shape[1:])
    return tuple(
        slice(max(0, box.start - _MARGIN), min(size, box.stop + _MARGIN))
        for box, size in zip(boxes[0], grey.shape[1:], strict=True)
    )


def _coarser(
    grey: np.ndarray, zooms: tuple[float, float, float], factor: float, keep: int
) -> tuple[np.ndarray, tuple[float, float, float]]:
    """Fewer, larger voxels along all axes of (n, x, y, z) except `keep`, the axis of the slices."""
    before = grey.shape[1:]
    x, y, z = (size if axis == keep else max(8, int(size / factor)) for axis, size in enumerate(before))
    zx, zy, zz = (zoom * old / new for zoom, old, new in zip(zooms, before, (x, y, z), strict=True))
    own, target = Grid((before[0], before[1], before[2]), zooms), Grid((x, y, z), (zx, zy, zz))
    result = np.empty((len(grey), *target.shape), np.uint8)
    for scan, out in zip(grey, result, strict=True):
        out[:] = np.rint(to_grid(scan.astype(np.float32), own, target))
    return result, target.zooms
