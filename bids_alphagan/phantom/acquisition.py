"""The scanner: an animal in, an echo-planar magnitude series and the tissue fractions it holds out."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from bids_alphagan.phantom.anatomy import CSF, GM, WM, Anatomy, Field
from bids_alphagan.phantom.animal import Animal, Pose, look_up, to_head

FINEST = 0.2
"""A voxel is split until its parts are no longer than this, in mm."""
SNR = 20.0
FULL_SCALE = 20000.0


class Scan(NamedTuple):
    """series: (X, Y, Z, T) int16; fractions: (3, X, Y, Z) float32 partial volumes of GM, WM, CSF."""

    series: NDArray[np.int16]
    fractions: Field


def scan_affine(shape: tuple[int, ...], zooms: tuple[float, ...]) -> NDArray[np.float64]:
    """RAS affine with the scanner's centre in the middle of the field of view."""
    affine = np.diag([*zooms, 1.0])
    affine[:3, 3] = -(np.array(shape) - 1) / 2 * np.array(zooms)
    return affine


def average(values: Field, factors: tuple[int, ...]) -> Field:
    """Mean over blocks of `factors` samples along the three axes."""
    for axis, factor in enumerate(factors):
        split = (*values.shape[:axis], -1, factor, *values.shape[axis + 1 :])
        values = values.reshape(split).mean(axis + 1, dtype=np.float32)
    return values


def acquire(
    anatomy: Anatomy,
    animal: Animal,
    pose: Pose,
    rng: np.random.Generator,
    shape: tuple[int, int, int],
    zooms: tuple[float, float, float],
    volumes: int,
) -> Scan:
    """Image one animal."""
    factors = tuple(int(np.ceil(zoom / FINEST)) for zoom in zooms)
    grids = [
        (((np.arange(n * f) + 0.5) / f) - n / 2).astype(np.float32) * np.float32(zoom)
        for n, f, zoom in zip(shape, factors, zooms, strict=True)
    ]
    points = np.stack(np.broadcast_arrays(*np.ix_(*grids)))
    tissue, signal = look_up(anatomy, to_head(points, animal, pose), animal.ventricles)
    fractions = np.stack([average((tissue == kind).astype(np.float32), factors) for kind in (GM, WM, CSF)])
    depth = np.maximum(0, 10.0 - points[2])
    signal = signal * (121 / (121 + depth**2)) ** 1.5
    image = average(signal, factors)
    brain = fractions[0] > 0.9
    sigma = float(image[brain].mean() if brain.any() else image.mean()) / SNR
    gain = FULL_SCALE / (image.max() * 1.2)
    series = np.empty((*shape, volumes), np.int16)
    for t in range(volumes):
        noise = rng.standard_normal((2, *shape), dtype=np.float32) * np.float32(sigma)
        series[..., t] = np.rint(gain * np.hypot(image + noise[0], noise[1]))
    return Scan(series, fractions)
