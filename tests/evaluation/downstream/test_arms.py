"""Who trains on what."""

from pathlib import Path

import numpy as np
import pytest
from toy_scans import QUICK, REAL, SYNTHETIC, try_out

from bids_alphagan.cli import main as cli
from bids_alphagan.common.errors import UserError
from bids_alphagan.evaluation.downstream.arms import (
    ARMS,
    PAPER_TESTS,
    Arm,
    check_split,
    choose,
    possible,
    read_arm,
    references,
)
from bids_alphagan.evaluation.downstream.experiment import run
from bids_alphagan.evaluation.downstream.summary import (
    headline,
)
from bids_alphagan.evaluation.downstream.table import settings_of


def test_the_ten_tests_take_the_papers_numbers_of_scans() -> None:
    animals = [f"{n:03d}" for n in range(174)]
    sizes = [tuple(map(len, choose(arm, animals, 348, seed=0))) for arm in PAPER_TESTS]
    table4 = [(174, 0), (174, 87), (174, 174), (174, 261), (174, 348), (0, 174), (0, 348), (87, 174)]
    assert sizes == [*table4, (87, 348), (174, 0)]
    assert [arm.augment for arm in PAPER_TESTS] == [False] * 9 + [True]
    paper = settings_of(cli.parse(["in", "out", "group", "--preset", "paper"]).settings("downstream"))
    assert paper.arms == PAPER_TESTS


def test_names_and_words_of_arms() -> None:
    assert [arm.name for arm in ARMS] == [
        "r1",
        "r1+s0.5",
        "r1+s1",
        "s1",
        "r0.5",
        "r0.5+s1",
        "r1+a",
        "r1+s1+a",
    ]
    assert Arm(0.5, 2).label == "half of the real scans and synthetic scans (twice as many as all real)"
    assert Arm(0, 1).label == "synthetic scans (as many as all real) alone"
    assert Arm(1, augment=True).label == "all real scans, augmented"
    assert (Arm(1, 1, True), Arm(1, 0, True)) in references(ARMS)
    assert [other for arm, other in references(ARMS) if arm == Arm(0.5, 1)] == [Arm(1), Arm(0.5)]


def test_arms_are_read_by_their_names() -> None:
    for arm in {*ARMS, *PAPER_TESTS, Arm(0.25, 3, True), Arm(0, 0.5, True)}:
        assert read_arm(arm.name) == arm
    for name in (
        "",
        "a",
        "r2",
        "s0",
        "r1s1",
        "r1+s1+b",
        "r1.0",
        "r1+",
        "+s1",
        "r.",
        "r1+a+s1",
        "r-1",
        "r1\n",
    ):
        with pytest.raises(UserError, match="--downstream-arms"):
            read_arm(name)


def test_the_report_leads_with_the_plainest_question() -> None:
    assert headline(ARMS) == headline(PAPER_TESTS) == Arm(1, 1)
    assert headline([Arm(1), Arm(1, 0.5), Arm(1, 0.5, True), Arm(0, 1)]) == Arm(1, 0.5)
    assert headline([Arm(1), Arm(0, 1), Arm(0.5, 2)]) == Arm(0.5, 2)


def test_shares_are_of_animals_nested_and_drawn_again_by_each_seed() -> None:
    animals = list("aaabbcdddd")
    half, synthetic = choose(Arm(0.5, 1), animals, 30, seed=3)
    chosen = {animals[i] for i in half}
    assert len(chosen) == 2
    assert half == [i for i, animal in enumerate(animals) if animal in chosen]
    assert len(synthetic) == 10
    assert set(synthetic) < set(choose(Arm(0.5, 2), animals, 30, seed=3)[1])
    assert choose(Arm(0.5, 1), animals, 30, seed=3) == (half, synthetic)
    assert len({tuple(choose(Arm(0.5, 1), animals, 30, seed=s)[0]) for s in range(9)}) > 2


@pytest.mark.parametrize(
    ("held_out", "trained_on", "message"),
    [
        ("efg", "abfe", r"the generator was trained on held-out animals \(sub-e, sub-f\)"),
        ("efx", "ab", "no real scan with masks of the held-out sub-x"),
        ("g", "ab", "1 held out, 6 left for training"),
        ("bcdefg", "a", "6 held out, 1 left for training"),
    ],
)
def test_what_cannot_be_tested_is_refused_before_anything_is_written(tmp_path, held_out, trained_on, message):
    with pytest.raises(UserError, match=message):
        try_out(tmp_path / "new", held_out=held_out, trained_on=trained_on)
    assert not (tmp_path / "new").exists()
    check_split(set("abcdefg"), "efg", "abcd")


def test_arms_without_enough_synthetic_scans_are_left_out_or_refused() -> None:
    kept, left_out = possible(PAPER_TESTS, 10, 12)
    assert [arm.name for arm in kept] == ["r1", "r1+s0.5", "r1+s1", "s1", "r0.5+s1", "r1+a"]
    assert left_out["r1+s1.5"] == "needs 15 synthetic scans, but there are 12"
    with pytest.raises(
        UserError,
        match=r"synthetic scans with masks: 3, .*smallest training set needs 5.*synthesise downstream --n-synthetic 20",
    ):
        possible(PAPER_TESTS, 10, 3)


def test_scans_of_two_shapes_are_refused(tmp_path: Path) -> None:
    other = SYNTHETIC[0]._replace(image=np.zeros((7, 8, 10), np.float32))
    with pytest.raises(ValueError, match="one shape"):
        run(REAL, [other], "efg", "ab", QUICK, tmp_path)
