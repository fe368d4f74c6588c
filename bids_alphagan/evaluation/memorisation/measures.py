"""Tests whether a synthetic scan is a copy, by its nearest training scans and the usual distances of real animals.

Reason for a ratio. Synthetic scans are smoother and more average than real ones, which brings them nearer to all
real scans, copies or not; so plain correlations cannot be compared. A copy is much nearer to one training animal
than to the next. With r1 and r2 the distances to the nearest and the second nearest training animal, log(r2 / r1)
is exponentially distributed for any scan that does not depend on a single animal, whatever its distribution, as
long as that is homogeneous at the scale of r2 (Facco et al. 2017, doi:10.1038/s41598-017-11873-y). Smoothness and
averageness change both distances and cancel. The rate comes from real scans: held-out animals, and each training
animal against the others.

Limitation: copies of an animal that is in the training set under two names are missed, because r1 equals r2.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from bids_alphagan.common.errors import UserError
from bids_alphagan.evaluation.bootstrap import Labels, units
from bids_alphagan.evaluation.memorisation.alignment import Library, Region, compose, inverse, sample
from bids_alphagan.evaluation.memorisation.nearest import Nearest, Queries, nearest

ALPHA = 0.05
TRIM = 0.9  # share of the real scans' ratios that determine the rate; the largest may be copies themselves
MARGIN = 0.15  # around the region, in its widths, for movements
FEWEST = 4  # training animals; with fewer, the nearest two do not show the usual ratio


@dataclass(frozen=True)
class Null:
    """The distribution of log(r2 / r1) among real animals.

    animals: number. mean: of the exponential distribution; events: number of animals that determine it.
    """

    animals: int
    mean: float
    events: int

    @classmethod
    def of(cls, ratios: np.ndarray, animals: np.ndarray) -> "Null":
        """Fit to log(r2 / r1) of each real scan (n,), whose animals are `animals` (n,).

        The smallest TRIM of them are used, the others are censored there (Facco et al. leave them out).

        Scans of one animal are similar, so the information is the number of animals, not of scans.
        """
        ordered = np.sort(ratios)
        kept = max(int(TRIM * len(ordered)), 1)
        mean = (ordered[:kept].sum() + (len(ordered) - kept) * ordered[kept - 1]) / kept
        n = len(np.unique(animals))
        return cls(n, max(float(mean), 1e-6), max(int(TRIM * n), 1))

    def p(self, ratios: np.ndarray) -> np.ndarray:
        """Probability of at least this ratio, for an exponential distribution with mean estimated from `events` values.

        This is a Pareto distribution, whose heavier tail makes p larger if there are few data.
        """
        return np.asarray((1 + ratios / (self.events * self.mean)) ** -float(self.events))

    def nearer(self, p: float) -> float:
        """The r2 / r1 that is exceeded with probability `p`: the inverse of `p` for one scan."""
        return float(np.exp(self.events * self.mean * (p ** (-1 / self.events) - 1)))


@dataclass(frozen=True)
class RealScans:
    """The real scans, prepared once for any number of cohorts.

    grid: voxels of the scans. box: the part of it that is used. region: the voxels of that part in which scans are
    compared. mean: of all real scans there. neighbours: of the training scans among themselves.
    """

    grid: tuple[int, ...]
    box: tuple[slice, ...]
    region: Region
    mean: np.ndarray
    training: Library
    held_out: Library | None
    neighbours: Nearest
    null: Null

    @classmethod
    def prepare(
        cls,
        training: np.ndarray,
        training_animals: Labels | None = None,
        held_out: np.ndarray | None = None,
        held_out_animals: Labels | None = None,
        *,
        zooms: Sequence[float] | np.ndarray,
        brain: np.ndarray | None = None,
    ) -> "RealScans":
        """Align the real scans and estimate the distribution of their ratios.

        Parameters
        ----------
        training: (n, x, y, z), the generator's training scans, left and right along the first axis.
        held_out: (h, x, y, z), of other animals.
        training_animals, held_out_animals: the animal of each scan; None: each scan is an animal.
        zooms: voxel sizes in mm.
        brain: (x, y, z) bool, where scans are compared, preferably the voxels that are brain in most real scans.
            None: the whole field of view.

        Raises
        ------
        UserError: fewer than four training animals; an animal in both sets; shapes that differ.
        """
        brain = np.ones(training.shape[1:], bool) if brain is None else np.asarray(brain, bool)
        given = [training] if held_out is None or not len(held_out) else [training, held_out]
        own = units(training_animals, len(training))
        if len(np.unique(own)) < FEWEST:
            raise UserError(
                f"Copies can only be found with {FEWEST} or more training animals, not with {len(np.unique(own))}."
            )
        if any(scans.shape[1:] != brain.shape for scans in given) or not brain.any():
            shapes = ", ".join(str(scans.shape[1:]) for scans in given)
            raise UserError(
                f"Scans of {shapes} voxels and a brain of {brain.shape} with {int(brain.sum())} voxels: they "
                "must have one grid, and the brain must not be empty."
            )
        if training_animals is not None and held_out_animals is not None:
            both = sorted({str(a) for a in training_animals} & {str(a) for a in held_out_animals})
            if both:
                raise UserError(
                    f"{both[0]} is both in the training set and held out: split the scans by animal."
                )
        box = _box(brain, zooms)
        region = Region.of(brain[box], np.asarray(zooms, float))
        parts = [np.asarray(scans[(slice(None), *box)], np.float32) for scans in given]
        mean = np.concatenate(parts).mean(axis=0)
        library = Library.of(parts[0], mean, region, own)
        neighbours = nearest(Queries.of(parts[0], mean, region), library, region, own)
        ratios, animals, held = _ratios(neighbours), own, None
        if len(parts) > 1:
            held_out_units = units(held_out_animals, len(parts[1])) + own.max() + 1
            held = Library.of(parts[1], mean, region, held_out_units)
            held_out_neighbours = nearest(Queries.of(parts[1], mean, region), library, region)
            ratios, animals = (
                np.append(ratios, _ratios(held_out_neighbours)),
                np.append(animals, held_out_units),
            )
        return cls(brain.shape, box, region, mean, library, held, neighbours, Null.of(ratios, animals))

    def queries(self, scans: np.ndarray) -> Queries:
        """Align scans (n, x, y, z) on the real scans' grid with the common pose. Raises UserError for another grid."""
        if not len(scans) or scans.shape[1:] != self.grid:
            raise UserError(
                f"Synthetic scans of shape {scans.shape} cannot be compared with real ones of {self.grid}."
            )
        return Queries.of(np.asarray(scans[(slice(None), *self.box)], np.float32), self.mean, self.region)

    def moved(self, scan: np.ndarray, match: "Match") -> np.ndarray:
        """A synthetic scan (x, y, z) aligned with the training scan that it matches, for pictures."""
        centre = self.region.centre + [part.start for part in self.box]
        everywhere = Region.of(np.ones(scan.shape, bool), self.region.zooms, centre)
        turned = np.ascontiguousarray(scan[::-1] if match.mirrored else scan, np.float32)
        move = torch.from_numpy(match.move.astype(np.float32))[None]
        return sample(torch.from_numpy(turned)[None], move, everywhere).reshape(scan.shape).numpy()


@dataclass(frozen=True)
class Match:
    """A synthetic scan and its nearest training scan.

    similarity: correlation in [0, 1] after alignment, both blurred. ratio: r1 / r2, the distance to this scan
    over that to the next animal's; about 1 for a scan that is not a copy. p: probability of such a ratio among real
    animals; p_adjusted: p by Holm's method over the cohort. copy: p_adjusted is below alpha. mirrored: left
    and right are swapped. move: (3, 4), mm, from the training to the (mirrored) synthetic scan.
    """

    synthetic: int
    training: int
    similarity: float
    ratio: float
    p: float
    p_adjusted: float
    copy: bool
    mirrored: bool
    move: np.ndarray


def matches(neighbours: Nearest, real: RealScans, alpha: float = ALPHA) -> list[Match]:
    """Test each synthetic scan by its neighbours in the training set, in the order of the scans.

    Holm's method keeps the probability of any false positive in the whole cohort below alpha, whatever the
    dependence between scans that are compared with the same animals (doi:10.2307/4615733). Controlling the false
    discovery rate would find a few more copies, but each result is stated for a single scan.
    """
    logs = _ratios(neighbours)
    p = real.null.p(logs)
    adjusted = holm(p)
    rows = []
    for i in range(len(logs)):
        j = int(neighbours.index[i, 0])
        move = _between(neighbours.moves[i, 0], real.training.aligned.moves[j].double().numpy())
        rows.append(
            Match(
                synthetic=i,
                training=j,
                similarity=float(neighbours.similarity[i, 0]),
                ratio=float(np.exp(-logs[i])),
                p=float(p[i]),
                p_adjusted=float(adjusted[i]),
                copy=bool(adjusted[i] < alpha),
                mirrored=bool(neighbours.mirrored[i, 0]),
                move=move,
            )
        )
    return rows


def holm(p: np.ndarray) -> np.ndarray:
    """Adjusted p-values, in the order of `p`. Source: Holm 1979 (doi:10.2307/4615733)."""
    order = np.argsort(p, kind="stable")
    steps = np.maximum.accumulate(p[order] * np.arange(len(p), 0, -1))
    adjusted = np.empty(len(p))
    adjusted[order] = np.minimum(steps, 1)
    return adjusted


def _ratios(neighbours: Nearest) -> np.ndarray:
    """log(r2 / r1) of each scan: (n,), at least 0."""
    return np.asarray(np.log(neighbours.distance[:, 1] / neighbours.distance[:, 0]))


def _between(synthetic: np.ndarray, training: np.ndarray) -> np.ndarray:
    """The movement from the training scan's points to the synthetic one's; both are given from the mean's points."""
    a, b = (torch.from_numpy(np.asarray(moves, float))[None] for moves in (synthetic, training))
    return np.asarray(compose(a, inverse(b))[0].numpy())


def _box(brain: np.ndarray, zooms: Sequence[float] | np.ndarray) -> tuple[slice, ...]:
    """The part of the grid with the brain and a margin for movements, symmetric in left and right."""
    where = np.argwhere(brain)
    room = MARGIN * float(brain.sum() * np.prod(zooms)) ** (1 / 3) / np.asarray(zooms, float)
    low = np.maximum(where.min(axis=0) - np.ceil(room), 0).astype(int)
    high = np.minimum(where.max(axis=0) + 1 + np.ceil(room), brain.shape).astype(int)
    low[0] = min(low[0], brain.shape[0] - high[0])
    high[0] = brain.shape[0] - low[0]
    return tuple(slice(int(a), int(b)) for a, b in zip(low, high, strict=True))
