"""Distances of sets: Gaussians with known answers, equal, shifted, narrowed and collapsed sets."""

import numpy as np
import pytest

from bids_alphagan.common.errors import UserError
from bids_alphagan.evaluation.distribution.measures import (
    choose_k,
    expected_coverage,
    frechet_distance,
    kernel_mmd,
    neighbourhoods,
)


def gaussian(n: int, seed: int, d: int = 4, mean: float = 0.0, sd: float = 1.0) -> np.ndarray:
    values = np.random.default_rng(seed).normal(0, sd, (n, d))
    values[:, 0] += mean
    return values


def test_mmd_is_the_mean_over_pairs() -> None:
    x, y = gaussian(3, 0, 2), gaussian(4, 1, 2)

    def k(a: np.ndarray, b: np.ndarray) -> float:
        return float(np.exp(-((a - b) ** 2).sum() / (2 * 1.5**2)))

    within = np.mean([k(x[i], x[j]) for i in range(3) for j in range(3) if i != j])
    within += np.mean([k(y[i], y[j]) for i in range(4) for j in range(4) if i != j])
    between = np.mean([k(a, b) for a in x for b in y])
    found = kernel_mmd(x, y, bandwidth=1.5, permutations=9)
    assert found.value == pytest.approx(within - 2 * between)


def test_mmd_is_unbiased_and_meets_its_expectation() -> None:
    """E k(x, y) of Gaussians N(a, 1), N(b, 1) is (1 + 2 / s^2)^(-d / 2) exp(-|a - b|^2 / 2 (s^2 + 2))."""
    for mean in (0.0, 1.5):
        values = [
            kernel_mmd(gaussian(15, s), gaussian(10, s + 500, mean=mean), bandwidth=2, permutations=0).value
            for s in range(300)
        ]
        expected = 2 * (1 + 2 / 4) ** -2 * (1 - np.exp(-(mean**2) / (2 * 6)))
        error = np.std(values) / np.sqrt(len(values))
        assert np.mean(values) == pytest.approx(expected, abs=4 * error)


def test_the_bandwidth_is_the_median_distance() -> None:
    x, y = np.array([[0.0], [1.0]]), np.array([[3.0], [7.0]])
    assert kernel_mmd(x, y, permutations=1).bandwidth == pytest.approx(3.5)  # of 1, 2, 3, 4, 6, 7


def test_mmd_reacts_in_the_right_direction() -> None:
    real = gaussian(30, 0)
    same, near, far = (kernel_mmd(real, gaussian(30, 1, mean=m), permutations=200) for m in (0, 1, 2))
    assert same.value < near.value < far.value
    assert same.p > 0.05
    assert far.p == pytest.approx(1 / 201)
    collapsed = kernel_mmd(real, np.repeat(real[:1], 30, axis=0), permutations=200)
    assert collapsed.p == pytest.approx(1 / 201)
    assert collapsed.value > near.value


@pytest.mark.parametrize("scans", [1, 4])
def test_the_permutation_test_rejects_equal_distributions_as_often_as_it_says(scans: int) -> None:
    """12 real animals with 1 or 4 much alike scans each, and 20 synthetic scans: 5 % below 0.05."""
    rng = np.random.default_rng(7)
    p = []
    animals = np.repeat(np.arange(12), scans)
    for seed in range(200):
        real = rng.normal(size=(12, 4))[animals] * 0.95 + 0.31 * rng.normal(size=(12 * scans, 4))
        p.append(kernel_mmd(real, rng.normal(size=(20, 4)), animals, permutations=39, seed=seed).p)
    assert 0.01 <= np.mean(np.array(p) <= 0.05) <= 0.1
    assert np.mean(p) == pytest.approx(0.5, abs=0.06)


def test_scans_taken_for_animals_are_found_different_by_mistake() -> None:
    """Why animals must be named: the same data, each scan its own animal, are 'different' far too often."""
    rng = np.random.default_rng(8)
    p = []
    for seed in range(100):
        real = rng.normal(size=(12, 4))[np.repeat(np.arange(12), 4)] * 0.95 + 0.31 * rng.normal(size=(48, 4))
        p.append(kernel_mmd(real, rng.normal(size=(20, 4)), permutations=40, seed=seed).p)
    assert np.mean(np.array(p) <= 0.05) > 0.15


def test_neighbourhoods_by_hand() -> None:
    """On a line, k = 1: radii of the real set 1, 1, 5; of the synthetic set 0.5, 0.5, 13.5."""
    real, synthetic = np.array([[0.0], [1.0], [6.0]]), np.array([[0.5], [1.0], [14.5]])
    found = neighbourhoods(real, synthetic, k=1)
    assert found.precision == pytest.approx(2 / 3)
    assert found.recall == pytest.approx(1.0)  # 0 is 0.5 from 0.5; 1 is there; 6 is 8.5 from 14.5
    assert found.density == pytest.approx((2 + 2 + 1) / 3)  # 0.5 is 5.5 from 6, 1 is just 5
    assert found.coverage == pytest.approx(1.0)


def test_equal_distributions_reach_what_is_expected() -> None:
    results = [neighbourhoods(gaussian(20, s), gaussian(40, s + 900), k=3) for s in range(200)]
    expected = expected_coverage(20, 40, 3)
    assert expected == pytest.approx(1 - 19 * 18 * 17 / (59 * 58 * 57))
    assert np.mean([r.coverage for r in results]) == pytest.approx(expected, abs=0.012)
    assert np.mean([r.density for r in results]) == pytest.approx(1, abs=0.05)


def test_neighbourhoods_react_in_the_right_direction() -> None:
    real = gaussian(60, 0)
    same = neighbourhoods(real, gaussian(60, 1))
    far = neighbourhoods(real, gaussian(60, 1, mean=50))
    assert (far.precision, far.recall, far.density, far.coverage) == (0, 0, 0, 0)
    narrow = neighbourhoods(real, gaussian(60, 1, sd=0.2))  # believable, with little variety
    assert narrow.precision > same.precision
    assert narrow.recall < 0.5 * same.recall
    assert narrow.density > same.density
    assert narrow.coverage < 0.7 * same.coverage
    wide = neighbourhoods(real, gaussian(60, 1, sd=4))
    assert wide.precision < 0.5 * same.precision
    assert wide.recall > 0.9
    collapsed = neighbourhoods(real, np.repeat(real[:1], 60, axis=0))
    assert collapsed.precision == 1
    assert collapsed.recall == pytest.approx(1 / 60)
    assert collapsed.coverage < 0.3


def test_scans_of_one_animal_do_not_make_its_neighbourhood_small() -> None:
    animals = np.repeat(np.arange(15), 4)
    real = gaussian(15, 0)[animals] + 1e-3 * gaussian(60, 1)
    synthetic = gaussian(40, 2)
    by_animal = neighbourhoods(real, synthetic, animals, k=3)
    once = neighbourhoods(real[::4], synthetic, k=3)
    numbers = ("precision", "recall", "density", "coverage", "expected_coverage")
    assert [getattr(by_animal, x) for x in numbers] == pytest.approx(
        [getattr(once, x) for x in numbers], abs=0.06
    )
    assert once.precision > 0.5
    assert neighbourhoods(real, synthetic, k=3).precision < 0.1


def test_k_grows_with_the_sets_and_fits_small_ones() -> None:
    assert choose_k(1000, 1000) == 5  # as Naeem et al.
    assert choose_k(20, 100) == 3
    assert choose_k(4, 100) == 1
    with pytest.raises(
        UserError, match="more than 3 animals or scans in each set, not 3 real animals and 9 synthetic"
    ):
        neighbourhoods(gaussian(3, 0), gaussian(9, 1), k=3)


def test_frechet_of_known_gaussians() -> None:
    rng = np.random.default_rng(0)
    real = rng.normal(0, 1, (4000, 3)) * (1, 2, 3)
    synthetic = rng.normal(0, 1, (4000, 3)) * (2, 2, 1) + (1, 0, 0)
    found = frechet_distance(real, synthetic)
    assert found.value == pytest.approx(1 + (1 - 2) ** 2 + 0 + (3 - 1) ** 2, rel=0.05)
    assert frechet_distance(real, real).value == pytest.approx(0, abs=1e-9)
    turn = np.linalg.qr(rng.normal(size=(3, 3)))[0]  # covariances that do not commute with the axes
    assert frechet_distance(real @ turn, synthetic @ turn).value == pytest.approx(found.value)


def test_frechet_is_refused_where_n_is_too_small() -> None:
    animals = np.repeat(np.arange(10), 10)
    found = frechet_distance(gaussian(100, 0), gaussian(100, 1), animals)
    assert found.value is None
    assert "10 real animals and 100 synthetic scans are too few for 4 features" in str(found.reason)
    assert frechet_distance(gaussian(100, 0), gaussian(100, 1)).value is not None


def test_bad_features_are_refused() -> None:
    good, bad = gaussian(5, 0), gaussian(5, 1)
    bad[3, 1] = np.nan
    with pytest.raises(UserError, match="scan 3 of set 1"):
        kernel_mmd(good, bad)
    with pytest.raises(UserError, match="same features"):
        neighbourhoods(good, gaussian(5, 0, d=3))
    with pytest.raises(UserError, match="two animals in each set, not 1 real"):
        kernel_mmd(good, gaussian(5, 1), ["a"] * 5)
