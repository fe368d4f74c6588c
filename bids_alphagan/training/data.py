"""What the networks see: which scans form a batch, and their augmentation.

Volumes are (B, 1, N, N, N) in [-1, 1], axis order (x, y, z), where -1 is no signal, the padding's value.
Everything random is a function of (seed, stream, number), so that a resumed run needs no random state.
"""

import hashlib
from collections.abc import Callable, Sequence
from functools import partial

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

PROBABILITY = 0.1  # of each augmentation, for each sample
ROTATION = 0.052  # rad (3 degrees), about each axis
INTENSITY = 0.1
ZOOM = 0.1
NOISE = 0.01
TRANSLATION = (4, 4, 0)  # voxels of a 64-voxel grid, along x, y, z
TRANSLATION_GRID = 64


def random_source(*key: int) -> torch.Generator:
    """A random number generator that depends on `key` (numbers of at least 0) alone.

    It draws on the CPU, so that every device gets the same numbers; they are few.
    """
    state = np.random.SeedSequence(key).generate_state(1, np.uint64)
    return torch.Generator().manual_seed(int(state[0] >> np.uint64(1)))


def batch_indices(n: int, batch_size: int, seed: int, batch: int) -> Tensor:
    """Which scans form batch number `batch` (from 0): (batch_size,) indices below `n`.

    Batches follow one another through an endless row of epochs, each a permutation of all scans: `batch_size`
    need not divide `n` and may exceed it, and every scan appears once in each epoch.
    """
    start, stop = batch * batch_size, (batch + 1) * batch_size
    first, last = start // n, (stop - 1) // n
    epochs = [torch.randperm(n, generator=random_source(seed, 0, epoch)) for epoch in range(first, last + 1)]
    return torch.cat(epochs)[start - first * n : stop - first * n]


def data_hash(volumes: np.ndarray | Tensor) -> str:
    """SHA-256 of the volumes' shape and values (as float32)."""
    array = np.ascontiguousarray(volumes, dtype=np.float32)
    digest = hashlib.sha256(str(array.shape).encode())
    digest.update(array.data)
    return digest.hexdigest()


def augment(volumes: Tensor, names: Sequence[str], source: torch.Generator) -> Tensor:
    """Apply the named augmentations in order, each to a random tenth of the samples.

    Order and ranges: Ferreira et al. 2022 (doi:10.3390/app12104844) and the code released with it. Returns
    new volumes in [-1, 1].
    """
    volumes = volumes.clone()
    for name in names:
        function, probability = AUGMENTATIONS[name]
        (chosen,) = torch.where(torch.rand(len(volumes), generator=source) < probability)
        if len(chosen):
            chosen = chosen.to(volumes.device)
            volumes[chosen] = function(volumes[chosen], source)
    return volumes


def rotate(volumes: Tensor, source: torch.Generator) -> Tensor:
    """Turn by up to +-0.052 rad about each of the three axes, trilinear."""
    angles = (2 * _uniform(volumes, source, 3) - 1) * ROTATION
    cosine, sine = angles.cos(), angles.sin()
    matrix = torch.eye(3, device=volumes.device).expand(len(volumes), 3, 3)
    for axis, (i, j) in enumerate(((1, 2), (0, 2), (0, 1))):
        turn = torch.eye(3, device=volumes.device).repeat(len(volumes), 1, 1)
        turn[:, i, i] = turn[:, j, j] = cosine[:, axis]
        turn[:, i, j], turn[:, j, i] = -sine[:, axis], sine[:, axis]
        matrix = turn @ matrix
    return _warp(volumes, matrix, torch.zeros_like(angles), "bilinear")


def flip(volumes: Tensor, source: torch.Generator) -> Tensor:
    """Mirror along x (left and right)."""
    return volumes.flip(2)


def scale(volumes: Tensor, source: torch.Generator) -> Tensor:
    """Multiply the signal, which is 0 at -1, by 0.9 to 1.1.

    `rescale`, which follows in the models, takes this back except beside the noise of a noisy sample, as in
    the code released with the paper.
    """
    factor = 1 + INTENSITY * (2 * _uniform(volumes, source) - 1)
    return (volumes + 1) * factor.view(-1, 1, 1, 1, 1) - 1


def zoom(volumes: Tensor, source: torch.Generator) -> Tensor:
    """Enlarge 1.0 to 1.1 times about the centre, nearest neighbour."""
    factor = 1 + ZOOM * _uniform(volumes, source)
    matrix = torch.eye(3, device=volumes.device) / factor.view(-1, 1, 1)
    return _warp(volumes, matrix, volumes.new_zeros(len(volumes), 3), "nearest")


def noise(volumes: Tensor, source: torch.Generator) -> Tensor:
    """Add Gaussian noise with a standard deviation of 0.01."""
    return volumes + NOISE * torch.randn(volumes.shape, generator=source).to(volumes.device)


def rescale(volumes: Tensor, source: torch.Generator) -> Tensor:
    """Stretch each sample so that it spans [-1, 1]; a constant one becomes -1."""
    low, high = volumes.amin((1, 2, 3, 4), keepdim=True), volumes.amax((1, 2, 3, 4), keepdim=True)
    span = torch.where(high > low, high - low, 1)
    return 2 * (volumes - low) / span - 1


def translate(volumes: Tensor, source: torch.Generator) -> Tensor:
    """Shift by up to (4, 4, 0) voxels along (x, y, z) for a 64-voxel grid, as far on others; trilinear."""
    reach = torch.tensor(TRANSLATION, device=volumes.device) * 2 / TRANSLATION_GRID
    shift = (2 * _uniform(volumes, source, 3) - 1) * reach
    matrix = torch.eye(3, device=volumes.device).expand(len(volumes), 3, 3)
    return _warp(volumes, matrix, shift, "bilinear")


# name: (function, probability for each sample)
AUGMENTATIONS: dict[str, tuple[Callable[[Tensor, torch.Generator], Tensor], float]] = {
    "rotate": (rotate, PROBABILITY),
    "flip": (flip, PROBABILITY),
    "scale": (scale, PROBABILITY),
    "zoom": (zoom, PROBABILITY),
    "noise": (noise, PROBABILITY),
    "rescale": (rescale, 1.0),
    "translate": (translate, PROBABILITY),
}


def _uniform(volumes: Tensor, source: torch.Generator, *shape: int) -> Tensor:
    return torch.rand((len(volumes), *shape), generator=source).to(volumes.device)


def _warp(volumes: Tensor, matrix: Tensor, shift: Tensor, mode: str) -> Tensor:
    """Sample at matrix @ p + shift, p = (x, y, z) running from -1 to 1 over the grid; -1 outside of it."""
    # torch counts the axes of a sampling position from the last to the first
    theta = torch.cat([matrix.flip(1, 2), shift.flip(1)[..., None]], dim=2)
    grid = F.affine_grid(theta, list(volumes.shape), align_corners=False)
    sample = partial(F.grid_sample, mode=mode, padding_mode="zeros", align_corners=False)
    return (sample(volumes + 1, grid) - 1).clamp(-1, 1)
