"""The simulated scanner: from an animal to an echo-planar magnitude series and its tissue fractions."""

from math import ceil
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from bids_alphagan.phantom.anatomy import CSF, GM, STEP, WM, Anatomy, Field
from bids_alphagan.phantom.animal import Animal, Pose, look_up, smooth_noise, to_head

FINEST, LEAST = 0.25, 3
"""A voxel is split along each axis into parts no longer than FINEST, in mm, and into at least LEAST parts,
unless those would be shorter than the anatomy's own voxels. Thin layers need them (docs/segmentation.md)."""
SNR = 20.0
"""Mean signal of the brain's gray matter over the noise's standard deviation, in one volume."""
FULL_SCALE = 16000.0
GHOST = 0.015
"""Nyquist ghost, as a share of the signal half a field of view away along the phase encoding."""

# centre in head coordinates (mm), width (mm), shift along phase encoding (mm): air beside the brain
SUSCEPTIBILITY = (
    ((5.8, -3.2, -6.4), 2.6, 0.75),
    ((-5.8, -3.2, -6.4), 2.6, 0.75),
    ((0.0, 14.5, -0.5), 3.2, -0.9),
)
COIL = ((4.5, 4.0), (-4.5, 4.0), (4.5, -5.0), (-4.5, -5.0))
"""Centres of the four elements over the head: (x, y) in mm."""
COIL_HEIGHT, COIL_RADIUS = 10.5, 12.5


class Scan(NamedTuple):
    """series: (X, Y, Z, T) int16; fractions: (3, X, Y, Z) float32 partial volumes of GM, WM, CSF."""

    series: NDArray[np.int16]
    fractions: Field


def scan_affine(shape: tuple[int, ...], zooms: tuple[float, ...]) -> NDArray[np.float64]:
    """RAS affine with the scanner's centre in the middle of the field of view."""
    affine = np.diag([*zooms, 1.0])
    affine[:3, 3] = -(np.array(shape) - 1) / 2 * np.array(zooms)
    return affine


def parts(zooms: tuple[float, ...]) -> tuple[int, ...]:
    """The number of parts along each axis into which a voxel of this size, in mm, is split."""
    return tuple(max(ceil(zoom / FINEST), min(LEAST, ceil(zoom / STEP))) for zoom in zooms)


def average(values: Field, factors: tuple[int, ...]) -> Field:
    """Mean over blocks of `factors` samples along the three axes."""
    for axis, factor in enumerate(factors):
        if factor > 1:
            first = (slice(None),) * axis
            parts = [values[(*first, slice(k, None, factor))] for k in range(factor)]
            values = sum(parts[1:], parts[0].astype(np.float32)) / np.float32(factor)
    return values


def susceptibility(head: Field, strength: float) -> tuple[Field, Field]:
    """Shift along the phase encoding (mm) and remaining share of the signal, at points (3, ...) of the head."""
    shift, left = np.zeros(head.shape[1:], np.float32), np.ones(head.shape[1:], np.float32)
    for centre, width, most in SUSCEPTIBILITY:
        squared = sum((head[i] - np.float32(centre[i])) ** 2 for i in range(3))
        bump = np.exp(-squared / np.float32(2 * width**2))
        shift += np.float32(strength * most) * bump
        left *= 1 - np.float32(min(0.75 * strength, 0.95)) * bump**2
    return shift, left


def coil_profile(points: Field, rng: np.random.Generator) -> Field:
    """Root of the summed squares of four surface elements, 1 directly under the coil; points in mm."""
    total = np.zeros(points.shape[1:], np.float32)
    offset = rng.normal(0, (0.8, 0.8, 0.5)).astype(np.float32)
    for x, y in COIL:
        squared = (points[0] - x - offset[0]) ** 2 + (points[1] - y - offset[1]) ** 2
        squared += (points[2] - np.float32(COIL_HEIGHT) - offset[2]) ** 2
        total += np.float32(rng.normal(1, 0.05) ** 2) / (1 + squared / np.float32(COIL_RADIUS**2)) ** 3
    return np.sqrt(total)


def echo_planar(signal: Field, factors: tuple[int, ...]) -> NDArray[np.complex64]:
    """Complex image on the scan's grid from the signal on its `factors` times finer grid.

    In-plane, k-space is cut to the matrix, which gives Gibbs ringing; along the phase encoding (the second
    axis) it is also weighted by the decay during the echo train. Slices are averages over their thickness.
    """
    from scipy import fft

    slices = average(signal, (1, 1, factors[2])).astype(np.complex64)
    for axis, decay in ((0, 0.5), (1, 1.1)):
        n, factor = slices.shape[axis] // factors[axis], factors[axis]
        k = np.fft.fftfreq(n, 1 / n)
        kept = fft.fft(slices, axis=axis).take(k.astype(int), axis) / factor
        # The finer grid's first sample is (factor - 1) / 2 samples before the voxel's centre.
        ramp = np.exp(2j * np.pi * k * (factor - 1) / 2 / (n * factor) - decay * (2 * k / n) ** 2)
        slices = fft.ifft(
            kept * ramp.astype(np.complex64).reshape([-1 if a == axis else 1 for a in range(3)]), axis=axis
        )
    return slices.astype(np.complex64)


def acquire(
    anatomy: Anatomy,
    animal: Animal,
    pose: Pose,
    rng: np.random.Generator,
    shape: tuple[int, ...],
    zooms: tuple[float, ...],
    volumes: int,
) -> Scan:
    """Image one animal; `zooms` in mm. Labels and signal undergo the same deformations, including the field's."""
    factors = parts(zooms)
    grids = [
        ((np.arange(n * f) + 0.5) / f - n / 2).astype(np.float32) * np.float32(zoom)
        for n, f, zoom in zip(shape, factors, zooms, strict=True)
    ]
    points = np.stack(np.broadcast_arrays(*np.ix_(*grids)))
    shift, left = susceptibility(pose.apply(points), float(rng.uniform(0.6, 1.3)))
    stretch = 1 + np.gradient(shift, float(grids[1][1] - grids[1][0]), axis=1)
    sensitivity = coil_profile(points, rng)
    points[1] += shift
    tissue, signal = look_up(anatomy, to_head(points, animal, pose), animal.ventricles)
    fractions = np.stack([average((tissue == kind).astype(np.float32), factors) for kind in (GM, WM, CSF)])

    grain = 1 + np.float32(0.02) * smooth_noise(rng, shape, 1.2)
    image = grain * echo_planar(signal * left * stretch * sensitivity, factors)
    image = image + GHOST * np.roll(image, shape[1] // 2, axis=1)
    clear = np.abs(image)
    brain = fractions[0] > 0.8
    sigma = np.float32((clear[brain].mean() if brain.any() else clear.mean()) / SNR)
    gain = np.float32(FULL_SCALE * rng.uniform(0.8, 1.2) / np.percentile(clear, 99.9))
    series = np.empty((*shape, volumes), np.int16)
    for t in range(volumes):
        noise = rng.standard_normal((2, *shape), dtype=np.float32) * sigma
        level = np.float32(1 + 0.004 * rng.standard_normal())
        noisy = np.hypot(level * image.real + noise[0], level * image.imag + noise[1])
        series[..., t] = np.rint(np.clip(gain * noisy, 0, 32767))
    return Scan(series, fractions)
