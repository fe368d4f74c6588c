"""The template's brain, and its pose in a scan.

A plain registration of a brain to a whole head stretches the brain onto the head. Here the metric is computed
inside the template's brain mask alone, from many starting poses at a coarse scale. It is normalised mutual
information (doi:10.1016/S0031-3203(98)00091-0): plain mutual information grows with the variety of intensities
under the brain's points, and enlarged small brains onto bone and muscle.
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

from bids_alphagan.common.volume import load
from bids_alphagan.templates import Template

POINTS = 1000, 3000  # of the template's brain at which a pose is evaluated: coarse, fine
BINS = 24
STARTS = 6  # starting poses that are refined coarsely; the best of them is refined finely
LEAST_SEEN = 0.3  # smallest share of the template's brain in the field of view
TRUST = 0.12  # required gain of another orientation over the header's, in normalised mutual information
FIELD = 2.2  # usual field of view in brain widths; ten times more or less means a scaled header
LIMITS = (
    60,
    300,
)  # evaluations per refinement, coarse and fine; more coarse ones moved poses by less than half a voxel


@dataclass(frozen=True)
class Volumes:
    """Template image, brain, GM, WM and CSF, (x, y, z) float32, on one grid of cubic voxels in RAS."""

    maps: dict[str, np.ndarray]
    affine: np.ndarray

    @property
    def brain(self) -> np.ndarray:
        return self.maps["brain"] > 0.5


@functools.lru_cache(maxsize=4)  # cached from one scan to the next
def load_template(
    template: Template, across: int, margin: float, finest: float = 0.0, order: int = 1
) -> Volumes:
    """The template around its brain, resampled so that the brain is `across` voxels wide, of at least `finest` mm.

    A brain's width is the cube root of its volume, so that the cost depends neither on the template's resolution nor
    on the species. margin: space around the brain, in brain widths. order: of the splines. Cubic ones (3) keep thin
    layers that linear ones blur, but overshoot the maps' range a little.
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
    # Finer templates are smoothed to the coarser voxels, to avoid aliasing of thin structures.
    ratio = spacing / np.linalg.norm(mask.affine[:3, :3], axis=0)
    sigma = 0.4 * np.sqrt(np.maximum(ratio**2 - 1, 0))

    def resampled(path: Path) -> np.ndarray:
        smooth = ndimage.gaussian_filter(_read(path), sigma)
        return ndimage.affine_transform(
            smooth, np.linalg.inv(mask.affine) @ affine, output_shape=shape, order=order
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
    """The position of the template's brain in a scan.

    matrix: similarity transform (4, 4) from the template's to the scan's coordinates (RAS, mm).
    warnings: contradictions between header and image, as text.
    """

    matrix: np.ndarray
    warnings: tuple[str, ...] = ()


def true_size(
    affine: np.ndarray, shape: tuple[int, ...], template: Volumes
) -> tuple[np.ndarray, tuple[str, ...]]:
    """The affine in mm, corrected if the header is a power of ten off (scaled for SPM, or in cm), and warnings."""
    size = float(template.brain.sum()) ** (1 / 3) * float(template.affine[0, 0])
    extent = (abs(float(np.linalg.det(affine[:3, :3]))) * float(np.prod(shape))) ** (1 / 3)
    unit = 10.0 ** round(float(np.log10(extent / (FIELD * size))))
    if unit == 1:
        return affine, ()
    warning = (
        f"the header's field of view is {extent:.3g} mm wide: its lengths are taken to be {unit:g} times "
        "the true ones"
    )
    return np.diag([1 / unit, 1 / unit, 1 / unit, 1.0]) @ affine, (warning,)


def right_angles() -> list[np.ndarray]:
    """The 24 rotations that map axes to axes, (3, 3) each, the identity first; no reflections."""
    turns = [
        np.eye(3)[list(order)] * signs
        for order in itertools.permutations(range(3))
        for signs in itertools.product((1, -1), repeat=3)
    ]
    return [turn for turn in turns if np.linalg.det(turn) > 0]


Cost = Callable[[np.ndarray], float]


@dataclass(frozen=True)
class _Search:
    """A scan (x, y, z) with its affine in true size, and the template whose brain is searched for in it.

    A pose is a vector of 8: rotation vector, translation (mm), log scale, and the number of the orientation.
    """

    scan: np.ndarray
    affine: np.ndarray
    template: Volumes

    @functools.cached_property
    def voxels(self) -> np.ndarray:
        return np.argwhere(self.template.brain)

    @functools.cached_property
    def points(self) -> np.ndarray:
        return apply_affine(self.template.affine, self.voxels)

    @functools.cached_property
    def centre(self) -> np.ndarray:
        return np.asarray(self.points.mean(axis=0))

    @functools.cached_property
    def size(self) -> float:
        """Width of the brain, mm: about 12 in a rat, 7.5 in a mouse."""
        return float(self.template.affine[0, 0]) * len(self.voxels) ** (1 / 3)

    @functools.cached_property
    def orientations(self) -> list[np.ndarray]:
        return right_angles()

    def matrix(self, p: np.ndarray) -> np.ndarray:
        """The pose's similarity transform; its scale is limited to 0.75 to 1.33."""
        result = np.eye(4)
        turn = Rotation.from_rotvec(p[:3]).as_matrix() @ self.orientations[round(p[7])]
        result[:3, :3] = turn * np.exp(0.29 * np.tanh(p[6] / 0.29))
        result[:3, 3] = p[3:6] + self.centre - result[:3, :3] @ self.centre
        return result

    def cost_at(self, sigma: float, count: int) -> Cost:
        """The cost of a pose, minus its normalised mutual information at about `count` points. sigma: smoothing, mm."""
        some = slice(None, None, max(1, len(self.voxels) // count))
        points, spacing = self.points[some], float(self.template.affine[0, 0])
        smooth = ndimage.gaussian_filter(self.scan, sigma / np.linalg.norm(self.affine[:3, :3], axis=0))
        top = float(np.percentile(smooth[smooth > 0.05 * smooth.max()], 99))
        smooth = np.clip(smooth / top, 0, 1) * (BINS - 1.001)
        fixed = ndimage.gaussian_filter(self.template.maps["template"], sigma / spacing)
        fixed = fixed[tuple(self.voxels[some].T)]
        rows = np.argsort(np.argsort(fixed)) * BINS // len(fixed) * BINS
        limit = np.array(self.scan.shape) - 0.5
        to_voxels = np.linalg.inv(self.affine)

        def cost(p: np.ndarray) -> float:
            where = apply_affine(to_voxels @ self.matrix(p), points)
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

    def refine(self, cost: Cost, start: np.ndarray, limit: int) -> OptimizeResult:
        """Refine a pose with the simplex of Nelder and Mead, keeping its orientation."""
        steps = np.diag([0.15, 0.15, 0.15, *(0.08 * self.size,) * 3, 0.05])
        options = {
            "initial_simplex": np.vstack([start[:7], start[:7] + steps]),
            "maxfev": limit,
            "xatol": 1e-3,
            "fatol": 1e-4,
        }
        result = minimize(
            lambda p: cost(np.append(p, start[7])), start[:7], method="Nelder-Mead", options=options
        )
        result.x = np.append(result.x, start[7])
        return result

    def translations(self) -> list[np.ndarray]:
        """Candidate translations: by the header, to the centre of the field of view, to the head; and shifted ones."""
        head = np.argwhere(self.scan > 0.25 * np.percentile(self.scan, 99))
        middle = (np.array(self.scan.shape) - 1) / 2
        origins = [
            self.centre,
            apply_affine(self.affine, middle),
            apply_affine(self.affine, head).mean(axis=0),
        ]
        shifts = np.array(list(itertools.product((-0.3, 0, 0.3), repeat=3))) * self.size
        return [origin - self.centre + shift for origin in origins for shift in shifts]


def find_pose(scan: np.ndarray, affine: np.ndarray, template: Volumes) -> Pose:
    """Find the template's brain in a scan (x, y, z), non-negative, `affine` in true size. Deterministic.

    About 2600 poses are evaluated: three positions with shifts, rotations by 20 degrees, and all right angles, because
    headers may give a wrong orientation. The best few are refined with the simplex of Nelder and Mead, separately for
    the header's orientation and for the others; another orientation is accepted only if it is clearly better.
    """
    search = _Search(scan, affine, template)
    coarse = search.cost_at(search.size / 12, POINTS[0])
    fine = search.cost_at(search.size / 24, POINTS[1])
    translations = search.translations()
    turns = np.deg2rad(20) * np.vstack([np.zeros(3), np.eye(3), -np.eye(3)])

    def start(k: int, translation: np.ndarray, turn: np.ndarray) -> np.ndarray:
        return np.concatenate([turn, translation, [0.0, k]])

    def best(starts: list[np.ndarray], count: int) -> OptimizeResult:
        refined = [
            search.refine(coarse, candidate, LIMITS[0]) for candidate in sorted(starts, key=coarse)[:count]
        ]
        return search.refine(fine, min(refined, key=lambda r: r.fun).x, LIMITS[1])

    header_starts = [start(0, translation, turn) for translation in translations for turn in turns]
    other_starts = []
    for k in range(1, len(search.orientations)):
        upright = min((start(k, translation, turns[0]) for translation in translations), key=coarse)
        other_starts.append(min((start(k, upright[3:6], turn) for turn in turns), key=coarse))
    header_pose, other_pose = best(header_starts, STARTS), best(other_starts, 2 * STARTS)
    if other_pose.fun > (1 + TRUST) * header_pose.fun:
        return Pose(search.matrix(header_pose.x))
    warning = (
        f"the image fits the template {other_pose.fun / header_pose.fun:.2f} times better in an orientation"
        " other than the header's; the masks use that orientation: correct the header"
    )
    return Pose(search.matrix(other_pose.x), (warning,))


def _read(path: Path) -> np.ndarray:
    image = load(path)
    return np.asarray(image.dataobj, dtype=np.float32).reshape(image.shape[:3])
