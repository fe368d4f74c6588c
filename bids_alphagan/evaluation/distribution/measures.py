"""Distances between two sets of scans."""

from dataclasses import dataclass

import numpy as np
from scipy.spatial.distance import cdist

from bids_alphagan.common.errors import UserError
from bids_alphagan.evaluation.bootstrap import Labels, units

FRECHET_ANIMALS = 5  # per dimension; with fewer, noise contributes over a tenth of the features' variance


@dataclass(frozen=True)
class KernelMMD:
    """value: unbiased squared MMD, which may be slightly below 0. p: of the permutation test.

    bandwidth: of the Gaussian kernel, in units of the features. animals: number in each set.
    """

    value: float
    p: float
    bandwidth: float
    permutations: int
    animals: tuple[int, int]


@dataclass(frozen=True)
class Neighbourhoods:
    """Precision, recall and coverage in [0, 1], and density, with the k-th nearest neighbour as radius.

    expected_coverage: mean coverage of a synthetic set from the real scans' own distribution, with these numbers of
    scans; the expected density is 1.
    """

    precision: float
    recall: float
    density: float
    coverage: float
    expected_coverage: float
    k: int


@dataclass(frozen=True)
class Frechet:
    """value: squared Fréchet distance, or None with the `reason` why these scans do not allow it."""

    value: float | None
    reason: str | None


def kernel_mmd(
    real: np.ndarray,
    synthetic: np.ndarray,
    real_animals: Labels | None = None,
    synthetic_animals: Labels | None = None,
    *,
    bandwidth: float | None = None,
    permutations: int = 1000,
    seed: int = 0,
) -> KernelMMD:
    r"""Unbiased squared maximum mean discrepancy with a Gaussian kernel, and its permutation test.

    :math:`k(x, y) = \exp(-\|x - y\|^2 / 2\sigma^2)`, where sigma is the median distance of pooled scans of
    different animals. An animal counts once: over several scans, the kernel is averaged. For the test, each
    permutation draws one scan of each animal and compares their true labels with random ones (within-cluster
    resampling), since scans of one animal are not exchangeable with others.
    p is the share of permutations with at least the same difference, plus one in both counts, and is valid for any n.

    Parameters
    ----------
    real, synthetic: (n, d) and (m, d) features, standardised so that none dominates by its unit.
    real_animals, synthetic_animals: the animal of each scan; None: each scan is an animal.

    Raises
    ------
    UserError: fewer than two animals in a set.

    Source: Gretton et al. 2012, equation 3 and section 5 (JMLR 13:723-773).
    """
    check_features(real, synthetic)
    first, second = units(real_animals, len(real)), units(synthetic_animals, len(synthetic))
    n, m = int(first.max()) + 1, int(second.max()) + 1
    if min(n, m) < 2:
        raise UserError(f"The MMD needs two animals in each set, not {n} real and {m} synthetic.")
    unit = np.concatenate([first, second + n])
    distances = cdist(pooled := np.vstack([real, synthetic]), pooled)
    if bandwidth is None:
        bandwidth = float(np.median(distances[unit[:, None] != unit[None, :]])) or 1.0
    kernel = np.exp(-(distances**2) / (2 * bandwidth**2))
    share = np.eye(n + m)[unit].T / np.bincount(unit)[:, None]
    labels = np.arange(n + m) < n
    value = float(_mmd(share @ kernel @ share.T, labels[None])[0])

    rng = np.random.default_rng(seed)
    dealt = rng.permuted(np.tile(labels, (permutations, 1)), axis=1)
    if len(unit) == n + m:
        beaten = int((_mmd(kernel, dealt) >= value - 1e-12).sum())
    else:
        scans, beaten = [np.flatnonzero(unit == i) for i in range(n + m)], 0
        for deal in dealt:
            chosen = np.array([own[rng.integers(len(own))] for own in scans])
            observed, permuted = _mmd(kernel[np.ix_(chosen, chosen)], np.stack([labels, deal]))
            beaten += int(permuted >= observed - 1e-12)
    p = (1 + beaten) / (1 + permutations)
    return KernelMMD(value, float(p), bandwidth, permutations, (n, m))


def _mmd(kernel: np.ndarray, first: np.ndarray) -> np.ndarray:
    """Equation 3 for each row of labels (b, n + m), True in the first set: (b,).

    Means over pairs of different members within each set, minus twice the mean between them.
    """
    own = kernel - np.diag(np.diag(kernel))
    x, y = first.astype(float), (~first).astype(float)
    n, m = x.sum(axis=1), y.sum(axis=1)
    within = ((x @ own) * x).sum(axis=1) / (n * (n - 1)) + ((y @ own) * y).sum(axis=1) / (m * (m - 1))
    return np.asarray(within - 2 * ((x @ kernel) * y).sum(axis=1) / (n * m))


def neighbourhoods(
    real: np.ndarray, synthetic: np.ndarray, real_animals: Labels | None = None, k: int | None = None
) -> Neighbourhoods:
    """Precision, recall, density and coverage of a synthetic set.

    A scan's neighbourhood reaches to the k-th nearest other animal of its own set, and an animal counts
    once. Precision: the share of synthetic scans in some real neighbourhood. Recall: the share of real ones
    in some synthetic neighbourhood. Density: the number of real neighbourhoods that contain a synthetic scan, over k.
    Coverage: the share of real neighbourhoods that contain a synthetic scan.

    Parameters
    ----------
    real, synthetic: (n, d) and (m, d) standardised features.
    real_animals: the animal of each real scan; None: each scan is an animal.
    k: default `choose_k`.

    Raises
    ------
    UserError: a set has no more than k animals or scans.

    Sources: Kynkäänniemi et al. 2019 (arXiv:1904.06991), Naeem et al. 2020 (arXiv:2002.09797), equations 3-4
    and 6.
    """
    check_features(real, synthetic)
    animals = units(real_animals, len(real))
    n, m = int(animals.max()) + 1, len(synthetic)
    k = choose_k(n, m) if k is None else k
    if k < 1 or min(n, m) <= k:
        raise UserError(
            f"Neighbourhoods of {k} scans need more than {k} animals or scans in each set, not {n} real "
            f"animals and {m} synthetic scans."
        )
    radii = _radii(cdist(real, real), animals, k)
    synthetic_radii = _radii(cdist(synthetic, synthetic), np.arange(m), k)
    between = cdist(real, synthetic)
    inside = between <= radii[:, None]
    weight = 1 / np.bincount(animals)[animals]
    return Neighbourhoods(
        precision=float(inside.any(axis=0).mean()),
        recall=float(weight @ (between <= synthetic_radii[None, :]).any(axis=1) / n),
        density=float((weight @ inside).mean() / k),
        coverage=float(weight @ inside.any(axis=1) / n),
        expected_coverage=expected_coverage(n, m, k),
        k=k,
    )


def _radii(distances: np.ndarray, animals: np.ndarray, k: int) -> np.ndarray:
    """Each scan's distance to the k-th nearest other animal, represented by its nearest scan: (n,)."""
    order = np.argsort(animals, kind="stable")
    first = np.searchsorted(animals[order], np.arange(animals.max() + 1))
    nearest = np.minimum.reduceat(distances[:, order], first, axis=1)  # of each animal
    nearest[np.arange(len(animals)), animals] = np.inf
    return np.asarray(np.partition(nearest, k - 1, axis=1)[:, k - 1])


def expected_coverage(real: int, synthetic: int, k: int) -> float:
    """Expected coverage if both sets come from one distribution: Naeem et al. 2020, lemma 2.

    A real scan is not covered if its k nearest, of all other real and all synthetic scans, are real.
    """
    missed = 1.0
    for i in range(k):
        missed *= max(real - 1 - i, 0) / (real + synthetic - 1 - i)
    return 1 - missed


def choose_k(real: int, synthetic: int) -> int:
    """The smallest k, from 3 on, for which an ideal synthetic set covers 95 % of the real scans.

    Kynkäänniemi et al. use 3; 95 % is the criterion by which Naeem et al. chose 5 for large sets of equal size.
    At most half of the smaller set, because larger neighbourhoods would contain everything.
    """
    most = max((min(real, synthetic) - 1) // 2, 1)
    enough = (k for k in range(3, most) if expected_coverage(real, synthetic, k) >= 0.95)
    return min(next(enough, most), most)


def frechet_distance(
    real: np.ndarray,
    synthetic: np.ndarray,
    real_animals: Labels | None = None,
    *,
    per_dimension: int = FRECHET_ANIMALS,
) -> Frechet:
    """Squared Fréchet distance of Gaussians: :math:`|a - b|^2 + tr(A + B - 2 (A^{1/2} B A^{1/2})^{1/2})`.

    Covariances of few scans in many dimensions are mostly noise, and two sets from one distribution are then far
    apart. So no distance is given if a set has fewer than 5 animals per dimension.

    Parameters
    ----------
    real, synthetic: (n, d) and (m, d) features.

    Sources: Dowson and Landau 1982 (doi:10.1016/0047-259X(82)90077-X); Heusel et al. 2017 (arXiv:1706.08500).
    """
    check_features(real, synthetic)
    n, m, d = int(units(real_animals, len(real)).max()) + 1, len(synthetic), real.shape[1]
    need = per_dimension * d
    if min(n, m) < need:
        return Frechet(
            None,
            f"{n} real animals and {m} synthetic scans are too few for {d} features: the covariances would "
            f"be noise, and the distance far from 0 even for new real animals. At least {need} of each are needed.",
        )
    a, b = np.atleast_2d(np.cov(real, rowvar=False)), np.atleast_2d(np.cov(synthetic, rowvar=False))
    values, vectors = np.linalg.eigh(a)
    root = vectors * np.sqrt(values.clip(min=0)) @ vectors.T
    cross = np.sqrt(np.linalg.eigvalsh(root @ b @ root).clip(min=0)).sum()
    means = ((real.mean(axis=0) - synthetic.mean(axis=0)) ** 2).sum()
    return Frechet(float(max(means + np.trace(a) + np.trace(b) - 2 * cross, 0.0)), None)


def check_features(*sets: np.ndarray) -> None:
    """Raise UserError unless the sets are finite (n, d) arrays of one d, with at least one scan each."""
    for number, features in enumerate(sets):
        if features.ndim != 2 or not features.size or features.shape[1] != sets[0].shape[1]:
            shapes = " and ".join(str(s.shape) for s in sets)
            raise UserError(
                f"Features must be (scans, features) with the same features in each set: {shapes}."
            )
        bad = np.flatnonzero(~np.isfinite(features).all(axis=1))
        if len(bad):
            raise UserError(
                f"Features of scan {bad[0]} of set {number} are not finite ({len(bad)} such scans). Check "
                "that scan, or leave it out."
            )
