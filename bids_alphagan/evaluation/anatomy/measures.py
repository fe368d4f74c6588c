"""Volumes of brain and tissues, synthetic versus real: means, spread, and intervals of the differences."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.special import gammaln

from bids_alphagan.common.errors import UserError
from bids_alphagan.evaluation.bootstrap import RESAMPLES, Interval, Labels, bootstrap, units

TISSUES = {"gm": 1, "wm": 2, "csf": 3}
STRUCTURES = ("brain", *TISSUES)
ROUNDING = 1e-12  # of the mean; a smaller spread counts as zero
_Comparison = Callable[[np.ndarray, np.ndarray], float]


@dataclass(frozen=True)
class VolumeComparison:
    """One structure's volumes in mL: means, standard deviations over scans, and the comparison.

    difference: synthetic minus real mean, mL. effect: Hedges' g, the difference in standard deviations.
    spread_ratio: standard deviation of synthetic over real; 1 if the cohort varies as much as the animals.
    """

    structure: str
    real_mean: float
    real_sd: float
    synthetic_mean: float
    synthetic_sd: float
    difference: Interval
    effect: Interval
    spread_ratio: Interval


def tissue_volumes(dseg: np.ndarray, zooms: Sequence[float] | np.ndarray) -> dict[str, float]:
    """Volumes in mL of the brain (all three tissues), GM, WM and CSF.

    dseg: (x, y, z) 0 outside the brain, 1 GM, 2 WM, 3 CSF. zooms: voxel sizes in mm.

    Raises
    ------
    UserError: other labels than these.
    """
    labels = np.unique(dseg)
    if not np.isin(labels, (0, 1, 2, 3)).all():
        raise UserError(f"Tissue labels must be 0, 1 (GM), 2 (WM) or 3 (CSF), not {labels.tolist()}.")
    voxel = float(np.prod(zooms)) / 1000
    volumes = {name: float((dseg == label).sum()) * voxel for name, label in TISSUES.items()}
    return {"brain": sum(volumes.values()), **volumes}


def compare_volumes(
    real: Sequence[Mapping[str, float]],
    synthetic: Sequence[Mapping[str, float]],
    real_animals: Labels | None = None,
    synthetic_animals: Labels | None = None,
    *,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> list[VolumeComparison]:
    """Compare the volumes of two sets of scans (`tissue_volumes`), with BCa intervals over animals.

    real_animals, synthetic_animals: the animal of each scan; None: each scan is an animal.

    Raises
    ------
    UserError: fewer than two scans in a set.
    """
    if min(len(real), len(synthetic)) < 2:
        raise UserError(
            f"Volumes need two or more scans in each set, but there are {len(real)} real and "
            f"{len(synthetic)} synthetic scans."
        )
    animals = (units(real_animals, len(real)), units(synthetic_animals, len(synthetic)))
    rows = []
    for structure in STRUCTURES:
        a, b = (np.array([row[structure] for row in rows_], float) for rows_ in (real, synthetic))

        def interval(function: _Comparison, a: np.ndarray = a, b: np.ndarray = b) -> Interval:
            return bootstrap(
                lambda i, j: function(a[i], b[j]), *animals, resamples=resamples, method="bca", seed=seed
            )

        rows.append(
            VolumeComparison(
                structure=structure,
                real_mean=float(a.mean()),
                real_sd=float(a.std(ddof=1)),
                synthetic_mean=float(b.mean()),
                synthetic_sd=float(b.std(ddof=1)),
                difference=interval(lambda x, y: float(y.mean() - x.mean())),
                effect=interval(hedges_g),
                spread_ratio=interval(spread_ratio),
            )
        )
    return rows


def hedges_g(real: np.ndarray, synthetic: np.ndarray) -> float:
    """Standardised difference of means, synthetic minus real, corrected for the bias of small samples.

    Cohen's d with the pooled standard deviation, times gamma(f / 2) / (sqrt(f / 2) gamma((f - 1) / 2)) with
    f = n + m - 2. NaN if neither set varies or f < 2.

    Source: Hedges 1981 (doi:10.3102/10769986006002107).
    """
    n, m = len(real), len(synthetic)
    free = n + m - 2
    if min(n, m) < 1 or free < 2:
        return float("nan")
    squares = ((real - real.mean()) ** 2).sum() + ((synthetic - synthetic.mean()) ** 2).sum()
    if squares <= (n + m) * (ROUNDING * max(abs(real.mean()), abs(synthetic.mean()))) ** 2:
        return float("nan")
    correction = np.exp(gammaln(free / 2) - gammaln((free - 1) / 2)) / np.sqrt(free / 2)
    return float(correction * (synthetic.mean() - real.mean()) / np.sqrt(squares / free))


def spread_ratio(real: np.ndarray, synthetic: np.ndarray) -> float:
    """Standard deviation of synthetic over that of real; NaN if the real set does not vary."""
    if min(len(real), len(synthetic)) < 2:
        return float("nan")
    spread = real.std(ddof=1)
    return float(synthetic.std(ddof=1) / spread) if spread > ROUNDING * abs(real.mean()) else float("nan")
