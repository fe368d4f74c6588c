"""A whole cohort against the scans it was learned from: copies, closeness to training, repetitions."""

from dataclasses import dataclass

import numpy as np

from bids_alphagan.evaluation.memorisation.alignment import Library
from bids_alphagan.evaluation.memorisation.measures import ALPHA, Match, RealScans, holm, matches
from bids_alphagan.evaluation.memorisation.nearest import Nearest, nearest

BLUNT = 2.5  # times nearer: where it takes more, copies that were changed may pass
LEAST_SCALE = 0.5  # of the real scans' distances: a cohort that varies less is not excused by that
QUANTILES = np.log(-np.log(0.1)) - np.log(-np.log(0.75))  # from 25 to 90 %, of log distance times D


@dataclass(frozen=True)
class Repetition:
    """A synthetic scan (first) and another of the cohort that it is too near to be a scan of its own.

    p_adjusted: chance that any scan of a sound cohort is as near to another (Holm's method).
    """

    first: int
    second: int
    similarity: float
    p_adjusted: float


@dataclass(frozen=True)
class Memorisation:
    """What was found of a cohort of n scans.

    matches: of each scan, in order; `worst` has those of smallest p first. copies: how many of them.
    nearer: how many times nearer to one training animal than to the next a scan must be to count as one.
    closer: share of scans whose nearest real animal is a training animal; expected: that share if the
    generator knew neither set, training animals over all animals; p: of `closer`, one-sided. All None
    without held-out animals. repetitions: scans that nearly are another of the cohort. distinct: how many
    different scans there are. notes: what limits the numbers, in plain words.
    """

    matches: list[Match]
    copies: int
    nearer: float
    closer: float | None
    expected: float | None
    p: float | None
    repetitions: list[Repetition]
    distinct: int
    notes: list[str]

    def worst(self, n: int = 5) -> list[Match]:
        """The n most suspicious scans."""
        return sorted(self.matches, key=lambda match: match.p)[:n]


def find_copies(
    synthetic: np.ndarray,
    real: RealScans,
    *,
    alpha: float = ALPHA,
    permutations: int = 10_000,
    seed: int = 0,
) -> Memorisation:
    """Judge a cohort (m, x, y, z) on the real scans' grid: copies, closeness to training, repetitions.

    The share of scans that are closest to a training animal is tested by dealing out anew which real animals
    were held out. If the generator has learned from all animals alike, as from the distribution that they
    are drawn from, the true deal is as good as any.

    Raises
    ------
    UserError: no scans, or not on the real scans' grid.
    """
    queries = real.queries(synthetic)
    found = nearest(queries, real.training, real.region)
    judged = matches(found, real, alpha)
    share = expected = p = None
    if real.held_out is not None:
        other = nearest(queries, real.held_out, real.region)
        share, expected, p = _closer(found, other, real, permutations, seed)
    each = np.arange(len(synthetic))
    library = Library.of(synthetic[(slice(None), *real.box)], real.mean, real.region, each)
    pairs, distinct = _repetitions(nearest(queries, library, real.region, each), real, alpha)
    copies = sum(match.copy for match in judged)
    nearer = real.null.nearer(alpha / len(synthetic))
    notes = _notes(real, nearer)
    return Memorisation(judged, copies, nearer, share, expected, p, pairs, distinct, notes)


def _closer(
    training: Nearest, held_out: Nearest, real: RealScans, permutations: int, seed: int
) -> tuple[float, float, float]:
    """Share of scans nearest to a training animal, the share to expect, and the permutation p-value."""
    assert real.held_out is not None
    nearer = training.similarity[:, 0] >= held_out.similarity[:, 0]
    animal = np.where(
        nearer, real.training.animals[training.index[:, 0]], real.held_out.animals[held_out.index[:, 0]]
    )
    trained = int(real.training.animals.max()) + 1
    n = int(real.held_out.animals.max()) + 1
    counts = np.bincount(animal, minlength=n)
    rng = np.random.default_rng(seed)
    deals = np.array([counts[rng.permutation(n)[:trained]].sum() for _ in range(permutations)])
    as_large = int((deals >= counts[:trained].sum()).sum())
    return float(nearer.mean()), trained / n, (1 + as_large) / (1 + permutations)


def _repetitions(own: Nearest, real: RealScans, alpha: float) -> tuple[list[Repetition], int]:
    """Scans that are too near to another of the cohort, and the number of different scans.

    Were the cohort even, the distance r to the nearest other scan would follow P(r) = 1 - exp(-(r / c)^D): as
    good as ln(10) (r / q)^D for small r, with q the distance that nine in ten scans stay below. That is the
    cohort's own scale, so that smooth or little varied cohorts are not accused, but at least half the real
    scans', so that a collapsed one is. D is the smallest of three, the cautious choice: what the ratios of
    the nearest two say of the cohort and of the real scans, and how the real scans' own distances spread.
    """
    n = len(own.index)
    usual = real.neighbours.distance[:, 0]
    distance = own.distance[:, 0]
    edge = max(float(np.quantile(distance, 0.9)), LEAST_SCALE * float(np.quantile(usual, 0.9)))
    inverses = [real.null.mean, float(np.log(np.quantile(usual, 0.9) / np.quantile(usual, 0.25))) / QUANTILES]
    known = own.index[:, 1] >= 0 if n > 1 else np.zeros(n, bool)
    if known.any():
        ratios = np.log(own.distance[known, 1] / distance[known])
        inverses.append(float(np.median(ratios)) / np.log(2))  # the mean, but for repetitions' large ratios
    k, slow = real.null.events, max(inverses)
    beyond = np.maximum(np.log(edge / distance), 0)
    p = holm(np.minimum(np.log(10) * (1 + beyond / (k * slow)) ** -float(k), 1))
    flagged = [i for i in np.argsort(p, kind="stable") if p[i] < alpha and own.index[i, 0] >= 0]
    rows = [
        Repetition(int(i), int(own.index[i, 0]), float(own.similarity[i, 0]), float(p[i])) for i in flagged
    ]
    reach = max((distance[i] for i in flagged), default=0.0)
    group = np.arange(n)
    for i in flagged:
        for j in own.index[i][own.distance[i] <= reach]:
            group[group == group[j]] = group[i]
    return rows, len(np.unique(group))


def _notes(real: RealScans, nearer: float) -> list[str]:
    animals = real.null.animals
    held = 0 if real.held_out is None else len(np.unique(real.held_out.animals))
    notes = []
    if not held:
        notes.append(
            "No animals were held out: whether the scans lie closer to the training set than to other "
            "animals cannot be said, and what is usual comes from the training animals alone."
        )
    elif held < 8:
        notes.append(
            f"Only {held} animal{'s were' if held > 1 else ' was'} held out: that the scans lie closer to "
            "the training set can be shown only where it is very clear."
        )
    if nearer > BLUNT:
        notes.append(
            f"Only a scan that is {nearer:.2g} times nearer to one training animal than to the next counts "
            "as a copy here, so that copies with much noise or blur may pass. More real animals than these "
            f"{animals}, or fewer synthetic scans, make the test sharper."
        )
    return notes
