"""The uncertainty of numbers: bootstrap intervals over animals.

Scans of one animal are similar, so animals are resampled and not scans: a drawn animal comes with all of its scans.
Every synthetic scan counts as an animal of its own. The generator is not retrained, so an interval covers other
animals and other draws with this generator, not another training.
"""

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats

from bids_alphagan.common.errors import UserError

RESAMPLES = 2000
LEVEL = 0.95
FEW, VERY_FEW = 20, 8  # animals: with fewer, intervals are called rough, or mere hints
MIN_INTERVAL = 3  # animals for an interval; the range of two contains the mean only in half of all cases

Labels = Sequence[object] | np.ndarray
Indices = np.ndarray


@dataclass(frozen=True)
class Interval:
    """A value and the limits of the central `level` of the resamples.

    low and high are NaN if undefined, e.g. with fewer than MIN_INTERVAL animals in any set.

    animals: number in each set. resamples: number of those with a finite value.
    """

    value: float
    low: float
    high: float
    level: float
    method: str
    resamples: int
    animals: tuple[int, ...]


def units(labels: Labels | None, n: int) -> np.ndarray:
    """Animals as numbers 0, 1, ... in the order of their first appearance: (n,). None: each scan is an animal.

    Raises
    ------
    UserError: the number of labels is not n.
    """
    if labels is None:
        return np.arange(n)
    if len(labels) != n:
        raise UserError(f"{len(labels)} animals are given for {n} scans: give one per scan.")
    order = {label: i for i, label in enumerate(dict.fromkeys(labels))}
    return np.array([order[label] for label in labels], dtype=int)


def bootstrap(
    statistic: Callable[..., float],
    *animals: Labels,
    resamples: int = RESAMPLES,
    level: float = LEVEL,
    method: str = "percentile",
    seed: int = 0,
) -> Interval:
    """Interval of `statistic`, by drawing the animals of each set with replacement (`scipy.stats.bootstrap`).

    Slow computations should be done before and only looked up. Resamples without a finite value are left out.

    Parameters
    ----------
    statistic: takes one array of scan indices per set (a scan may appear more than once).
    animals: for each set, the animal of each scan.
    method: "percentile" or "bca" (bias-corrected and accelerated; percentile if that is undefined).

    Source: Efron and Tibshirani 1993, An Introduction to the Bootstrap, sections 13.3 and 14.3.
    """
    scipy_method = {"percentile": "percentile", "bca": "BCa"}[method]
    groups = [_members(units(labels, len(labels))) for labels in animals]
    counts = tuple(len(group) for group in groups)
    value = _number(statistic(*(np.arange(len(labels)) for labels in animals)))
    if min(counts) < MIN_INTERVAL or not np.isfinite(value):
        return Interval(value, float("nan"), float("nan"), level, method, 0, counts)

    def of_animals(*picks: np.ndarray) -> float:
        return _number(statistic(*(_scans(group, p) for group, p in zip(groups, picks, strict=True))))

    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore", stats.DegenerateDataWarning)  # handled by the fallback below
        result = stats.bootstrap(
            [np.arange(count) for count in counts],
            of_animals,
            n_resamples=resamples,
            vectorized=False,
            confidence_level=level,
            method=scipy_method,
            rng=np.random.default_rng(seed),
        )
    drawn, (low, high) = result.bootstrap_distribution, result.confidence_interval
    n_finite = int(np.isfinite(drawn).sum())
    if method == "bca" and np.isfinite([low, high]).all():
        return Interval(value, float(low), float(high), level, method, n_finite, counts)
    return _percentile(value, drawn, level, counts)


def mean_over_pairs(
    values: np.ndarray,
    pairs: np.ndarray,
    first: Labels,
    second: Labels | None = None,
    *,
    resamples: int = RESAMPLES,
    level: float = LEVEL,
    seed: int = 0,
) -> Interval:
    """Percentile interval of the mean over pairs of scans, which share scans and animals.

    An animal counts as often as it is drawn, and a pair as the product of the counts of its two animals, so pairs that
    share an animal are not treated as independent.

    Parameters
    ----------
    values: (k,) of the pairs (k, 2), indices into the two sets, without duplicates.
    first, second: the animal of each scan of the two sets; second None for pairs within the first.

    Source: Efron and Tibshirani 1993, An Introduction to the Bootstrap, section 13.3.
    """
    rng = np.random.default_rng(seed)
    sides = [units(labels, len(labels)) for labels in (first, second) if labels is not None]
    weights = [_weights(side, resamples, rng) for side in sides]
    sums, present = np.zeros((2, len(sides[0]), len(sides[-1])))
    sums[pairs[:, 0], pairs[:, 1]], present[pairs[:, 0], pairs[:, 1]] = values, 1
    total, counted = (((weights[0] @ part) * weights[-1]).sum(axis=1) for part in (sums, present))
    with np.errstate(invalid="ignore"):
        drawn = total / counted
    value = float(np.mean(values)) if len(values) else float("nan")
    counts = tuple(int(side.max(initial=-1)) + 1 for side in sides)
    return _percentile(value, drawn, level, counts)


def jackknife(
    statistic: Callable[..., np.ndarray], *animals: Labels, level: float = LEVEL
) -> tuple[np.ndarray, np.ndarray]:
    """Lower and upper limits (d,) of a statistic with d values, by leaving out one animal at a time.

    For statistics that duplicate animals would distort, such as neighbourhoods. The variance is the sum over the sets
    of (n - 1) / n times the squared deviations, which on average is too large rather than too small for any statistic;
    limits are symmetric, with Student's t for the smallest set. NaN if a set has fewer than 3 animals, or if the
    statistic is undefined without an animal (it raises UserError, or gives NaN).

    Parameters
    ----------
    statistic: takes one array of scan indices per set.
    animals: for each set, the animal of each scan.

    Source: Efron and Stein 1981 (doi:10.1214/aos/1176345462).
    """
    groups = [_members(units(labels, len(labels))) for labels in animals]
    value = np.asarray(statistic(*(np.arange(len(labels)) for labels in animals)), float)
    fewest = min(len(group) for group in groups)
    if fewest < MIN_INTERVAL:
        return np.full_like(value, np.nan), np.full_like(value, np.nan)
    variance = np.zeros_like(value)
    for number, group in enumerate(groups):
        left = []
        for out in range(len(group)):
            picks = [np.arange(len(other)) for other in groups]
            picks[number] = np.delete(picks[number], out)
            try:
                left.append(statistic(*(_scans(g, p) for g, p in zip(groups, picks, strict=True))))
            except UserError:
                left.append(np.full_like(value, np.nan))
        deviations = np.asarray(left, float) - np.mean(left, axis=0)
        variance += (len(group) - 1) / len(group) * (deviations**2).sum(axis=0)
    half = stats.t.ppf((1 + level) / 2, fewest - 1) * np.sqrt(variance)
    return value - half, value + half


def small_sample_warning(animals: int, of: str = "real animals") -> str | None:
    """A sentence on the effect of so few animals on intervals and tests; None if they are enough."""
    if animals >= FEW:
        return None
    if animals < MIN_INTERVAL:
        return (
            f"The number of {of} is only {animals}, so there are no intervals: the uncertainty of these numbers "
            "is unknown, and a real difference may remain undetected."
        )
    if animals < VERY_FEW:
        return (
            f"There are only {animals} {of}: the intervals are hints and mostly too narrow, and a real "
            "difference may remain undetected."
        )
    return (
        f"There are {animals} {of}: the intervals are rough and tend to be too narrow, and only large "
        "differences can be detected."
    )


def _members(unit: np.ndarray) -> list[Indices]:
    """The scans of each animal."""
    order = np.argsort(unit, kind="stable")
    return np.split(order, np.cumsum(np.bincount(unit))[:-1]) if len(unit) else []


def _scans(group: list[Indices], picks: np.ndarray) -> Indices:
    return np.concatenate([group[i] for i in picks])


def _weights(unit: np.ndarray, resamples: int, rng: np.random.Generator) -> np.ndarray:
    """How often each scan is drawn: (resamples, n)."""
    n = int(unit.max(initial=-1)) + 1
    return rng.multinomial(n, np.full(n, 1 / n), size=resamples)[:, unit].astype(float)


def _number(value: float) -> float:
    return float(value) if np.isfinite(value) else float("nan")


def _percentile(value: float, drawn: np.ndarray, level: float, animals: tuple[int, ...]) -> Interval:
    """The limits of the central `level` of the finite resamples."""
    finite = drawn[np.isfinite(drawn)]
    low = high = float("nan")
    if min(animals, default=0) >= MIN_INTERVAL and len(finite) and np.isfinite(value):
        low, high = (float(end) for end in np.quantile(finite, [(1 - level) / 2, (1 + level) / 2]))
    return Interval(value, low, high, level, "percentile", len(finite), animals)
