"""Is a synthetic scan a copy? Its nearest training scan, judged by what is usual among real animals.

Why a ratio. Synthetic scans are smoother and more average than real ones, which brings them nearer to all
real scans, copies or not; so plain correlations cannot be compared. What gives a copy away is that it is much
nearer to ONE training animal than to the next. With r1 and r2 the distances to the nearest and the second
nearest training animal, log(r2 / r1) is exponentially distributed for any scan that owes nothing to a single
animal, whatever its distribution, as long as that is even at the scale of r2 (Facco et al. 2017,
doi:10.1038/s41598-017-11873-y). Smoothness and averageness change both distances and cancel. Real scans give
the rate: held-out animals, and each training animal against the others.

One nearest animal that is in the training set under two names hides its copies: r1 and r2 are the same then.
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
TRIM = (
    0.9  # share of the real scans' ratios that the rate is taken from: the largest may be copies themselves
)
MARGIN = 0.15  # of the region's width around it, which movements need
FEWEST = 4  # training animals; of fewer, the nearest two say little about what is usual


@dataclass(frozen=True)
class Null:
    """What is usual of log(r2 / r1) among so many real animals.

    mean: of the exponential distribution; events: how many animals it rests on.
    """

    animals: int
    mean: float
    events: int

    @classmethod
    def of(cls, ratios: np.ndarray, animals: np.ndarray) -> "Null":
        """Fit to log(r2 / r1) of each real scan (n,), whose animals are `animals` (n,).

        The smallest TRIM of them are taken, the others censored there (as Facco et al. leave them out).

        Scans of one animal are alike, so the number of animals and not of scans is how much is known.
        """
        ordered = np.sort(ratios)
        kept = max(int(TRIM * len(ordered)), 1)
        mean = (ordered[:kept].sum() + (len(ordered) - kept) * ordered[kept - 1]) / kept
        n = len(np.unique(animals))
        return cls(n, max(float(mean), 1e-6), max(int(TRIM * n), 1))

    def p(self, ratios: np.ndarray) -> np.ndarray:
        """Chance of a ratio as large: of the exponential whose mean is estimated from `events` values.

        That is a Pareto distribution with a heavier tail, so that little data makes no strong claims.
        """
        return np.asarray((1 + ratios / (self.events * self.mean)) ** -float(self.events))

    def nearer(self, p: float) -> float:
        """r2 / r1 of which a larger one has the chance `p`: the inverse of `p` for one scan."""
        return float(np.exp(self.events * self.mean * (p ** (-1 / self.events) - 1)))


@dataclass(frozen=True)
class RealScans:
    """The real scans, prepared once for any number of cohorts.

    grid: voxels of the scans. box: the part of it that is looked at. region: in that part, where scans are
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
        """Align the real scans and learn from them what is usual.

        Parameters
        ----------
        training: (n, x, y, z), the scans that the generator saw, left and right along the first axis.
        held_out: (h, x, y, z), of animals that it did not see.
        training_animals, held_out_animals: the animal of each scan; None: each its own.
        zooms: voxel sizes in mm.
        brain: (x, y, z) bool, where scans are compared: best the voxels that are brain in most real scans.
            None: the whole field of view.

        Raises
        ------
        UserError: fewer than four training animals; an animal in both sets; shapes that disagree.
        """
        brain = np.ones(training.shape[1:], bool) if brain is None else np.asarray(brain, bool)
        given = [training] if held_out is None or not len(held_out) else [training, held_out]
        own = units(training_animals, len(training))
        if len(np.unique(own)) < FEWEST:
            raise UserError(
                f"Copies can be told from {FEWEST} training animals on, not from {len(np.unique(own))}."
            )
        if any(one.shape[1:] != brain.shape for one in given) or not brain.any():
            shapes = ", ".join(str(one.shape[1:]) for one in given)
            raise UserError(
                f"Scans of {shapes} voxels and a brain of {brain.shape} with {int(brain.sum())} voxels: they "
                "must have one grid, and the brain must not be empty."
            )
        if training_animals is not None and held_out_animals is not None:
            both = sorted({str(a) for a in training_animals} & {str(a) for a in held_out_animals})
            if both:
                raise UserError(f"{both[0]} is in the training set and held out: split the scans by animal.")
        box = _box(brain, zooms)
        region = Region.of(brain[box], np.asarray(zooms, float))
        parts = [np.asarray(one[(slice(None), *box)], np.float32) for one in given]
        mean = np.concatenate(parts).mean(axis=0)
        library = Library.of(parts[0], mean, region, own)
        neighbours = nearest(Queries.of(parts[0], mean, region), library, region, own)
        ratios, animals, held = _ratios(neighbours), own, None
        if len(parts) > 1:
            theirs = units(held_out_animals, len(parts[1])) + own.max() + 1
            held = Library.of(parts[1], mean, region, theirs)
            found = nearest(Queries.of(parts[1], mean, region), library, region)
            ratios, animals = np.append(ratios, _ratios(found)), np.append(animals, theirs)
        return cls(brain.shape, box, region, mean, library, held, neighbours, Null.of(ratios, animals))

    def queries(self, scans: np.ndarray) -> Queries:
        """Bring scans (n, x, y, z) of the real scans' grid to the common pose. UserError: another grid."""
        if not len(scans) or scans.shape[1:] != self.grid:
            raise UserError(
                f"Synthetic scans of shape {scans.shape} cannot be compared with real ones of {self.grid}."
            )
        return Queries.of(np.asarray(scans[(slice(None), *self.box)], np.float32), self.mean, self.region)

    def moved(self, scan: np.ndarray, match: "Match") -> np.ndarray:
        """A synthetic scan (x, y, z) laid over the training scan that it matches, for pictures."""
        centre = self.region.centre + [part.start for part in self.box]
        everywhere = Region.of(np.ones(scan.shape, bool), self.region.zooms, centre)
        turned = np.ascontiguousarray(scan[::-1] if match.mirrored else scan, np.float32)
        move = torch.from_numpy(match.move.astype(np.float32))[None]
        return sample(torch.from_numpy(turned)[None], move, everywhere).reshape(scan.shape).numpy()


@dataclass(frozen=True)
class Match:
    """A synthetic scan and its nearest training scan.

    similarity: correlation in [0, 1] after alignment, both blurred. ratio: r1 / r2, the distance to this scan
    over that to the next animal's; about 1 for a scan that is no copy. p: chance of such a ratio among real
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


def matches(found: Nearest, real: RealScans, alpha: float = ALPHA) -> list[Match]:
    """Judge each synthetic scan by its neighbours in the training set, in the order of the scans.

    Holm's method keeps the chance of a single false accusation in the whole cohort below alpha, whatever the
    dependence between scans that are compared with the same animals (doi:10.2307/4615733). A method for the
    share of false discoveries would find a few more copies, but each is written beside a scan by name.
    """
    logs = _ratios(found)
    p = real.null.p(logs)
    adjusted = holm(p)
    rows = []
    for i in range(len(logs)):
        j = int(found.index[i, 0])
        move = _between(found.moves[i, 0], real.training.aligned.moves[j].double().numpy())
        rows.append(
            Match(
                synthetic=i,
                training=j,
                similarity=float(found.similarity[i, 0]),
                ratio=float(np.exp(-logs[i])),
                p=float(p[i]),
                p_adjusted=float(adjusted[i]),
                copy=bool(adjusted[i] < alpha),
                mirrored=bool(found.mirrored[i, 0]),
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


def _ratios(found: Nearest) -> np.ndarray:
    """log(r2 / r1) of each scan: (n,), at least 0."""
    return np.asarray(np.log(found.distance[:, 1] / found.distance[:, 0]))


def _between(synthetic: np.ndarray, training: np.ndarray) -> np.ndarray:
    """The movement from the training scan's points to the synthetic one's, from theirs from the mean's."""
    a, b = (torch.from_numpy(np.asarray(one, float))[None] for one in (synthetic, training))
    return np.asarray(compose(a, inverse(b))[0].numpy())


def _box(brain: np.ndarray, zooms: Sequence[float] | np.ndarray) -> tuple[slice, ...]:
    """The part of the grid with the brain and room to move; mirrored, it is the same part."""
    where = np.argwhere(brain)
    room = MARGIN * float(brain.sum() * np.prod(zooms)) ** (1 / 3) / np.asarray(zooms, float)
    low = np.maximum(where.min(axis=0) - np.ceil(room), 0).astype(int)
    high = np.minimum(where.max(axis=0) + 1 + np.ceil(room), brain.shape).astype(int)
    low[0] = min(low[0], brain.shape[0] - high[0])
    high[0] = brain.shape[0] - low[0]
    return tuple(slice(int(a), int(b)) for a, b in zip(low, high, strict=True))
