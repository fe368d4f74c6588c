"""The pose in which a template's brain meets a scan, found from several starts.

A plain registration of a brain to a whole head stretches the brain onto the head. Here the metric, mutual
information, is taken inside the template's brain mask alone, from many starting poses at a coarse scale.
"""

import itertools

import numpy as np
from scipy import ndimage
from scipy.optimize import minimize
from scipy.spatial.transform import Rotation

POINTS = 3000  # of the template's brain, at which a pose is judged
BINS = 24
STARTS = 6  # of the judged starting poses, this many are refined


def find_pose(
    scan: np.ndarray, affine: np.ndarray, template: np.ndarray, mask: np.ndarray, template_affine: np.ndarray
) -> tuple[np.ndarray, float]:
    """Find the similarity transform from template to scan coordinates (RAS, mm), (4, 4), and its mutual information.

    `scan` (x, y, z) is non-negative, `template` and `mask` share a grid of cubic voxels. Deterministic.
    """
    spacing = float(np.linalg.norm(template_affine[:3, 0]))
    voxels = np.argwhere(mask)
    step = max(1, len(voxels) // POINTS)
    voxels = voxels[::step]
    points = nib_apply(template_affine, voxels)
    centre = points.mean(axis=0)
    size = float((mask.sum() * spacing**3) ** (1 / 3))  # mm: about 12 in a rat, 7.5 in a mouse

    zooms = np.linalg.norm(affine[:3, :3], axis=0)
    world_to_voxel = np.linalg.inv(affine)

    def judge_at(sigma: float):  # type: ignore[no-untyped-def]
        smooth = ndimage.gaussian_filter(scan, sigma / zooms)
        top = float(np.percentile(smooth[smooth > 0.05 * smooth.max()], 99)) or 1.0
        smooth = np.clip(smooth / top, 0, 1) * (BINS - 1.001)
        fixed = ndimage.gaussian_filter(template, sigma / spacing)[tuple(voxels.T)]
        ranks = np.argsort(np.argsort(fixed))
        fixed_bins = ranks * BINS // len(ranks)

        def cost(p: np.ndarray) -> float:
            where = nib_apply(world_to_voxel @ _matrix(p, centre), points).T
            values = ndimage.map_coordinates(smooth, where, order=1, mode="constant", cval=0.0)
            low = values.astype(int)
            part = values - low
            joint = np.bincount(fixed_bins * BINS + low, 1 - part, BINS * BINS)
            joint += np.bincount(fixed_bins * BINS + low + 1, part, BINS * BINS)
            joint = joint.reshape(BINS, BINS) / len(values)
            outer = joint.sum(1, keepdims=True) * joint.sum(0, keepdims=True)
            nonzero = joint > 0
            return -float((joint[nonzero] * np.log(joint[nonzero] / outer[nonzero])).sum())

        return cost

    coarse, fine = judge_at(size / 12), judge_at(size / 24)
    head = np.argwhere(scan > 0.25 * np.percentile(scan, 99))
    origins = [centre, nib_apply(affine, (np.array(scan.shape)[None] - 1) / 2)[0], nib_apply(affine, head).mean(axis=0)]
    shifts = np.array(list(itertools.product((-0.3, 0, 0.3), repeat=3))) * size
    angles = np.vstack([np.zeros(3), np.eye(3), -np.eye(3)]) * np.deg2rad(20)
    starts = [
        np.concatenate([angle, origin - centre + shift, [0.0]]) for origin in origins for shift in shifts for angle in angles
    ]
    scale = np.array([0.15, 0.15, 0.15, *[0.08 * size] * 3, 0.05])
    best = sorted(starts, key=coarse)[:STARTS]

    def refine(cost, start: np.ndarray):  # type: ignore[no-untyped-def]
        simplex = np.vstack([start, start + np.diag(scale)])
        return minimize(cost, start, method="Nelder-Mead", options={"initial_simplex": simplex, "maxfev": 250, "xatol": 1e-3, "fatol": 1e-4})

    refined = min((refine(coarse, start) for start in best), key=lambda r: r.fun)
    final = refine(fine, refined.x)
    return _matrix(final.x, centre), -float(final.fun)


def nib_apply(affine: np.ndarray, points: np.ndarray) -> np.ndarray:
    """`points` (n, 3) through a (4, 4) affine."""
    return points @ affine[:3, :3].T + affine[:3, 3]


def _matrix(p: np.ndarray, centre: np.ndarray) -> np.ndarray:
    """Rotation vector, translation (mm) and log scale about `centre`; the scale stays within 0.75 and 1.33."""
    matrix = np.eye(4)
    matrix[:3, :3] = Rotation.from_rotvec(p[:3]).as_matrix() * np.exp(0.29 * np.tanh(p[6] / 0.29))
    matrix[:3, 3] = p[3:6] + centre - matrix[:3, :3] @ centre
    return matrix
