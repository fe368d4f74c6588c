"""A whole cohort against its training scans: copies, closeness to training, repetitions."""

from dataclasses import dataclass

import numpy as np

from bids_alphagan.evaluation.memorisation.alignment import Library
from bids_alphagan.evaluation.memorisation.measures import ALPHA, Match, RealScans, holm, matches
from bids_alphagan.evaluation.memorisation.nearest import Nearest, nearest

BLUNT = 2.5  # times nearer; with a higher threshold, altered copies may be missed
LEAST_SCALE = 0.5  # of the real scans' distances: lower bound of a cohort's own scale
QUANTILES = np.log(-np.log(0.1)) - np.log(-np.log(0.75))  # from 25 to 90 %, of log distance times D


@dataclass(frozen=True)
class Repetition:
    """A synthetic scan (first) that is too near to another of the cohort (second) to count as different.

    p_adjusted: probability that any scan of a sound cohort is as near to another (Holm's method).
    """

    first: int
    second: int
    similarity: float
    p_adjusted: float


@dataclass(frozen=True)
class Memorisation:
    """The result for a cohort of n scans.

    matches: of each scan, in order; `worst` sorts by p. copies: number of copies.
    nearer: how many times nearer to one training animal than to the next a scan must be to count as a copy.
    closer: share of scans whose nearest real animal is a training animal; expected: that share for a
    generator that has seen neither set, training animals over all animals; p: of `closer`, one-sided. All None
    without held-out animals. repetitions: scans that nearly equal another of the cohort. distinct: number of
    different scans. notes: limitations of the numbers, as text.
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
        """The n matches with the smallest p."""
        return sorted(self.matches, key=lambda match: match.p)[:n]


def find_copies(
    synthetic: np.ndarray,
    real: RealScans,
    *,
    alpha: float = ALPHA,
    permutations: int = 10_000,
    seed: int = 0,
) -> Memorisation:
    """Test a cohort (m, x, y, z) on the real scans' grid for copies, closeness to training and repetitions.

    The share of scans that are closest to a training animal is tested by permuting which real animals were held out. If
    the generator reproduces the distribution of all animals, and not the training animals, all permutations are
    equally likely.

    Raises
    ------
    UserError: no scans, or not on the real scans' grid.
    """
    queries = real.queries(synthetic)
    neighbours = nearest(queries, real.training, real.region)
    results = matches(neighbours, real, alpha)
    share = expected = p = None
    if real.held_out is not None:
        other = nearest(queries, real.held_out, real.region)
        share, expected, p = _closer(neighbours, other, real, permutations, seed)
    each = np.arange(len(synthetic))
    library = Library.of(synthetic[(slice(None), *real.box)], real.mean, real.region, each)
    pairs, distinct = _repetitions(nearest(queries, library, real.region, each), real, alpha)
    copies = sum(match.copy for match in results)
    nearer = real.null.nearer(alpha / len(synthetic))
    notes = _notes(real, nearer)
    return Memorisation(results, copies, nearer, share, expected, p, pairs, distinct, notes)


def _closer(
    training: Nearest, held_out: Nearest, real: RealScans, permutations: int, seed: int
) -> tuple[float, float, float]:
    """Share of scans nearest to a training animal, the expected share, and the permutation p-value."""
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

    In a homogeneous cohort, the distance r to the nearest other scan follows P(r) = 1 - exp(-(r / c)^D), which is
    nearly ln(10) (r / q)^D for small r, with q the 90 % quantile of the distances. q is the cohort's own, so that
    smooth cohorts or those with little variation are not flagged, but at least half the real scans', so that a
    collapsed one is. D is the smallest, i.e. most conservative, of three estimates: from the ratios of the nearest two
    distances in the cohort and in the real scans, and from the spread of the real scans' distances.
    """
    n = len(own.index)
    usual = real.neighbours.distance[:, 0]
    distance = own.distance[:, 0]
    edge = max(float(np.quantile(distance, 0.9)), LEAST_SCALE * float(np.quantile(usual, 0.9)))
    inverses = [real.null.mean, float(np.log(np.quantile(usual, 0.9) / np.quantile(usual, 0.25))) / QUANTILES]
    has_second = own.index[:, 1] >= 0 if n > 1 else np.zeros(n, bool)
    if has_second.any():
        ratios = np.log(own.distance[has_second, 1] / distance[has_second])
        inverses.append(
            float(np.median(ratios)) / np.log(2)
        )  # an estimate of the mean that is robust to the large ratios of repetitions
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
            "No animals were held out: the scans' closeness to the training set cannot be compared with that to "
            "other animals, and the usual ratios come from the training animals alone."
        )
    elif held < 8:
        notes.append(
            f"Only {held} animal{'s were' if held > 1 else ' was'} held out: only a very clear "
            "closeness to the training set can be shown."
        )
    if nearer > BLUNT:
        notes.append(
            f"Only a scan that is {nearer:.2g} times nearer to one training animal than to the next counts "
            "as a copy here, so that copies with much noise or blur may be missed. More real animals than "
            f"these {animals}, or fewer synthetic scans, make the test more sensitive."
        )
    return notes
