"""Intervals, gains, and the sentences about them."""

from collections.abc import Sequence

import numpy as np
import pytest
from scipy import stats

from bids_alphagan.evaluation.downstream.arms import (
    Arm,
)
from bids_alphagan.evaluation.downstream.summary import (
    hardly_learned,
    over_animals,
    over_seeds,
    sentence,
    sentences,
    summarise,
)


def test_intervals_of_few_values() -> None:
    assert over_animals([0.3, 0.4]) == (None, None)
    assert over_animals([0.1, 0.2, 0.6]) == pytest.approx((0.1, 0.6))
    assert over_animals([0.25] * 5) == (0.25, 0.25)
    assert over_seeds([0.3]) == (None, None)
    values = [0.1, 0.4, 0.3, 0.2]
    low, high = stats.t.interval(0.95, 3, np.mean(values), stats.sem(values))
    assert over_seeds(values) == pytest.approx((low, high))


def test_intervals_of_many_values_are_the_normal_ones() -> None:
    values = np.random.default_rng(1).normal(3, 2, 400)
    expected = stats.t.interval(0.95, 399, values.mean(), stats.sem(values))
    assert over_animals(values.tolist()) == pytest.approx(expected, abs=0.02)
    assert over_animals(values.tolist()) == over_animals(values.tolist())


def test_intervals_over_eight_animals_cover_the_mean_as_often_as_they_say() -> None:
    drawn = np.random.default_rng(1).normal(0, 1, (200, 8))
    covered = np.mean([not over_animals(values.tolist()).excludes_0 for values in drawn])
    assert 0.91 <= covered <= 0.98


def rows_of(gains: Sequence[Sequence[float]], distance: float = 0.0) -> list[dict]:
    """Rows of r1 and r1+s1 for gains (animals, seeds) in Dice; `distance` is gained in mm."""
    return [
        {
            **{"arm": arm, "seed": seed, "animal": str(animal), "scan": f"s{n}", "tissue": "GM"},
            **{"dice": 0.8 + animal / 100 + n / 50 + extra, "surface_distance": 1 - (arm != "r1") * distance},
        }
        for animal, of_animal in enumerate(gains)
        for seed, gain in enumerate(of_animal)
        for arm, extra in (("r1", 0.0), ("r1+s1", gain))
        for n in range(1 + animal % 2)  # some animals have two scans and count as much as the others
    ]


def gained(rows: list[dict], measured: str = "dice") -> dict:
    summary = summarise(rows, (Arm(1), Arm(1, 1)))
    return next(row for row in summary if row["gain"] is not None and row["measure"] == measured)


def test_summary_by_hand() -> None:
    gains = [[0.02, 0.04], [0.05, 0.03], [0.01, 0.05], [0.06, 0.04], [0.03, 0.03], [0.02, 0.02]]
    rows = rows_of(gains, distance=0.25)
    row = gained(rows)
    means = np.mean(gains, axis=1)
    assert (row["arm"], row["compared_with"], row["n_animals"], row["n_seeds"]) == ("r1+s1", "r1", 6, 2)
    assert row["gain"] == pytest.approx(np.mean(gains))
    assert (row["gain_low"], row["gain_high"]) == pytest.approx(over_animals(means))
    seeds = np.mean(gains, axis=0)
    assert (row["gain_low_seeds"], row["gain_high_seeds"]) == pytest.approx(over_seeds(seeds))
    animals = [0.8 + i / 100 + (i % 2) / 100 + means[i] for i in range(6)]
    assert row["mean"] == pytest.approx(np.mean(animals))
    assert (row["low"], row["high"]) == pytest.approx(over_animals(animals))
    assert gained(rows, "surface_distance")["gain"] == pytest.approx(0.25)  # smaller is better
    real = next(row for row in summarise(rows, (Arm(1), Arm(1, 1))) if row["arm"] == "r1")
    assert (real["gain"], real["resolved"], real["compared_with"]) == (None, None, None)


CLEAR = [[0.03, 0.031], [0.04, 0.041], [0.03, 0.032], [0.02, 0.021], [0.03, 0.029], [0.04, 0.04]]


@pytest.mark.parametrize(
    ("gains", "resolved", "words"),
    [
        (CLEAR, "yes", "higher than on all real scans: resolved with 6 animals and 2 seeds."),
        ([[-x for x in of] for of in CLEAR], "yes", "lower than on all real scans: resolved with 6"),
        (
            [*CLEAR[:4], [-0.2, -0.2], [0.2, 0.2]],
            "no",
            "the interval includes 0, not resolved with 6 animals",
        ),
        (CLEAR[:5], "no", "5 animals are too few to resolve any gain; 6 are needed"),
        (CLEAR[:2], "no", "higher than on all real scans: 2 animals are too few to resolve any gain"),
        ([of[:1] for of in CLEAR], "no", "not resolved, because a single training of each may be luck"),
        ([[0.0, 0.06]] * 6, "no", "not resolved, because trainings differ as much between seeds (2 seeds)"),
    ],
)
def test_a_sentence_says_whether_the_gain_is_resolved_and_why_not(gains, resolved, words) -> None:
    rows = rows_of(gains)
    row = gained(rows)
    assert row["resolved"] == resolved
    texts = sentences(summarise(rows, (Arm(1), Arm(1, 1))), (Arm(1), Arm(1, 1)))
    text = next(one["text"] for one in texts if one["measure"] == "dice")
    assert words in text
    assert text.startswith(
        "Trained on all real scans and synthetic scans (as many as all real), the network's"
    )


def test_networks_that_have_not_learned_are_warned_of() -> None:
    """By real scans alone, each tissue for itself: what synthetic scans do with it is no matter."""
    row = {"arm": "r1", "measure": "dice"}
    rows = [row | {"tissue": tissue, "mean": mean} for tissue, mean in (("GM", 0.31), ("WM", 0.02))]
    rows += [{"arm": "s1", "measure": "dice", "tissue": "CSF", "mean": 0.1}]
    rows += [row | {"measure": "surface_distance", "tissue": "GM", "mean": 0.2}]
    [note] = hardly_learned(rows, 20)
    assert "hardly find WM (0.020): a Dice below 0.3 after 20 steps" in note
    assert "--downstream-steps" in note
    assert hardly_learned([one for one in rows if one["tissue"] != "WM"], 20) == []


def test_a_loss_is_given_with_its_interval_turned_round() -> None:
    row = {"measure": "surface_distance", "tissue": "WM", "gain": -0.2, "gain_low": -0.3, "gain_high": -0.1}
    text = sentence({**row, "n_animals": 6, "n_seeds": 2, "resolved": "yes"}, "A", "B")
    assert "the network's WM surface distance (mm) is 0.200 [0.100, 0.300] larger than on B" in text
