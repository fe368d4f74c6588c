"""Agreement of a segmentation with the truth: Dice, and surface distance in mm."""

import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch

from bids_alphagan.bids.names import TISSUES

GLOBAL = "global"


def dice(predicted: np.ndarray, truth: np.ndarray) -> float | None:
    r"""Dice of masks of one shape, :math:`2 |A \cap B| / (|A| + |B|)`, in [0, 1]; None if the truth is empty.

    Several masks, as (k, ...), are pooled: each voxel of each mask counts once.
    """
    if not truth.any():
        return None
    return float(2 * (predicted & truth).sum() / (predicted.sum() + truth.sum()))


def surface_distance(predicted: np.ndarray, truth: np.ndarray, spacing: Sequence[float]) -> float | None:
    """Average symmetric surface distance of two masks (x, y, z), mm: MONAI's, with the voxel size.

    The mean, over the surface voxels of both masks, of the distance to the other's nearest surface voxel.
    None if the truth is empty. If `predicted` is empty, which has no surface, the scan's diagonal is returned,
    more than any real distance, so that a network does not gain by segmenting nothing.
    """
    from monai.metrics.surface_distance import compute_average_surface_distance

    if not truth.any():
        return None
    if not predicted.any():
        return float(np.linalg.norm(np.array(truth.shape) * np.array(spacing)))
    a, b = (torch.from_numpy(np.ascontiguousarray(mask))[None, None].float() for mask in (predicted, truth))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # MONAI calls its own deprecated functions
        distance = compute_average_surface_distance(
            a, b, include_background=True, symmetric=True, spacing=[float(mm) for mm in spacing]
        )
    return float(distance)


def measure(
    predicted: np.ndarray, truth: np.ndarray, spacing: Sequence[float], about: Mapping[str, Any]
) -> list[dict[str, Any]]:
    """One row per tissue, and one for all three together ("global", which has no surface of its own).

    predicted, truth: (x, y, z), 0 for background, else 1 GM, 2 WM, 3 CSF. about: the rows' first columns.
    """
    masks = [(predicted == k, truth == k) for k in range(1, len(TISSUES) + 1)]
    rows = [
        {**about, "tissue": tissue, "dice": dice(*pair), "surface_distance": surface_distance(*pair, spacing)}
        for tissue, pair in zip(TISSUES, masks, strict=True)
    ]
    together = dice(*(np.stack(kind) for kind in zip(*masks, strict=True)))
    return [*rows, {**about, "tissue": GLOBAL, "dice": together, "surface_distance": None}]
