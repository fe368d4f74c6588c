"""Whether images are on one grid, and how two grids differ, from the headers alone."""

from pathlib import Path

import nibabel as nib
import numpy as np
from nibabel.orientations import inv_ornt_aff, io_orientation

from bids_alphagan.common.errors import UserError
from bids_alphagan.common.volume import load

MILLIMETRES = 1e-3  # mm by which the affines of one grid may differ


def open_image(path: Path, remedy: str = "") -> nib.Nifti1Image:
    """Open a 3D image. Raises UserError, with `remedy`, if it cannot be read or is not one."""
    try:
        image = load(path)
        shape, affine = shape_of(image), image.affine
    except Exception as error:  # nibabel, zlib and the file system each raise their own
        raise UserError(f"{path} cannot be read ({error}). {remedy}".strip()) from error
    if len(shape) != 3:
        raise UserError(f"{path} is not a 3D image: its shape is {shape}.")
    if not np.isfinite(affine).all() or abs(np.linalg.det(affine[:3, :3])) < 1e-12:
        raise UserError(
            f"The header of {path} has no usable affine. Copy the affine of another part into it."
        )
    return image


def voxel(path: Path) -> float:
    """The longest edge of an image's voxels, mm. Raises UserError if the file cannot be read."""
    return float(max(open_image(path).header.get_zooms()[:3]))


def shape_of(image: nib.Nifti1Image) -> tuple[int, ...]:
    """An image's shape without trailing axes of length 1, which some 3D images have."""
    shape = tuple(image.shape)
    while len(shape) > 3 and shape[-1] == 1:
        shape = shape[:-1]
    return shape


def same_grid(image: nib.Nifti1Image, other: nib.Nifti1Image) -> bool:
    """Whether two images have the same voxels at the same positions."""
    return shape_of(image) == shape_of(other) and _close(image.affine, other.affine)


def difference(image: nib.Nifti1Image, other: nib.Nifti1Image) -> str:
    """How the grid of `image` differs from that of `other`, and what to do."""
    axes, other_axes = ("".join(nib.aff2axcodes(each.affine)) for each in (image, other))
    (shape, affine), (other_shape, other_affine) = _canonical(image), _canonical(other)
    if axes != other_axes and shape == other_shape and _close(affine, other_affine):
        return (
            f"it is the same grid stored in another orientation, {axes} and not {other_axes}. Store "
            "all parts in one orientation (nibabel's as_closest_canonical, or fslreorient2std)."
        )
    if axes != other_axes and shape == other_shape:
        return (
            f"it has the same size, but its header gives the orientation {axes} and not {other_axes}: "
            "in one of the two headers an axis is flipped or permuted. Look at both in a viewer, and "
            "correct the wrong one."
        )
    if shape_of(image) != shape_of(other):
        what = f"it has {_times(shape_of(image))} voxels and not {_times(shape_of(other))}"
    elif not _close(*(np.array(each.header.get_zooms()[:3]) for each in (image, other))):
        sizes = [_times(each.header.get_zooms()[:3]) for each in (image, other)]
        what = f"its voxels are {sizes[0]} mm and not {sizes[1]} mm"
    else:
        what = f"it lies up to {np.abs(_corners(image) - _corners(other)).max():.3g} mm away"
    return f"{what}. Resample all parts onto one grid."


def _close(first: np.ndarray, second: np.ndarray) -> bool:
    return bool(np.allclose(first, second, rtol=0, atol=MILLIMETRES))


def _canonical(image: nib.Nifti1Image) -> tuple[tuple[int, ...], np.ndarray]:
    """Shape and affine with axes reordered to Right, Anterior, Superior."""
    shape, orientation = shape_of(image), io_orientation(image.affine)
    order = np.argsort(orientation[:, 0])
    return tuple(shape[i] for i in order), image.affine @ inv_ornt_aff(orientation, shape)


def _corners(image: nib.Nifti1Image) -> np.ndarray:
    ends = np.array(np.meshgrid(*[(0, n - 1) for n in shape_of(image)])).reshape(3, -1)
    return np.asarray(image.affine[:3, :3] @ ends + image.affine[:3, 3:])


def _times(numbers: tuple[float, ...]) -> str:
    return " x ".join(f"{number:.4g}" for number in numbers)
