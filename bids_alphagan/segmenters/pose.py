"""The template around its brain, and the pose in which that brain meets a scan.

A plain registration of a brain to a whole head stretches the brain onto the head. Here the metric is taken
inside the template's brain mask alone, from many starting poses at a coarse scale. It is normalised mutual
information (doi:10.1016/S0031-3203(98)00091-0): mutual information itself grows with the variety of what the
brain's points meet, so it enlarged small brains onto bone and muscle.
"""

import functools
import itertools
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from nibabel.affines import apply_affine
from scipy import ndimage
from scipy.optimize import OptimizeResult, minimize
from scipy.spatial.transform import Rotation

from bids_alphagan.templates import Template
from bids_alphagan.volume import load

POINTS = 1000, 3000  # of the template's brain, at which a pose is judged: coarsely, finely
BINS = 24
STARTS = 6  # of the judged starting poses, this many are refined coarsely, the best of them finely
LEAST_SEEN = 0.3  # of the template's brain must lie in the field of view
TRUST = 0.12  # another orientation than the header's must share this much more of the information
FIELD = 2.2  # sizes of a brain that a field of view usually spans; ten times more or less is a scaled header
LIMITS = 60, 300  # judgements in such a refinement; more coarse ones moved poses by less than half a voxel


@dataclass(frozen=True)
class Volumes:
    """The template, brain, GM, WM and CSF, (x, y, z) float32, on one grid of cubic voxels in RAS."""

    maps: dict[str, np.ndarray]
    affine: np.ndarray

    @property
    def brain(self) -> np.ndarray:
        return self.maps["brain"] > 0.5


@functools.lru_cache(maxsize=4)  # what one scan asks for, so that the next finds it
def load_template(template: Template, across: int, margin: float, finest: float = 0.0) -> Volumes:
    """The template around its brain, with its brain's size `across` voxels of at least `finest` mm.

    The size of a brain is the cube root of its volume, so that the work depends neither on the template's
    resolution nor on the species; `margin` is what is kept around the brain, in sizes.
    """
    mask = load(template.brain_mask)
    brain = _read(template.brain_mask) > 0.5
    size = float((brain.sum() * abs(np.linalg.det(mask.affine[:3, :3]))) ** (1 / 3))
    spacing = max(size / across, finest)
    corners = apply_affine(mask.affine, np.argwhere(brain))
    low, high = corners.min(axis=0) - margin * size, corners.max(axis=0) + margin * size
    shape = tuple(int(n) for n in np.ceil((high - low) / spacing) + 1)
    affine = np.diag([spacing, spacing, spacing, 1.0])
    affine[:3, 3] = low
    # Finer templates are averaged over the coarser voxels, or thin structures alias.
    ratio = spacing / np.linalg.norm(mask.affine[:3, :3], axis=0)
    sigma = 0.4 * np.sqrt(np.maximum(ratio**2 - 1, 0))

    def resampled(path: Path) -> np.ndarray:
        smooth = ndimage.gaussian_filter(_read(path), sigma)
        return ndimage.affine_transform(
            smooth, np.linalg.inv(mask.affine) @ affine, output_shape=shape, order=1
        )

    parts = {
        "template": template.t2w,
        "brain": template.brain_mask,
        "GM": template.gm,
        "WM": template.wm,
        "CSF": template.csf,
    }
    return Volumes({name: resampled(path) for name, path in parts.items()}, affine)


@dataclass(frozen=True)
class Pose:
    """Where the template's brain lies in a scan.

    matrix: similarity transform (4, 4) from the template's to the scan's coordinates (RAS, mm).
    warnings: what the header says that the picture contradicts, in plain words.
    """

    matrix: np.ndarray
    warnings: tuple[str, ...] = ()


def true_size(
    affine: np.ndarray, shape: tuple[int, ...], template: Volumes
) -> tuple[np.ndarray, tuple[str, ...]]:
    """The affine in mm, where a header is a power of ten off (scaled for SPM, or in cm); and a warning."""
    size = float(template.brain.sum()) ** (1 / 3) * float(template.affine[0, 0])
    extent = (abs(float(np.linalg.det(affine[:3, :3]))) * float(np.prod(shape))) ** (1 / 3)
    unit = 10.0 ** round(float(np.log10(extent / (FIELD * size))))
    if unit == 1:
        return affine, ()
    told = f"the header's field of view is {extent:.3g} mm wide: its lengths are taken as {unit:g} times true"
    return np.diag([1 / unit, 1 / unit, 1 / unit, 1.0]) @ affine, (told,)


def right_angles() -> list[np.ndarray]:
    """The 24 turns that bring axes onto axes, (3, 3) each, the identity first; none of them mirrors."""
    turns = [
        np.eye(3)[list(order)] * signs
        for order in itertools.permutations(range(3))
        for signs in itertools.product((1, -1), repeat=3)
    ]
    return [turn for turn in turns if np.linalg.det(turn) > 0]


def find_pose(scan: np.ndarray, affine: np.ndarray, template: Volumes) -> Pose:
    """Find the template's brain in a scan (x, y, z), non-negative, `affine` in true size. Deterministic.

    About 1900 poses are judged: three positions, shifted, turned by 20 degrees, and by all right angles, for
    headers may claim a wrong orientation. The best few are refined by Nelder and Mead's simplex, apart for
    the header's orientation and for the others; one of these must be clearly better to be believed.
    """
    spacing = float(template.affine[0, 0])
    voxels = np.argwhere(template.brain)
    size = spacing * len(voxels) ** (1 / 3)  # mm: about 12 in a rat, 7.5 in a mouse
    points = apply_affine(template.affine, voxels)
    centre = points.mean(axis=0)
    to_voxels = np.linalg.inv(affine)
    orientations = right_angles()

    def matrix(p: np.ndarray) -> np.ndarray:
        """Rotation vector, translation (mm), log scale, kept within 0.75 and 1.33, and the orientation."""
        result = np.eye(4)
        turn = Rotation.from_rotvec(p[:3]).as_matrix() @ orientations[round(p[7])]
        result[:3, :3] = turn * np.exp(0.29 * np.tanh(p[6] / 0.29))
        result[:3, 3] = p[3:6] + centre - result[:3, :3] @ centre
        return result

    def judge_at(sigma: float, count: int) -> Callable[[np.ndarray], float]:
        """Minus the normalised information of a pose at about `count` points, at a smoothness in mm."""
        some = slice(None, None, max(1, len(voxels) // count))
        smooth = ndimage.gaussian_filter(scan, sigma / np.linalg.norm(affine[:3, :3], axis=0))
        top = float(np.percentile(smooth[smooth > 0.05 * smooth.max()], 99))
        smooth = np.clip(smooth / top, 0, 1) * (BINS - 1.001)
        fixed = ndimage.gaussian_filter(template.maps["template"], sigma / spacing)[tuple(voxels[some].T)]
        limit = np.array(scan.shape) - 0.5
        rows = np.argsort(np.argsort(fixed)) * BINS // len(fixed) * BINS

        def cost(p: np.ndarray) -> float:
            where = apply_affine(to_voxels @ matrix(p), points[some])
            seen = ((where > -0.5) & (where < limit)).all(axis=1)
            if seen.mean() < LEAST_SEEN:
                return 0.0
            values = ndimage.map_coordinates(smooth, where[seen].T, order=1, mode="nearest")
            low, row = values.astype(int), rows[seen]
            counts = np.bincount(row + low, 1 - values + low, BINS**2)
            counts += np.bincount(row + low + 1, values - low, BINS**2)
            joint = counts.reshape(BINS, BINS) / len(values)
            independent = joint.sum(axis=1, keepdims=True) * joint.sum(axis=0, keepdims=True)
            filled = joint > 0
            shared = (joint[filled] * np.log(joint[filled] / independent[filled])).sum()
            return float(seen.mean() * shared / (joint[filled] * np.log(joint[filled])).sum())

        return cost

    def refine(cost: Callable[[np.ndarray], float], start: np.ndarray, limit: int) -> OptimizeResult:
        steps = np.diag([0.15, 0.15, 0.15, 0.08 * size, 0.08 * size, 0.08 * size, 0.05])
        options = {
            "initial_simplex": np.vstack([start[:7], start[:7] + steps]),
            "maxfev": limit,
            "xatol": 1e-3,
            "fatol": 1e-4,
        }
        found = minimize(
            lambda p: cost(np.append(p, start[7])), start[:7], method="Nelder-Mead", options=options
        )
        found.x = np.append(found.x, start[7])
        return found

    def best(starts: list[np.ndarray]) -> OptimizeResult:
        refined = [refine(coarse, start, LIMITS[0]) for start in starts]
        return refine(fine, min(refined, key=lambda r: r.fun).x, LIMITS[1])

    coarse, fine = judge_at(size / 12, POINTS[0]), judge_at(size / 24, POINTS[1])
    head = np.argwhere(scan > 0.25 * np.percentile(scan, 99))
    middle = (np.array(scan.shape) - 1) / 2
    origins = [centre, apply_affine(affine, middle), apply_affine(affine, head).mean(axis=0)]
    shifts = np.array(list(itertools.product((-0.3, 0, 0.3), repeat=3))) * size
    turns = np.deg2rad(20) * np.vstack([np.zeros(3), np.eye(3), -np.eye(3)])
    places = [origin - centre + shift for origin in origins for shift in shifts]

    def start(k: int, place: np.ndarray, turn: np.ndarray) -> np.ndarray:
        return np.concatenate([turn, place, [0.0, k]])

    told = [start(0, place, turn) for place in places for turn in turns]
    others = []
    for k in range(1, len(orientations)):
        place = min(places, key=lambda place, k=k: coarse(start(k, place, turns[0])))  # type: ignore[misc]
        others.append(min((start(k, place, turn) for turn in turns), key=coarse))
    told, others = sorted(told, key=coarse)[:STARTS], sorted(others, key=coarse)[: 2 * STARTS]
    as_told, otherwise = best(told), best(others)
    if otherwise.fun > (1 + TRUST) * as_told.fun:
        return Pose(matrix(as_told.x))
    believed = (
        f"the picture fits the template {otherwise.fun / as_told.fun:.2f} times better in an orientation"
        " other than the header's; the masks were made in it: correct the header"
    )
    return Pose(matrix(otherwise.x), (believed,))


def _read(path: Path) -> np.ndarray:
    image = load(path)
    return np.asarray(image.dataobj, dtype=np.float32).reshape(image.shape[:3])
