"""Volumes against hand-made masks; effect sizes of known populations; shifted, narrowed, collapsed sets."""

import numpy as np
import pytest

from bids_alphagan.common.errors import UserError
from bids_alphagan.evaluation.anatomy.measures import (
    STRUCTURES,
    VolumeComparison,
    compare_volumes,
    hedges_g,
    spread_ratio,
    tissue_volumes,
)


def rows(n: int, seed: int, shift: float = 0.0, spread: float = 1.0) -> list[dict[str, float]]:
    """Volumes about 2 mL with standard deviation 0.1 (times `spread`), shifted by `shift` of those."""
    values = 2 + 0.1 * (spread * np.random.default_rng(seed).normal(size=(n, 4)) + shift)
    return [dict(zip(STRUCTURES, row, strict=True)) for row in values]


def compared(*sets: list[dict[str, float]], **options: object) -> dict[str, VolumeComparison]:
    return {row.structure: row for row in compare_volumes(*sets, resamples=300, **options)}


def test_volumes_of_a_mask() -> None:
    dseg = np.zeros((7, 8, 9), np.uint8)
    dseg[:2, :5, 0], dseg[2, :3, 0], dseg[3, 0, 0] = 1, 2, 3
    voxel = 0.5 * 0.75 * 1.25 / 1000
    expected = {"brain": 14 * voxel, "gm": 10 * voxel, "wm": 3 * voxel, "csf": voxel}
    assert tissue_volumes(dseg, (0.5, 0.75, 1.25)) == pytest.approx(expected)
    dseg[6, 6, 6] = 4
    with pytest.raises(UserError, match="not \\[0, 1, 2, 3, 4\\]"):
        tissue_volumes(dseg, (1, 1, 1))


def test_hedges_g_by_hand() -> None:
    """Means 2 and 4, variances 1 and 1: d = 2; the exact correction for 4 degrees of freedom is 0.7979."""
    a, b = np.array([1.0, 2, 3]), np.array([3.0, 4, 5])
    assert hedges_g(a, b) == pytest.approx(2 * 0.797885, rel=1e-5)
    assert hedges_g(b, a) == pytest.approx(-2 * 0.797885, rel=1e-5)
    assert np.isnan(hedges_g(np.ones(3), np.ones(3)))


def test_hedges_g_is_unbiased_where_cohens_d_is_not() -> None:
    rng = np.random.default_rng(0)
    g = [hedges_g(rng.normal(size=4), rng.normal(1, 1, size=4)) for _ in range(6000)]
    assert np.mean(g) == pytest.approx(1, abs=0.05)  # d would be 1.15


def test_equal_sets_do_not_differ() -> None:
    for row in compared(rows(30, 0), rows(30, 0)).values():
        assert row.difference.value == 0
        assert row.effect.value == 0
        assert row.spread_ratio.value == 1
        assert row.effect.low < 0 < row.effect.high
        assert row.spread_ratio.low < 1 < row.spread_ratio.high


def test_shifted_and_narrowed_sets_are_found() -> None:
    found = compared(rows(40, 0), rows(40, 1, shift=2, spread=0.5))
    for row in found.values():
        assert row.difference.low < 0.2 < row.difference.high
        assert row.difference.low > 0.1
        assert row.effect.value == pytest.approx(2 / np.sqrt((1 + 0.25) / 2), rel=0.3)
        assert row.effect.low > 0.8
        assert row.spread_ratio.high < 0.8
        assert row.synthetic_mean - row.real_mean == pytest.approx(row.difference.value)
        assert row.synthetic_sd / row.real_sd == pytest.approx(row.spread_ratio.value)


def test_a_collapsed_set_has_no_spread() -> None:
    real = rows(20, 0)
    for row in compared(real, [real[3]] * 10).values():
        assert (row.spread_ratio.value, row.spread_ratio.high) == pytest.approx((0, 0), abs=1e-9)


def test_sessions_of_one_animal_widen_the_interval() -> None:
    real = [row for row in rows(8, 0) for _ in range(5)]
    animals = np.repeat(np.arange(8), 5)
    by_animal, by_scan = compared(real, rows(60, 1), real_animals=animals), compared(real, rows(60, 1))
    wide, narrow = (found["brain"].difference for found in (by_animal, by_scan))
    assert wide.value == narrow.value
    assert wide.high - wide.low > 1.4 * (narrow.high - narrow.low)
    assert wide.animals == (8, 60)


def test_single_scans_are_refused() -> None:
    with pytest.raises(UserError, match="2 real and 1 synthetic"):
        compare_volumes(rows(2, 0), rows(1, 0))
    assert np.isnan(spread_ratio(np.ones(3), np.arange(3.0)))
