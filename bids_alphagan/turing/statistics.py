"""Shares, differences, areas and agreement, with intervals that are valid at the ends of the scale."""

import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from scipy import optimize, stats


class Estimate(NamedTuple):
    """A value with its interval (NaN if there is none) and its number of scans."""

    value: float
    low: float
    high: float
    n: float


def wilson(share: float, n: float, level: float = 0.95) -> Estimate:
    """Wilson's score interval of a share in [0, 1]; `n` may be an effective, fractional number.

    Source: Wilson 1927, doi 10.1080/01621459.1927.10502953.
    """
    z = float(stats.norm.ppf(0.5 + level / 2))
    centre = (share + z**2 / (2 * n)) / (1 + z**2 / n)
    half = z / (1 + z**2 / n) * np.sqrt(share * (1 - share) / n + z**2 / (4 * n**2))
    return Estimate(share, max(0.0, float(centre - half)), min(1.0, float(centre + half)), n)


def exact(k: int, n: int, level: float = 0.95) -> Estimate:
    """Clopper and Pearson's exact interval of k of n (doi 10.1093/biomet/26.4.404)."""
    interval = stats.binomtest(k, n).proportion_ci(level, method="exact")
    return Estimate(k / n, float(interval.low), float(interval.high), n)


def effective_n(called: np.ndarray) -> float:
    """Effective number of independent answers of several raters to the same scans.

    called: bool (raters, scans). The number of answers divided by the design effect: the variance of the
    scans' shares over that of independent answers, between 1 (raters guess independently) and the number
    of raters (all answer alike; assumed if nothing varies). Source: Rao and Scott 1992, doi
    10.2307/2532311.
    """
    raters, n = called.shape
    shares, share = called.mean(axis=0), called.mean()
    alone = share * (1 - share) / (n * raters)
    if alone == 0 or n < 2:
        return float(n)
    design = shares.var(ddof=1) / n / alone
    return float(n * raters / np.clip(design, 1, raters))


def share(called: np.ndarray, level: float = 0.95) -> Estimate:
    """Share of True in (raters, scans), with Wilson's interval for the effective number of answers."""
    return wilson(float(called.mean()), effective_n(called), level)


def balanced(synthetic: np.ndarray, real: np.ndarray, level: float = 0.95) -> Estimate:
    """Right answers with real and synthetic scans weighted equally: 0.5 for guessing with any preference.

    synthetic, real: bool (raters, scans), whether these scans were called synthetic. This is one half plus
    half the difference of the two shares; the interval is Newcombe's for a difference (method 10, doi
    10.1002/(SICI)1097-0258(19980430)17:8<873::AID-SIM779>3.0.CO;2-I).
    """
    hits, alarms = share(synthetic, level), share(real, level)
    return _balanced(hits, alarms)


def _balanced(hits: Estimate, alarms: Estimate) -> Estimate:
    difference = hits.value - alarms.value
    low = difference - np.hypot(hits.value - hits.low, alarms.high - alarms.value)
    high = difference + np.hypot(hits.high - hits.value, alarms.value - alarms.low)
    return Estimate(0.5 + difference / 2, float(0.5 + low / 2), float(0.5 + high / 2), hits.n + alarms.n)


def reach(n_synthetic: float, n_real: float, level: float = 0.90) -> float:
    """Half the width of `balanced`'s interval for answers exactly at chance."""
    interval = _balanced(wilson(0.5, n_synthetic, level), wilson(0.5, n_real, level))
    return interval.high - 0.5


def scans_needed(margin: float) -> int:
    """Number of scans (half of them real) with which a guessing rater is found equivalent in four of five tests.

    Normal approximation of two one-sided tests at 5 %, power 80 %, true value 0.5.
    """
    z = stats.norm.ppf(0.95) + stats.norm.ppf(0.9)
    return int(np.ceil((z / (2 * margin)) ** 2))


def auc(synthetic: np.ndarray, real: np.ndarray, level: float = 0.95) -> Estimate:
    """Probability that a synthetic scan is rated more synthetic than a real one; ties count half.

    synthetic, real: (n,) and (m,) ratings, larger for more synthetic. Interval: Newcombe 2006, method 5 (doi
    10.1002/sim.2324), which has a positive width even if the ratings do not overlap.
    """
    n, m = len(synthetic), len(real)
    value = float(stats.mannwhitneyu(synthetic, real).statistic) / (n * m)
    z2, more = float(stats.norm.ppf(0.5 + level / 2)) ** 2, (n + m) / 2 - 1

    def outside(t: float) -> float:
        variance = t * (1 - t) * (1 + more * (1 - t) / (2 - t) + more * t / (1 + t)) / (n * m)
        return (t - value) ** 2 - z2 * variance

    tiny = 1e-9
    low = float(optimize.brentq(outside, 0, min(value, 1 - tiny))) if value > 0 else 0.0
    high = float(optimize.brentq(outside, max(value, tiny), 1)) if value < 1 else 1.0
    return Estimate(value, low, high, n + m)


def cohen(called: np.ndarray) -> float | None:
    """Cohen's kappa of two raters' answers, bool (2, scans); None if chance agreement is complete."""
    observed = (called[0] == called[1]).mean()
    first, second = called.mean(axis=1)
    return _kappa(observed, first * second + (1 - first) * (1 - second))


def fleiss(called: np.ndarray) -> float | None:
    """Fleiss' kappa of several raters' answers, bool (raters, scans); None as for `cohen`.

    Source: Fleiss 1971, doi 10.1037/h0031619.
    """
    return _kappa(pairwise(called).mean(), called.mean() ** 2 + (1 - called.mean()) ** 2)


def pairwise(called: np.ndarray) -> np.ndarray:
    """Share of pairs of raters that agree, per scan: bool (raters, scans) -> (scans,)."""
    raters, yes = len(called), called.sum(axis=0)
    return (yes * (yes - 1) + (raters - yes) * (raters - yes - 1)) / (raters * (raters - 1))


def _kappa(observed: float, by_chance: float) -> float | None:
    return None if by_chance > 1 - 1e-12 else float((observed - by_chance) / (1 - by_chance))


def kappa(called: np.ndarray, draws: int = 2000, seed: int = 0) -> Estimate:
    """Cohen's kappa for two raters, Fleiss' for more, with a 95 % percentile bootstrap over scans."""
    measure: Callable[[np.ndarray], float | None] = cohen if len(called) == 2 else fleiss
    value, n = measure(called), called.shape[1]
    if value is None:
        return Estimate(math.nan, math.nan, math.nan, n)
    rng = np.random.default_rng(seed)
    drawn = [measure(called[:, rng.integers(0, n, n)]) for _ in range(draws)]
    low, high = np.percentile([value for value in drawn if value is not None], (2.5, 97.5))
    return Estimate(value, float(low), float(high), n)
