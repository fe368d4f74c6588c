"""How well a segmentation fits the truth: Dice, and the distance of the surfaces in mm."""

import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch

from bids_alphagan.bids.names import TISSUES

GLOBAL = "global"


def dice(made: np.ndarray, truth: np.ndarray) -> float | None:
    r"""Dice of masks of one shape, :math:`2 |A \cap B| / (|A| + |B|)`; None where the truth is empty.

    Several masks, as (k, ...), are taken together: each voxel of each mask counts once.
    """
    if not truth.any():
        return None
    return float(2 * (made & truth).sum() / (made.sum() + truth.sum()))


def surface_distance(made: np.ndarray, truth: np.ndarray, spacing: Sequence[float]) -> float | None:
    """Average symmetric surface distance of two masks (x, y, z), mm: MONAI's, with the voxels' size.

    The mean, over the surface voxels of both masks, of the distance to the other's nearest surface voxel.
    None where the truth is empty. Where `made` is empty there is no surface: the scan's diagonal is taken,
    further away than anything could lie, so that a network does not gain by finding nothing.
    """
    from monai.metrics.surface_distance import compute_average_surface_distance

    if not truth.any():
        return None
    if not made.any():
        return float(np.linalg.norm(np.array(truth.shape) * np.array(spacing)))
    a, b = (torch.from_numpy(np.ascontiguousarray(mask))[None, None].float() for mask in (made, truth))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # of MONAI's own call of MONAI
        distance = compute_average_surface_distance(
            a, b, include_background=True, symmetric=True, spacing=[float(mm) for mm in spacing]
        )
    return float(distance)


def measure(
    made: np.ndarray, truth: np.ndarray, spacing: Sequence[float], about: Mapping[str, Any]
) -> list[dict[str, Any]]:
    """One row for each tissue, and one for all three together ("global", which has no surface of its own).

    made, truth: (x, y, z), 0 for background, else 1 GM, 2 WM, 3 CSF. about: the rows' first columns.
    """
    masks = [(made == k, truth == k) for k in range(1, len(TISSUES) + 1)]
    rows = [
        {**about, "tissue": tissue, "dice": dice(*pair), "surface_distance": surface_distance(*pair, spacing)}
        for tissue, pair in zip(TISSUES, masks, strict=True)
    ]
    together = dice(*(np.stack(kind) for kind in zip(*masks, strict=True)))
    return [*rows, {**about, "tissue": GLOBAL, "dice": together, "surface_distance": None}]
