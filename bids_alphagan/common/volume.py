"""Scans as arrays: read any NIfTI, resample it to the network's cube, and map a cube back to the scan's grid.

Nothing here depends on BIDS, and nothing is written except to the path that is given.
"""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple, cast

import nibabel as nib
import numpy as np
from nibabel.orientations import apply_orientation, inv_ornt_aff, io_orientation
from scipy import ndimage

from bids_alphagan.common.errors import ScanError, UserError
from bids_alphagan.common.files import atomic_write

# A volume is dropped from the mean when its correlation with the median volume lies this many robust
# standard deviations below the median correlation (motion, spikes, the first volumes before steady state).
OUTLIER_Z = 3.0


class Conformed(NamedTuple):
    """A scan on the network's grid.

    Attributes
    ----------
    data: float32 array (N, N, N) in [-1, 1], axes to Right, Anterior, Superior; padding is -1.
    affine: (4, 4), voxel to world in mm; world positions are those of the source.
    record: the steps of the preparation, as written to the sidecar; `restore` undoes them.
    """

    data: np.ndarray
    affine: np.ndarray
    record: dict[str, Any]


def read_reference(path: Path) -> tuple[nib.Nifti1Image, dict[str, Any]]:
    """Read a scan and reduce it to one 3D magnitude volume.

    Accepts NIfTI of any orientation, integer with scale factors, floating point or complex (the magnitude
    is taken), 3D or 4D. A 4D series is averaged without outlier volumes (`robust_mean`).

    Returns
    -------
    The float32 volume (x, y, z) with the source's header, and a record of the steps taken.

    Raises
    ------
    ScanError: the file is unreadable, not 3D or 4D, has no usable affine, or holds no usable intensities.
    """
    image = _load(path)
    _check_geometry(image, path)
    try:
        data = np.asanyarray(image.dataobj)
    except Exception as error:  # nibabel, gzip and zlib each raise their own kinds for a damaged file
        raise ScanError(f"{path}: the image data cannot be read ({error}). Copy the file again.") from error
    record: dict[str, Any] = {"SourceShape": list(image.shape), "SourceDataType": str(image.get_data_dtype())}
    if np.iscomplexobj(data):
        data = np.abs(data)
        record["ComplexMagnitudeTaken"] = True
    data = np.asarray(data, dtype=np.float32)
    if not np.isfinite(data).all():
        bad = int(np.size(data) - np.isfinite(data).sum())
        raise ScanError(f"{path}: {bad} voxels are NaN or infinite. Repair or exclude this scan.")
    if data.ndim == 4:
        data, kept = robust_mean(data)
        record |= {"NumberOfVolumes": image.shape[3], "VolumesAveraged": kept}
    if np.ptp(data) == 0:
        raise ScanError(f"{path}: every voxel is {data.flat[0]:g}; it holds no image.")
    return nib.Nifti1Image(data, image.affine, image.header), record


def load(path: Path | str) -> nib.Nifti1Image:
    """Open a NIfTI file that this package wrote or has checked. The data are read on first use."""
    return cast(nib.Nifti1Image, nib.load(path))


def read_cube(path: Path) -> np.ndarray:
    """Read a prepared scan (desc-preproc): (N, N, N) float32, finite.

    Raises UserError if the file is damaged or not a cube, that is, changed since it was prepared.
    """
    try:
        cube = np.asarray(load(path).dataobj, dtype=np.float32)
    except Exception as error:  # as in read_reference
        raise UserError(f"{path}: cannot be read ({error}). Run participant again for this scan.") from error
    cube = cube[..., 0] if cube.ndim == 4 else cube
    if cube.ndim != 3 or len(set(cube.shape)) > 1 or not np.isfinite(cube).all():
        what = (
            f"is not a cube (shape {cube.shape})"
            if np.isfinite(cube).all()
            else "holds NaN or infinite voxels"
        )
        raise UserError(f"{path}: {what}. Run participant again for this scan.")
    return cube


def read_map(path: Path, record: Mapping[str, Any]) -> np.ndarray:
    """Read a map in [0, 1] on a scan's own grid and bring it to the scan's cube: (N, N, N) float32 in [-1, 1].

    record: `Conformed.record` of the scan; the map gets the same padding, resampling and axes.

    Raises UserError if the file is damaged or is not on the grid of the scan.
    """
    try:
        image = load(path)
        data = np.asarray(image.dataobj, dtype=np.float32)
    except Exception as error:  # as in read_reference
        raise UserError(f"{path}: cannot be read ({error}). Run participant again for this scan.") from error
    data = data[..., 0] if data.ndim == 4 else data
    order = "".join(nib.aff2axcodes(image.affine))
    data = apply_orientation(data, io_orientation(image.affine))
    if (list(data.shape), order) != (list(record["SourceGrid"]), record["SourceOrientation"]):
        raise UserError(f"{path}: is not on the grid of its scan. Run participant again for this scan.")
    if record["ResampledGrid"]:
        data, _ = shrink(data, np.eye(4), tuple(record["ResampledGrid"]))
    cube = np.zeros(record["PaddedGrid"], np.float32)
    cube[field_of_view(record)] = data
    return np.clip(2 * cube - 1, -1, 1)


def check_there(path: Path) -> None:
    """Raise ScanError unless `path` is a file that is not empty."""
    if not path.is_file():
        raise ScanError(
            f"{path}: no such file. If it is a link to content of git-annex or DataLad, fetch that first."
        )
    if path.stat().st_size == 0:
        raise ScanError(f"{path}: the file is empty (0 bytes). Copy it again.")


def voxels(path: Path) -> int:
    """Number of voxels in one volume of a scan; 0 if it cannot be read (reading it later raises the error)."""
    try:
        return math.prod(_load(path).shape[:3])
    except ScanError:
        return 0


def _load(path: Path) -> nib.Nifti1Image:
    check_there(path)
    try:
        image = nib.load(path)
    except Exception as error:
        raise ScanError(f"{path}: not a readable NIfTI file ({error}).") from error
    if not isinstance(image, nib.Nifti1Image):
        raise ScanError(f"{path}: not a NIfTI file but {type(image).__name__}.")
    dtype = image.get_data_dtype()
    if dtype.fields is not None:
        raise ScanError(f"{path}: holds colours ({dtype}), not intensities.")
    return image


def _check_geometry(image: nib.Nifti1Image, path: Path) -> None:
    shape = image.shape
    if len(shape) not in (3, 4) or min(shape) < 1:
        raise ScanError(f"{path}: has shape {shape}; a scan must be 3D, or 4D with time as the last axis.")
    if min(shape[:3]) < 4:
        raise ScanError(
            f"{path}: has shape {shape}; a scan with fewer than 4 voxels along an axis cannot be used."
        )
    affine = np.full((4, 4), np.nan) if image.affine is None else image.affine
    zooms = np.linalg.norm(affine[:3, :3], axis=0)
    if not np.isfinite(affine).all() or abs(np.linalg.det(affine[:3, :3])) <= 1e-6 * np.prod(zooms):
        raise ScanError(f"{path}: its affine is broken (not finite, or singular): {affine.tolist()}.")
    across = float((np.array(shape[:3]) * zooms).max())
    if across < 1:
        raise ScanError(
            f"{path}: its header says that the field of view is {across:.2g} mm wide. Its lengths may be in "
            "metres: write them in mm."
        )


def robust_mean(series: np.ndarray) -> tuple[np.ndarray, int]:
    """Average a (x, y, z, t) series without outlier volumes.

    Each volume's Pearson correlation with the voxelwise median volume is taken; volumes more than
    `OUTLIER_Z` robust standard deviations (1.4826 MAD) below the median correlation are left out.

    Returns
    -------
    The mean, float32 (x, y, z), and the number of volumes in it.
    """
    n = series.shape[3]
    if n < 3:
        return series.mean(axis=3, dtype=np.float64).astype(np.float32), n
    centre = np.median(series, axis=3).ravel().astype(np.float64)
    centre -= centre.mean()
    scores = np.empty(n)
    for t in range(n):
        volume = series[..., t].ravel().astype(np.float64)
        volume -= volume.mean()
        scores[t] = volume @ centre / max(np.linalg.norm(volume) * np.linalg.norm(centre), 1e-12)
    middle = np.median(scores)
    spread = 1.4826 * np.median(np.abs(scores - middle))
    # The floor keeps all volumes of a series without motion, whose correlations differ by rounding only.
    keep = scores >= middle - np.maximum(OUTLIER_Z * spread, 1e-3)
    return series[..., keep].mean(axis=3, dtype=np.float64).astype(np.float32), int(keep.sum())


def conform(image: nib.Nifti1Image, grid: int, upper_percentile: float) -> Conformed:
    """Bring a 3D volume to a cube of `grid` voxels per edge with intensities in [-1, 1].

    Axes are permuted and flipped to RAS (lossless). Axes longer than `grid` are resampled (linear, after
    Gaussian smoothing against aliasing) to exactly `grid` voxels over the same field of view; nothing is
    cropped. Shorter axes are padded with zero intensity, centred. Intensities map linearly from
    [min(0, minimum), upper] to [-1, 1], where upper is the `upper_percentile` (0 to 100) of the scan; brighter
    voxels are clipped to 1. Source: Ferreira et al. 2022, section 2.2 (doi 10.3390/app12104844).
    """
    orientation = io_orientation(image.affine)
    data = apply_orientation(np.asarray(image.dataobj, dtype=np.float32), orientation)
    affine = image.affine @ inv_ornt_aff(orientation, image.shape)
    native = data.shape
    low = min(0.0, float(data.min()))
    high = float(np.percentile(data, upper_percentile))
    if high <= low:
        high = float(data.max())
    clipped = float(np.mean(data > high))

    shape = tuple(min(n, grid) for n in native)
    if shape != native:
        data, affine = shrink(data, affine, shape)
    before = [(grid - n) // 2 for n in shape]
    cube = np.zeros((grid,) * 3, np.float32)
    cube[_box(before, shape)] = data
    shift = np.eye(4)
    shift[:3, 3] = [-b for b in before]
    affine = affine @ shift
    scaled = np.clip(2 * (cube - low) / (high - low) - 1, -1, 1)
    record = {
        "Orientation": "RAS",
        "SourceOrientation": "".join(nib.aff2axcodes(image.affine)),
        "SourceGrid": list(native),
        "ResampledGrid": list(shape) if shape != native else None,
        "PaddingBefore": before,
        "PaddedGrid": [grid] * 3,
        "IntensityRange": [low, high],
        "IntensityUpperPercentile": upper_percentile,
        "ClippedFraction": clipped,
    }
    return Conformed(scaled.astype(np.float32), affine, record)


def _box(before: list[int], shape: tuple[int, ...]) -> tuple[slice, ...]:
    return tuple(slice(b, b + n) for b, n in zip(before, shape, strict=True))


def _resample(data: np.ndarray, shape: tuple[int, ...], order: int) -> np.ndarray:
    """Resample over the same field of view: the outer voxel edges of both grids coincide."""
    factor = np.array(data.shape) / np.array(shape)
    return ndimage.affine_transform(
        data, np.diag(factor), offset=(factor - 1) / 2, output_shape=shape, order=order, mode="nearest"
    )


def shrink(data: np.ndarray, affine: np.ndarray, shape: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray]:
    """Resample (x, y, z) to fewer voxels over the same field of view, smoothed against aliasing.

    Returns the data and their affine (4, 4).
    """
    factor = np.array(data.shape) / np.array(shape)
    # 0.5 * (factor - 1) voxels: the usual width against aliasing, none where the axis keeps its size.
    smooth = ndimage.gaussian_filter(data, 0.5 * (factor - 1))
    scale = np.diag([*factor, 1.0])
    scale[:3, 3] = (factor - 1) / 2
    return _resample(smooth, shape, order=1), affine @ scale


def field_of_view(record: Mapping[str, Any]) -> tuple[slice, ...]:
    """The part of the cube that a conformed scan fills, from its `record`; the rest is padding."""
    shape = tuple(record["ResampledGrid"] or record["SourceGrid"])
    return _box(list(record["PaddingBefore"]), shape)


def restore(cube: np.ndarray, like: nib.Nifti1Image, record: Mapping[str, Any]) -> nib.Nifti1Image:
    """Undo `conform`: map a cube in [-1, 1] to the geometry of a real scan.

    Parameters
    ----------
    cube: (N, N, N); values outside [-1, 1] are clipped.
    like: the real scan whose header, affine, grid and data type the result takes.
    record: `Conformed.record` of that real scan.
    """
    data = np.asarray(cube, np.float32)[field_of_view(record)]
    native = tuple(record["SourceGrid"])
    if data.shape != native:
        data = _resample(data, native, order=1)
    low, high = record["IntensityRange"]
    data = (np.clip(data, -1, 1) + 1) / 2 * (high - low) + low
    return with_header(apply_orientation(data, _inverse(io_orientation(like.affine))), like)


def restore_map(cube: np.ndarray, like: nib.Nifti1Image, record: Mapping[str, Any]) -> np.ndarray:
    """Undo `read_map`: map a cube in [-1, 1] to a float32 map (x, y, z) in [0, 1] on the grid of `like`."""
    data = np.asarray(cube, np.float32)[field_of_view(record)]
    native = tuple(record["SourceGrid"])
    if data.shape != native:
        data = _resample(data, native, order=1)
    unit = (np.clip(data, -1, 1) + 1) / 2
    return np.ascontiguousarray(apply_orientation(unit, _inverse(io_orientation(like.affine))))


def _inverse(orientation: np.ndarray) -> np.ndarray:
    inverse = np.empty_like(orientation)
    for source, (target, flip) in enumerate(orientation):
        inverse[int(target)] = [source, flip]
    return inverse


def with_header(data: np.ndarray, like: nib.Nifti1Image, time_axis: bool | None = None) -> nib.Nifti1Image:
    """Store a 3D array (x, y, z) with the header of `like`, as the scanner's converter would have written it.

    Data type and scale factors of `like` are kept (integers are rounded and clipped to the type's range;
    float32 replaces complex). With `time_axis` (default: if `like` is 4D) the result is (x, y, z, 1).
    """
    header = like.header.copy()
    dtype = like.get_data_dtype()
    if np.issubdtype(dtype, np.complexfloating):
        dtype = np.dtype(np.float32)
    header.set_data_dtype(dtype)
    slope, inter = 1.0, 0.0
    if np.issubdtype(dtype, np.integer):
        stored = cast(nib.arrayproxy.ArrayProxy, like.dataobj)
        slope, inter = float(stored.slope), float(stored.inter)
        info = np.iinfo(dtype)
        data = np.clip(np.rint((data - inter) / slope), info.min, info.max)
    data = data.astype(dtype)
    time_axis = like.ndim == 4 if time_axis is None else time_axis
    image = nib.Nifti1Image(data[..., None] if time_axis else data, like.affine, header)
    image.header.set_slope_inter(slope, inter)  # the constructor resets it
    return image


def with_grid(data: np.ndarray, like: nib.Nifti1Image) -> nib.Nifti1Image:
    """An image of a map (x, y, z) with the grid and affine of `like` and the map's own data type."""
    header = like.header.copy()
    header.set_data_dtype(data.dtype)
    header["cal_min"] = header["cal_max"] = 0
    header["descrip"] = b""
    return nib.Nifti1Image(data, like.affine, header)


def tissue_labels(maps: Mapping[str, np.ndarray], brain: np.ndarray) -> np.ndarray:
    """The tissue labels (dseg, uint8): in the brain the most probable of "GM" (1), "WM" (2), "CSF" (3), else 0.

    maps: probabilities in [0, 1], and `brain`: bool, all (x, y, z).
    """
    best = np.argmax([maps[tissue] for tissue in ("GM", "WM", "CSF")], axis=0) + 1
    return np.where(brain, best, 0).astype(np.uint8)


def save(image: nib.Nifti1Image, path: Path) -> None:
    """Write a NIfTI file beside `path`, then rename it, so that a reader never sees half a scan."""
    with atomic_write(path) as temporary:
        nib.save(image, temporary)
