"""Bootstrap over animals: against scipy, against known coverage, and for repeated scans of one animal."""

import numpy as np
import pytest
from scipy import stats

from bids_alphagan.common.errors import UserError
from bids_alphagan.evaluation.bootstrap import (
    bootstrap,
    jackknife,
    mean_over_pairs,
    small_sample_warning,
    units,
)


def test_agrees_with_scipy_where_each_animal_has_one_scan() -> None:
    rng = np.random.default_rng(0)
    a, b = rng.gamma(2.0, size=25), rng.gamma(2.0, size=30)
    for method, theirs in (("percentile", "percentile"), ("bca", "BCa")):
        got = bootstrap(
            lambda i, j: a[i].std() - b[j].mean(), range(25), range(30), resamples=2000, method=method
        )
        expected = stats.bootstrap(
            (a, b),
            lambda x, y, axis: x.std(axis) - y.mean(axis),
            n_resamples=2000,
            method=theirs,
            vectorized=True,
            rng=np.random.default_rng(1),
        ).confidence_interval
        assert got.method == method
        assert got.value == pytest.approx(a.std() - b.mean())
        assert (got.low, got.high) == pytest.approx(tuple(expected), abs=0.06)


def test_the_acceleration_is_scipys() -> None:
    """A skewed statistic of few values: BCa is far from percentile, and where scipy has it."""
    a = np.random.default_rng(3).lognormal(0, 1, size=12)
    plain, corrected = (
        bootstrap(lambda i: a[i].var(), range(12), resamples=3000, method=m) for m in ("percentile", "bca")
    )
    expected = stats.bootstrap(
        (a,), np.var, n_resamples=3000, method="BCa", vectorized=True, rng=np.random.default_rng(1)
    ).confidence_interval
    assert corrected.high == pytest.approx(expected.high, rel=0.1)
    assert abs(plain.high - expected.high) > 2 * abs(corrected.high - expected.high)


def test_intervals_hold_the_truth_as_often_as_they_say() -> None:
    """Means of 30 animals with 4 scans each: about 95 % over animals, far fewer if scans were drawn."""
    rng = np.random.default_rng(1)
    animals = np.repeat(np.arange(30), 4)
    held = np.zeros(2)
    for number in range(100):
        values = rng.normal(size=30)[animals] + 0.3 * rng.normal(size=120)
        for way, labels in enumerate((animals, np.arange(120))):
            found = bootstrap(lambda i, v=values: v[i].mean(), labels, resamples=150, seed=number)
            held[way] += found.low <= 0 <= found.high
    assert 0.87 <= held[0] / 100 <= 0.99
    assert held[1] / 100 < 0.8


def every_pair(n: int, m: int) -> np.ndarray:
    return np.indices((n, m)).reshape(2, -1).T


def test_pairs_by_weights_are_pairs_by_index() -> None:
    rng = np.random.default_rng(2)
    matrix = rng.random((12, 9))
    rows, columns = np.repeat(np.arange(6), 2), np.arange(9)
    quick = mean_over_pairs(matrix.ravel(), every_pair(12, 9), rows, columns, resamples=2000)
    slow = bootstrap(lambda i, j: matrix[np.ix_(i, j)].mean(), rows, columns, resamples=2000, seed=5)
    assert quick.value == pytest.approx(slow.value)
    assert (quick.low, quick.high) == pytest.approx((slow.low, slow.high), abs=0.01)
    assert quick.animals == slow.animals == (6, 9)


def test_an_animal_with_many_scans_counts_once() -> None:
    """Values that differ between animals alone: the interval is that of the animals, not of the pairs."""
    effect = np.random.default_rng(0).normal(size=8)
    pairs = every_pair(80, 80)
    found = mean_over_pairs(effect[pairs[:, 0] // 10], pairs, np.arange(80) // 10, np.arange(80))
    assert (found.high - found.low) / 2 == pytest.approx(1.96 * effect.std() / np.sqrt(8), rel=0.15)


def test_intervals_over_pairs_hold_the_truth_as_often_as_they_say() -> None:
    """Pairs' values are sums of two animals' effects with mean 0: 95 % intervals hold 0 in most draws."""
    held, pairs = 0, every_pair(20, 20)
    for seed in range(100):
        a, b = np.random.default_rng(seed).normal(size=(2, 20))
        values = a[pairs[:, 0]] + b[pairs[:, 1]]
        found = mean_over_pairs(values, pairs, range(20), range(20), resamples=300, seed=seed)
        held += found.low < 0 < found.high
    assert 86 <= held <= 99


def test_pairs_within_a_set_are_drawn_together() -> None:
    """Of three animals, two must be drawn for their one pair to be there: no other value comes out."""
    found = mean_over_pairs(np.array([0.3]), np.array([[0, 1]]), ["a", "b", "c"])
    assert (found.value, found.low, found.high) == pytest.approx((0.3, 0.3, 0.3))
    assert 0 < found.resamples < 2000
    assert found.animals == (3,)


def test_nothing_is_said_of_two_animals_or_no_pair() -> None:
    pairs = np.array([[0, 0], [0, 1], [0, 2], [1, 0]])
    two, three = (
        mean_over_pairs(np.arange(4.0), pairs, first, ["c", "d", "e"])
        for first in (["a", "b"], ["a", "b", "f"])
    )
    assert np.isnan([two.low, two.high]).all()
    assert three.low < three.value < three.high
    none = mean_over_pairs(np.ones(0), pairs[:0], ["a", "b", "c"])
    assert np.isnan([none.value, none.low, none.high]).all()


def test_the_seed_decides() -> None:
    values = np.random.default_rng(0).random(10)
    one, same, other = (bootstrap(lambda i: values[i].mean(), range(10), seed=s) for s in (1, 1, 2))
    assert one == same
    assert one.low != other.low


@pytest.mark.parametrize("labels", [["a", "a", "a"], ["a", "a", "b"]])
def test_two_animals_have_no_interval(labels: list[str]) -> None:
    found = bootstrap(lambda i: float(len(i)), labels)
    assert found.value == 3
    assert np.isnan([found.low, found.high]).all()


def test_a_constant_statistic_falls_back_to_percentile() -> None:
    found = bootstrap(lambda i: 2.0, range(5), method="bca", resamples=50)
    assert (found.low, found.high, found.method) == (2.0, 2.0, "percentile")


def test_labels_must_fit() -> None:
    assert units(["b", "a", "b"], 3).tolist() == [0, 1, 0]
    with pytest.raises(UserError, match="2 animals are given for 3 scans"):
        units(["a", "b"], 3)


def test_a_small_number_of_animals_is_noted() -> None:
    assert small_sample_warning(20) is None
    assert "12 real animals" in str(small_sample_warning(12))
    assert "hints" in str(small_sample_warning(4))
    assert "hints" not in str(small_sample_warning(12))
    assert "hints" in str(small_sample_warning(3))
    for n in (1, 2):
        assert f"number of held-out animals is only {n}" in str(small_sample_warning(n, "held-out animals"))


def test_the_jackknife_of_means_is_the_t_interval_of_animals() -> None:
    """Of two means, its variance is the sum of theirs; scans of one animal count as one."""
    rng = np.random.default_rng(1)
    a, b = rng.normal(size=12), rng.normal(2, 3, size=9)
    low, high = jackknife(lambda i, j: np.array([a[i].mean() - b[j].mean()]), range(12), range(9))
    error = np.sqrt(a.var(ddof=1) / 12 + b.var(ddof=1) / 9)
    half = stats.t.ppf(0.975, 8) * error
    assert (high[0] - low[0]) / 2 == pytest.approx(half)
    assert (high[0] + low[0]) / 2 == pytest.approx(a.mean() - b.mean())
    twice = np.repeat(a, 2)
    alike = jackknife(
        lambda i, j: np.array([twice[i].mean() - b[j].mean()]), np.repeat(range(12), 2), range(9)
    )
    assert alike[1][0] - alike[0][0] == pytest.approx(2 * half)


def test_the_jackknife_says_nothing_of_two_animals_or_of_what_is_undefined() -> None:
    def undefined(i: np.ndarray) -> np.ndarray:
        if len(i) < 4:
            raise UserError("too few")
        return np.array([1.0])

    assert np.isnan(jackknife(lambda i: np.array([1.0, 2.0]), ["a", "a", "b"])).all()
    assert np.isnan(jackknife(undefined, range(4))).all()
    assert jackknife(lambda i: np.array([1.0]), range(4))[0] == [1.0]
