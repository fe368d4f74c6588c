"""What the intensities add to maps that a registration has carried to a scan."""

from collections.abc import Mapping

import numpy as np
from scipy import ndimage

WINDOW = 0.12  # of the brain's size (1.5 mm in a rat): tissues have their local means over it
MISFIT = 0.15  # of a voxel: standard deviation of what the registration leaves, along the maps' gradients
NOISE = 0.1  # of grey matter's intensity: noise, and what differs within a tissue
REFINEMENT = (
    f"borders of the maps moved by the intensities: linear-Gaussian update, misfit {MISFIT} voxels, noise "
    f"{NOISE} of grey matter"
)
RIDGE = 0.02  # pulls local means to the scan's own where a tissue is absent


def refine(maps: Mapping[str, np.ndarray], scan: np.ndarray, affine: np.ndarray) -> dict[str, np.ndarray]:
    """Tissue fractions given a scan and their expectation: one linear-Gaussian update in each voxel.

    The scan is I = sum_k f_k m_k + noise with the tissues' fractions f (background included) and local means
    m, by weighted least squares in a window. The maps p expect f with covariance S = s^2 grad(p) grad(p)^T,
    that of a small shift, so that f = p + S m (I - p.m) / (m.S m + noise^2): where maps are flat the
    registration is believed, at borders the scan moves them.

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
    along = np.einsum("kixyz,kxyz->ixyz", slopes, means)  # how a shift changes the intensity
    gain = np.einsum("kixyz,ixyz->kxyz", slopes, along)
    variance = (along**2).sum(axis=0) + (NOISE * means[0]) ** 2 + 1e-12
    surprise = scan - (expected * means).sum(axis=0)
    found = (expected + gain * surprise / variance).clip(0, 1)
    found /= found.sum(axis=0)
    return dict(zip(("GM", "WM", "CSF"), found[:3].astype(np.float32), strict=True))


def _local_means(fractions: np.ndarray, scan: np.ndarray, sigma: np.ndarray) -> np.ndarray:
    """Intensity of each pure class around every voxel: (K, x, y, z) from fractions (K, x, y, z)."""
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
