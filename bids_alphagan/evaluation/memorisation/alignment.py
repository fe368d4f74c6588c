"""Scans aligned in pose and size at one resolution, so that their similarity is that of the animals.

Two scans are compared by Pearson's correlation inside a region (the common brain, or the field of view), both
with the same blur, after one of them was shifted, rotated, scaled (as by training's augmentation) and, if
that fits better, flipped. Aligning every pair would take hours. Instead, each scan is aligned once with the mean of
the real ones, which puts a copy where its original is; only the most similar pairs are then aligned with each
other.
"""

from dataclasses import dataclass

import numpy as np
import torch
from scipy import ndimage
from torch import Tensor
from torch.nn import functional as F

BLUR = 0.05  # Gaussian, in widths of the region (cube root of its volume): 0.6 mm in a rat's brain
COARSE = 2.0  # times that for the first steps, which move farthest
STEPS = (8, 8)  # Gauss-Newton steps to the mean, at the coarse and at the fine blur
PAIR_STEPS = 5
BATCH = 16


@dataclass(frozen=True)
class Region:
    """The voxels in which scans are compared.

    mask: (x, y, z) bool. zooms: voxel sizes in mm. centre: of rotation and scaling, in voxels.
    points: (v, 3) positions of the mask's voxels in mm from the centre.
    """

    mask: np.ndarray
    zooms: np.ndarray
    centre: np.ndarray
    points: Tensor

    @classmethod
    def of(cls, mask: np.ndarray, zooms: np.ndarray, centre: np.ndarray | None = None) -> "Region":
        """`mask` must have at least one voxel; `centre` is its own centre by default."""
        zooms, where = np.asarray(zooms, float), np.argwhere(mask)
        centre = where.mean(axis=0) if centre is None else centre
        points = torch.from_numpy(((where - centre) * zooms).astype(np.float32))
        return cls(np.asarray(mask, bool), zooms, centre, points)

    @property
    def width(self) -> float:
        """Cube root of its volume, in mm."""
        return float(self.mask.sum() * np.prod(self.zooms)) ** (1 / 3)


def blur(scans: np.ndarray, region: Region, times: float = 1.0) -> Tensor:
    """(n, x, y, z) with the Gaussian blur at which all scans are compared, so that none has finer detail."""
    sigma = times * BLUR * region.width / region.zooms
    smooth = [ndimage.gaussian_filter(np.asarray(s, np.float32), sigma, mode="nearest") for s in scans]
    return torch.from_numpy(np.stack(smooth))


def sample(volumes: Tensor, moves: Tensor, region: Region) -> Tensor:
    """Values (b, v) of `volumes` (b, x, y, z) at the region's points after `moves` (b, 3, 4), in mm."""
    points = region.points @ moves[:, :, :3].mT + moves[:, None, :, 3]
    size = np.array(volumes.shape[1:], float)
    # grid_sample needs the last axis first, and -1 and 1 at the centres of the first and last voxel.
    scale = torch.tensor(2 / np.maximum(size - 1, 1) / region.zooms, dtype=torch.float32)
    shift = torch.tensor(2 * region.centre / np.maximum(size - 1, 1) - 1, dtype=torch.float32)
    grid = (points * scale + shift).flip(-1)[:, None, None]
    return F.grid_sample(volumes[:, None], grid, padding_mode="border", align_corners=True)[:, 0, 0, 0]


def standardise(values: Tensor) -> Tensor:
    """Each row with mean 0 and length 1, so that products are correlations; constant rows become 0."""
    return F.normalize(values - values.mean(dim=-1, keepdim=True), dim=-1, eps=1e-6)


def identity(n: int) -> Tensor:
    """(n, 3, 4): the identity."""
    return torch.eye(3, 4).repeat(n, 1, 1)


def compose(outer: Tensor, inner: Tensor) -> Tensor:
    """The movement x -> outer(inner(x)), each (b, 3, 4)."""
    turn = outer[:, :, :3] @ inner[:, :, :3]
    shift = (outer[:, :, :3] @ inner[:, :, 3:]) + outer[:, :, 3:]
    return torch.cat([turn, shift], dim=2)


def inverse(moves: Tensor) -> Tensor:
    """The inverse of movements (b, 3, 4)."""
    back = torch.linalg.inv(moves[:, :, :3])
    return torch.cat([back, -back @ moves[:, :, 3:]], dim=2)


def movement(parameters: Tensor) -> Tensor:
    """(b, 7): shift in mm, rotation vector in radians, log of the scale -> (b, 3, 4)."""
    x, y, z, size = parameters[:, 3:].T
    cross = torch.stack([size, -z, y, z, size, -x, -y, x, size], dim=1).reshape(-1, 3, 3)
    return torch.cat([torch.linalg.matrix_exp(cross), parameters[:, :3, None]], dim=2)


def derivatives(volumes: Tensor, region: Region) -> Tensor:
    """Derivatives of the region's values (b, v) by shift (mm), rotation (radians) and log scale: (b, v, 7)."""
    spacing = tuple(float(zoom) for zoom in region.zooms)
    slopes = torch.stack(torch.gradient(volumes, spacing=spacing, dim=(1, 2, 3)), dim=-1)
    slope = slopes[:, torch.from_numpy(region.mask)]
    positions = region.points.expand_as(slope)
    outwards = (positions * slope).sum(dim=2, keepdim=True)
    return torch.cat([slope, torch.linalg.cross(positions, slope), outwards], dim=2)


def align(moving: Tensor, fixed: Tensor, moves: Tensor, region: Region, steps: int) -> Tensor:
    """Align each of `moving` (b, x, y, z) with `fixed` (b or 1, x, y, z), starting from `moves` (b, 3, 4).

    Gauss-Newton steps on the residual after gain and offset, in the inverse compositional form (Baker and
    Matthews 2004, doi:10.1023/B:VISI.0000011205.11775.fd): the derivatives are those of `fixed` and are computed
    once. The best of all steps is returned, so that a pair never becomes less similar than at the start.
    """
    target = fixed[:, torch.from_numpy(region.mask)]
    length = (target - target.mean(dim=1, keepdim=True)).norm(dim=1).clamp(min=1e-6)[:, None, None]
    target = standardise(target)
    slopes = derivatives(fixed, region) / length
    slopes = slopes - slopes.mean(dim=1, keepdim=True)
    slopes = slopes - target[:, :, None] * (target[:, :, None] * slopes).sum(dim=1, keepdim=True)
    normal = slopes.mT @ slopes
    damped = normal + 1e-4 * torch.diag_embed(normal.diagonal(dim1=1, dim2=2)) + 1e-8 * torch.eye(7)
    best, best_correlation = moves, torch.full((len(moving),), -2.0)
    for step in range(steps + 1):
        values = standardise(sample(moving, moves, region))
        correlation = (values * target).sum(dim=1)
        better = correlation > best_correlation
        best = torch.where(better[:, None, None], moves, best)
        best_correlation = torch.where(better, correlation, best_correlation)
        if step == steps:
            break
        left = values / correlation.clamp(min=0.1)[:, None] - target
        change = torch.linalg.solve(damped, slopes.mT @ left[:, :, None])[..., 0]
        # Steps are limited to a tenth of the region's width, the range in which blurred scans show the direction.
        reach = torch.tensor([0.1 * region.width] * 3 + [0.1] * 4)
        change = change.clamp(-reach, reach)
        moves = compose(moves, inverse(movement(change)))
    return best


@dataclass(frozen=True)
class Aligned:
    """Scans in the pose and size of the mean scan.

    volumes: (n, x, y, z), blurred. moves: (n, 3, 4), from the mean's points to the scan's, in mm. values:
    (n, v) standardised, of the region.
    """

    volumes: Tensor
    moves: Tensor
    values: Tensor

    def __len__(self) -> int:
        return len(self.moves)


def to_mean(scans: np.ndarray, reference: np.ndarray, region: Region) -> Aligned:
    """Align scans (n, x, y, z) with `reference` (x, y, z)."""
    moves = identity(len(scans))
    for times, steps in zip((COARSE, 1.0), STEPS, strict=True):
        volumes, fixed = blur(scans, region, times), blur(reference[None], region, times)
        parts = range(0, len(scans), BATCH)
        moves = torch.cat(
            [align(volumes[i : i + BATCH], fixed, moves[i : i + BATCH], region, steps) for i in parts]
        )
    values = [standardise(sample(volumes[i : i + BATCH], moves[i : i + BATCH], region)) for i in parts]
    return Aligned(volumes, moves, torch.cat(values))


@dataclass(frozen=True)
class Library:
    """The scans that others are compared with.

    aligned: n scans. whole, softer: (n, x, y, z) in the mean's pose, and the same blurred once more.
    animals: (n,) numbers.
    """

    aligned: Aligned
    whole: Tensor
    softer: Tensor
    animals: np.ndarray

    @classmethod
    def of(cls, scans: np.ndarray, reference: np.ndarray, region: Region, animals: np.ndarray) -> "Library":
        """A library of scans (n, x, y, z), aligned with `reference` (x, y, z)."""
        aligned = to_mean(scans, reference, region)
        everywhere = Region.of(np.ones_like(region.mask), region.zooms, region.centre)
        parts = range(0, len(scans), BATCH)
        posed = [
            sample(aligned.volumes[i : i + BATCH], aligned.moves[i : i + BATCH], everywhere) for i in parts
        ]
        whole = torch.cat(posed).reshape(aligned.volumes.shape)
        return cls(aligned, whole, blur(whole.numpy(), region), animals)


def on_pairs(
    moving: Aligned, library: Library, pairs: np.ndarray, region: Region
) -> tuple[np.ndarray, np.ndarray]:
    """Align scans with single others: correlations (p,) in [0, 1], movements (p, 3, 4) from the mean's points.

    The correlation is the multiple one of the moved scan with the other scan and the other's detail, so that gain,
    offset and sharpness are free: a generator's scans are smoother than real ones, and so are copies.

    pairs: (p, 2) indices into `moving` and `library`.
    """
    likeness, moves = [torch.empty(0)], [torch.empty(0, 3, 4)]
    inside = torch.from_numpy(region.mask)
    for i in range(0, len(pairs), BATCH):
        a, b = torch.from_numpy(pairs[i : i + BATCH]).T
        move = align(moving.volumes[a], library.whole[b], moving.moves[a], region, PAIR_STEPS)
        values = standardise(sample(moving.volumes[a], move, region))
        target = library.whole[b][:, inside]
        detail = standardise(target - library.softer[b][:, inside])
        target = standardise(target)
        detail = F.normalize(detail - target * (target * detail).sum(1, keepdim=True), dim=1, eps=1e-6)
        shares = (values * target).sum(1).clamp(min=0) ** 2 + (values * detail).sum(1) ** 2
        likeness.append(shares.clamp(max=1).sqrt())
        moves.append(move)
    return torch.cat(likeness).double().numpy(), torch.cat(moves).double().numpy()
