"""Refinement of registered tissue maps by the scan's intensities."""

from collections.abc import Mapping

import numpy as np
from scipy import ndimage

WINDOW = 0.12  # of the brain's size (1.5 mm in a rat): the width of the window of local means
MISFIT = 0.15  # of a voxel: standard deviation of the registration error along the maps' gradients
NOISE = 0.1  # of grey matter's intensity: noise, and variation within a tissue
REFINEMENT = (
    f"borders of the maps moved by the intensities: linear-Gaussian update, misfit {MISFIT} voxels, noise "
    f"{NOISE} of grey matter"
)
RIDGE = 0.02  # pulls local means to the scan's mean where a tissue is absent


def refine(maps: Mapping[str, np.ndarray], scan: np.ndarray, affine: np.ndarray) -> dict[str, np.ndarray]:
    """Tissue fractions from a scan and registered maps: one linear-Gaussian update in each voxel.

    The model is I = sum_k f_k m_k + noise with tissue fractions f (background included) and local means m, which
    come from weighted least squares in a window. The prior of f has the maps p as mean and the covariance
    S = s^2 grad(p) grad(p)^T of a small shift, so that f = p + S m (I - p.m) / (m.S m + noise^2): where maps are flat
    the registration stays, at borders the scan moves them.

    maps: "GM", "WM", "CSF" (x, y, z) in [0, 1]; scan: (x, y, z) without shading; affine: mm.
    Returns the refined maps, in [0, 1], their sum at most 1.
    """
    expected = np.stack([maps[tissue] for tissue in ("GM", "WM", "CSF")]).astype(float)
    expected /= np.maximum(expected.sum(axis=0), 1)
    expected = np.concatenate([expected, 1 - expected.sum(axis=0, keepdims=True)])
    zooms = np.linalg.norm(affine[:3, :3], axis=0)
    size = float(expected[:3].sum() * np.prod(zooms)) ** (1 / 3)
    means = _local_means(expected, scan, WINDOW * size / zooms)
    shift = MISFIT * float(np.prod(zooms)) ** (1 / 3)
    slopes = np.stack([np.stack(np.gradient(part, *zooms)) for part in expected]) * shift  # (4, 3, x, y, z)
    along = np.einsum("kixyz,kxyz->ixyz", slopes, means)  # change of the intensity with a shift
    gain = np.einsum("kixyz,ixyz->kxyz", slopes, along)
    variance = (along**2).sum(axis=0) + (NOISE * means[0]) ** 2 + 1e-12
    surprise = scan - (expected * means).sum(axis=0)
    fractions = (expected + gain * surprise / variance).clip(0, 1)
    fractions /= fractions.sum(axis=0)
    return dict(zip(("GM", "WM", "CSF"), fractions[:3].astype(np.float32), strict=True))


def _local_means(fractions: np.ndarray, scan: np.ndarray, sigma: np.ndarray) -> np.ndarray:
    """Intensity of each pure class around every voxel, (K, x, y, z), from fractions (K, x, y, z)."""
    count = len(fractions)

    def smooth(values: np.ndarray) -> np.ndarray:
        return ndimage.gaussian_filter(values, sigma)

    normal = np.empty((*scan.shape, count, count))
    right = np.empty((*scan.shape, count))
    for i in range(count):
        right[..., i] = smooth(fractions[i] * scan)
        for j in range(i, count):
            normal[..., i, j] = normal[..., j, i] = smooth(fractions[i] * fractions[j])
    weights = (fractions**2).sum(axis=(1, 2, 3)) + 1e-12
    overall = (fractions * scan).sum(axis=(1, 2, 3)) / weights
    mixed = np.einsum("kxyz,k->xyz", fractions, overall)
    shading = (smooth(mixed * scan) + 1e-12) / (smooth(mixed**2) + 1e-12)
    ridge = RIDGE * np.trace(normal, axis1=-2, axis2=-1)[..., None] / count + 1e-9
    right += ridge * shading[..., None] * overall
    normal += ridge[..., None] * np.eye(count)
    return np.moveaxis(np.linalg.solve(normal, right[..., None])[..., 0], -1, 0)
