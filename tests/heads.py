"""A small head with all masks, stored in LPI, for the pictures of reports."""

from pathlib import Path

import nibabel as nib
import numpy as np

SHAPE, ZOOMS = (7, 8, 9), (0.5, 0.4, 1.0)
LPI = np.diag([-0.5, -0.4, 1.0, 1.0])  # x runs to the left, y to posterior
TISSUES = ("GM", "WM", "CSF")


def save(path: Path, data: np.ndarray, affine: np.ndarray = LPI) -> Path:
    nib.save(nib.Nifti1Image(data, affine), path)
    return path


def head(folder: Path) -> tuple[Path, dict[str, Path]]:
    """The reference (x, y, z, 1) of a time series, and its masks."""
    grid = np.stack(np.meshgrid(*[np.linspace(-1, 1, n) for n in SHAPE], indexing="ij"))
    radius = np.linalg.norm(grid, axis=0)
    dseg = np.where(radius < 0.4, 3, np.where(radius < 0.7, 2, np.where(radius < 1, 1, 0))).astype(np.uint8)
    reference = save(folder / "ref.nii.gz", (100 * (dseg + grid[0] + 2)).astype(np.float32)[..., None])
    masks = {
        tissue: save(folder / f"{tissue}.nii.gz", (dseg == i).astype(np.float32)[..., None])
        for i, tissue in enumerate(TISSUES, start=1)
    }
    masks |= {
        "dseg": save(folder / "dseg.nii.gz", dseg),
        "brain": save(folder / "b.nii.gz", (dseg > 0) * 1.0),
    }
    return reference, masks
