"""The differences of an animal, and of a session, from the mean head."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from bids_alphagan.phantom.anatomy import CSF, GM, WM, Anatomy, Field

WARP_STEP = 1.5
WARP_SHAPE = (25, 25, 21)
"""Control grid of the deformations: spacing in mm, nodes; centred on the brain, as wide as the head."""


class Pose(NamedTuple):
    """Scanner to head coordinates: ``head = matrix @ (scanner - shift)``."""

    matrix: NDArray[np.float64]
    shift: NDArray[np.float64]

    def apply(self, points: Field) -> Field:
        """Points (3, ...) from scanner to head coordinates, before the animal's own deformation."""
        matrix = self.matrix.astype(np.float32)
        moved = matrix @ points.reshape(3, -1) - (matrix @ self.shift.astype(np.float32))[:, None]
        return moved.reshape(points.shape)


class Animal(NamedTuple):
    """One animal: displacement (3, 25, 25, 21) in mm, size factors (3,), ventricle wall shift in mm."""

    displacement: Field
    size: NDArray[np.float64]
    ventricles: float


def smooth_noise(rng: np.random.Generator, shape: tuple[int, ...], sigma: float) -> Field:
    """Gaussian random field of unit standard deviation, smoothed by `sigma` samples."""
    from scipy import ndimage as ndi

    pad = int(3 * sigma)
    noise = rng.standard_normal([n + 2 * pad for n in shape], dtype=np.float32)
    noise = ndi.gaussian_filter(noise, sigma, mode="wrap")
    noise /= noise.std()
    return noise[tuple(slice(pad, pad + n) for n in shape)]


def exponentiate(velocity: Field, step: float, squarings: int = 6) -> Field:
    """Displacement (3, I, J, K) in mm of the flow of a stationary velocity field, by scaling and squaring.

    Arsigny et al. 2006, doi 10.1007/11866565_113.
    """
    from scipy import ndimage as ndi

    grid = np.indices(velocity.shape[1:], dtype=np.float32)
    moved = velocity / np.float32(2**squarings)
    for _ in range(squarings):
        where = grid + moved / np.float32(step)
        moved = moved + np.stack([ndi.map_coordinates(c, where, order=1, mode="nearest") for c in moved])
    return moved


def draw_animal(rng: np.random.Generator) -> Animal:
    """Draw an animal's anatomy: smooth at two scales (8 and 3.5 mm), overall size +-8 %."""
    long, short = 8.0 / WARP_STEP, 3.5 / WARP_STEP
    velocity = np.stack(
        [
            0.45 * smooth_noise(rng, WARP_SHAPE, long) + 0.28 * smooth_noise(rng, WARP_SHAPE, short)
            for _ in range(3)
        ]
    )
    size = rng.uniform(0.94, 1.06) * rng.uniform(0.98, 1.02, 3)
    return Animal(exponentiate(velocity, WARP_STEP), size, float(rng.normal(0.0, 0.07)))


def draw_pose(rng: np.random.Generator, animal: Animal, growth: float = 1.0) -> Pose:
    """Draw the animal's position in the scanner: rotations up to about 8 degrees, shifts up to 1.5 mm."""
    from scipy.spatial.transform import Rotation

    angles = np.clip(rng.normal(0, (3.0, 2.0, 2.0)), -8, 8)
    turn = Rotation.from_euler("xyz", angles, degrees=True).as_matrix()
    shift = np.clip(rng.normal(0, (0.5, 0.7, 0.5)), -1.5, 1.5)
    return Pose(np.diag(1 / (animal.size * growth)) @ turn, shift)


def to_head(points: Field, animal: Animal, pose: Pose) -> Field:
    """Scanner points (3, ...) in mm to points of the mean head."""
    from scipy import ndimage as ndi

    head = pose.apply(points).reshape(3, -1)
    centre = (np.array(WARP_SHAPE, np.float32)[:, None] - 1) / 2
    where = head / np.float32(WARP_STEP) + centre
    moved = [ndi.map_coordinates(c, where, order=1, mode="nearest") for c in animal.displacement]
    return (head + np.stack(moved)).reshape(points.shape)


def look_up(anatomy: Anatomy, points: Field, ventricles: float) -> tuple[NDArray[np.uint8], Field]:
    """Tissue and signal of the mean head at points (3, ...) in mm, from the nearest fine voxel."""
    origin, step = anatomy.affine[:3, 3].astype(np.float32), np.float32(anatomy.affine[0, 0])
    flat = np.zeros(points.shape[1:], np.int32)
    for axis, size in enumerate(anatomy.tissue.shape):
        index = np.clip(np.rint((points[axis] - origin[axis]) / step), 0, size - 1)
        flat = flat * size + index.astype(np.int32)
    tissue, signal = anatomy.tissue.ravel()[flat], anatomy.signal.ravel()[flat]
    fluid = (anatomy.ventricle.ravel()[flat] + np.float32(ventricles) > 0) & np.isin(tissue, (GM, WM, CSF))
    tissue[fluid], signal[fluid] = CSF, 1.0
    return tissue, signal
