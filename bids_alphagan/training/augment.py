"""Augmentation of batches, on their device.

Volumes are (B, C, N, N, N) in [-1, 1], axis order (x, y, z); -1 is no signal, as in the padding. The first channel is
the scan. Geometry changes apply to all channels, intensity changes to the scan alone.
"""

from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from bids_alphagan.training.data import send

PROBABILITY = 0.1  # of each augmentation, for each sample
ROTATION = 0.052  # rad (3 degrees), about each axis
INTENSITY = 0.1
ZOOM = 0.1
NOISE = 0.01
TRANSLATION = (4, 4, 0)  # voxels of a 64-voxel grid, along x, y, z
TRANSLATION_GRID = 64
NUMBERS = 3  # per sample for an augmentation, uniform in [0, 1)


def augment(volumes: Tensor, names: Sequence[str], source: torch.Generator) -> Tensor:
    """Apply the named augmentations in order, each to a random tenth of the samples.

    Order and ranges: Ferreira et al. 2022 (doi:10.3390/app12104844) and the code released with it. Returns
    new volumes in [-1, 1]. The host draws only a few numbers per augmentation and sample; the rest is computed on
    the volumes' device without waiting for it.
    """
    rows = torch.rand((len(names), len(volumes), 1 + NUMBERS), generator=source).numpy()
    volumes = volumes.clone()
    for name, numbers in zip(names, rows, strict=True):
        function, probability = AUGMENTATIONS[name]
        (chosen,) = (numbers[:, 0] < probability).nonzero()
        if len(chosen):
            where = send(chosen, volumes.device)
            volumes[where] = function(volumes[where], numbers[chosen, 1:])
    return volumes


def rotate(volumes: Tensor, numbers: np.ndarray) -> Tensor:
    """Rotate by up to +-0.052 rad about each of the three axes, trilinear."""
    angles = (2 * numbers - 1) * ROTATION
    cosine, sine = np.cos(angles), np.sin(angles)
    matrix = _identity(len(volumes))
    for axis, (i, j) in enumerate(((1, 2), (0, 2), (0, 1))):
        turn = _identity(len(volumes))
        turn[:, i, i] = turn[:, j, j] = cosine[:, axis]
        turn[:, i, j], turn[:, j, i] = -sine[:, axis], sine[:, axis]
        matrix = turn @ matrix
    return _warp(volumes, matrix, np.zeros_like(angles), "bilinear")


def flip(volumes: Tensor, numbers: np.ndarray) -> Tensor:
    """Mirror along x (left and right)."""
    return volumes.flip(2)


def scale(volumes: Tensor, numbers: np.ndarray) -> Tensor:
    """Multiply the signal, which is 0 at -1, by 0.9 to 1.1.

    `rescale`, which follows in the models, reverts this; in samples with added noise, the ratio of signal to noise
    remains changed. This is as in the code released with the paper.
    """
    factor = send(1 + INTENSITY * (2 * numbers[:, 0] - 1), volumes.device).view(-1, 1, 1, 1, 1)
    return _of_scan(volumes, lambda scans: (scans + 1) * factor - 1)


def zoom(volumes: Tensor, numbers: np.ndarray) -> Tensor:
    """Enlarge 1.0 to 1.1 times about the centre, nearest neighbour."""
    factor = 1 + ZOOM * numbers[:, :1, None]
    return _warp(volumes, _identity(len(volumes)) / factor, np.zeros_like(numbers), "nearest")


def noise(volumes: Tensor, numbers: np.ndarray) -> Tensor:
    """Add Gaussian noise with a standard deviation of 0.01."""

    def noisy(scans: Tensor) -> Tensor:
        return scans + NOISE * torch.stack([_normal(scans[0], number) for number in numbers[:, 0]])

    return _of_scan(volumes, noisy)


def rescale(volumes: Tensor, numbers: np.ndarray) -> Tensor:
    """Stretch each sample so that it spans [-1, 1]; a constant one becomes -1."""

    def stretched(scans: Tensor) -> Tensor:
        low, high = scans.amin((1, 2, 3, 4), keepdim=True), scans.amax((1, 2, 3, 4), keepdim=True)
        span = torch.where(high > low, high - low, 1)
        return 2 * (scans - low) / span - 1

    return _of_scan(volumes, stretched)


def translate(volumes: Tensor, numbers: np.ndarray) -> Tensor:
    """Shift by up to (4, 4, 0) voxels along (x, y, z) on a 64-voxel grid, in proportion on others; trilinear."""
    shift = (2 * numbers - 1) * np.array(TRANSLATION) * 2 / TRANSLATION_GRID
    return _warp(volumes, _identity(len(volumes)), shift, "bilinear")


# name: (function of volumes (B, C, N, N, N) and uniform numbers (B, NUMBERS), probability for each sample)
AUGMENTATIONS: dict[str, tuple[Callable[[Tensor, np.ndarray], Tensor], float]] = {
    "rotate": (rotate, PROBABILITY),
    "flip": (flip, PROBABILITY),
    "scale": (scale, PROBABILITY),
    "zoom": (zoom, PROBABILITY),
    "noise": (noise, PROBABILITY),
    "rescale": (rescale, 1.0),
    "translate": (translate, PROBABILITY),
}


def _of_scan(volumes: Tensor, function: Callable[[Tensor], Tensor]) -> Tensor:
    """Apply a function to the first channel, the scan, and leave the maps unchanged."""
    if volumes.shape[1] == 1:
        return function(volumes)
    return torch.cat([function(volumes[:, :1]), volumes[:, 1:]], dim=1)


def _identity(n: int) -> np.ndarray:
    return np.tile(np.eye(3), (n, 1, 1))


def _normal(like: Tensor, number: float) -> Tensor:
    """Normal numbers seeded by `number` in [0, 1), drawn on the device, where a volume of them takes no time.

    They are the only random numbers that differ between kinds of device.
    """
    source = torch.Generator(like.device).manual_seed(int(number * 2**24))  # all bits of a float32
    return torch.randn(like.shape, generator=source, device=like.device)


def _warp(volumes: Tensor, matrix: np.ndarray, shift: np.ndarray, mode: str) -> Tensor:
    """Sample at matrix @ p + shift, with p = (x, y, z) from -1 to 1 over the grid; -1 outside the grid."""
    size = volumes.shape[-1]
    axis = send((2 * np.arange(size, dtype=np.float32) + 1) / size - 1, volumes.device)
    # torch counts the axes of a sampling position from the last to the first
    rows = np.concatenate([matrix, shift[..., None]], axis=2, dtype=np.float32)[:, ::-1].copy()
    x, y, z, at = send(rows, volumes.device).view(-1, 1, 1, 1, 3, 4).unbind(-1)
    # not F.affine_grid, whose matrix product may have lower precision on a GPU
    grid = axis.view(-1, 1, 1, 1) * x + (axis.view(-1, 1, 1) * y + (axis.view(-1, 1) * z + at))
    sampled = F.grid_sample(volumes + 1, grid, mode=mode, padding_mode="zeros", align_corners=False)
    return (sampled - 1).clamp(-1, 1)
