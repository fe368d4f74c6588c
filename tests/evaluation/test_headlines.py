"""The report's headlines: four questions for each model, answered from the sections below."""

from typing import Any

import pytest
from answers import cohort, downstream, headlines, metrics, pairs

from bids_alphagan.evaluation.question import BAD, GOOD, OPEN, UNASKED, Answer, Headline

FOUR = ["Is it real?", "Is it diverse?", "Is it a copy?", "Does it help?"]


def asked(with_pairs: Answer | None = None, **changes: Any) -> dict[str, Headline]:
    """The headlines of SigmaRat2; changes: of the distribution's row and the memorisation's summary."""
    answers = cohort()
    row = answers["distribution"].tables["distribution"][0]
    line = answers["memorisation"].tables["memorisation_summary"][0]
    row |= {"against": "held-out", "n_real_animals": 9} | changes
    line |= {key: value for key, value in changes.items() if key in line}
    if with_pairs:
        answers["pairs"] = with_pairs
    lines = headlines({**answers, "downstream": downstream(0.05, "yes")})
    assert [line.question for line in lines] == FOUR
    return {line.question: line for line in lines}


@pytest.mark.parametrize(
    ("changes", "mark", "words"),
    [
        ({"mmd_p": 0.001}, BAD, "differ from held-out animals by appearance (p = 0.001)"),
        ({"mmd_p": 0.3}, GOOD, "No difference found from 9 held-out animals by appearance (p = 0.3)."),
        ({"mmd_p": 0.3, "n_real_animals": 4}, OPEN, "too few to tell"),
        ({"mmd_p": 0.3, "against": "training"}, OPEN, "which copies would pass"),
        ({"mmd_p": None}, OPEN, "Too few scans to tell"),
    ],
)
def test_is_it_real(changes: dict[str, Any], mark: str, words: str) -> None:
    answer = asked(**changes)["Is it real?"]
    assert (answer.mark, answer.section) == (mark, "distribution")
    assert words in answer.text


def test_one_difference_is_enough() -> None:
    """A second way to compare that finds nothing does not hide what the first one found."""
    answers = cohort()
    rows = answers["distribution"].tables["distribution"]
    rows.append(rows[0] | {"space": "anatomy", "mmd_p": 0.9})
    first = headlines(answers)[0]
    assert first.mark == BAD
    assert "anatomy" not in first.text


@pytest.mark.parametrize(
    ("changes", "mark", "words"),
    [
        ({"n": 20, "distinct": 20}, GOOD, "All 20 scans are different from each other"),
        ({"n": 20, "distinct": 19}, OPEN, "19 of 20"),
        ({"n": 20, "distinct": 1}, BAD, "Only 1 of 20 scans is different"),
    ],
)
def test_is_it_diverse(changes: dict[str, Any], mark: str, words: str) -> None:
    answer = asked(**changes)["Is it diverse?"]
    assert (answer.mark, answer.section) == (mark, "memorisation")
    assert words in answer.text


def test_scans_that_are_too_alike_are_not_diverse() -> None:
    """MS-SSIM within the model beside that of real scans, which has an interval or not."""
    marks = []
    for value, real_ends in ((0.7, (0.788, 0.812)), (0.9, (0.788, 0.812)), (0.9, (None, None))):
        rows = metrics()
        rows[0] |= dict(zip(("low", "high"), real_ends, strict=True))
        rows[1]["value"] = value
        answer = asked(pairs(rows))["Is it diverse?"]
        marks.append((answer.mark, answer.section))
        assert f"MS-SSIM is {value:.3f}" in answer.text
    assert marks == [(GOOD, "memorisation"), (BAD, "pairs"), (OPEN, "pairs")]


@pytest.mark.parametrize(
    ("changes", "mark", "words"),
    [
        ({"copies": 0}, GOOD, "None of 3 scans is found to copy a training scan."),
        ({"copies": 1}, BAD, "1 of 3 scans is a copy"),
        ({"copies": 2}, BAD, "2 of 3 scans are copies"),
        ({"closer_p": 0.01}, OPEN, "closer to the training animals than to others (p = 0.01)"),
        ({"notes": "Only 2 animals"}, OPEN, "as far as these few animals can show"),
    ],
)
def test_is_it_a_copy(changes: dict[str, Any], mark: str, words: str) -> None:
    answer = asked(**changes)["Is it a copy?"]
    assert (answer.mark, answer.section) == (mark, "memorisation")
    assert words in answer.text


@pytest.mark.parametrize(
    ("gain", "resolved", "mark"), [(0.05, "yes", GOOD), (0.05, "no", OPEN), (-0.05, "yes", BAD)]
)
def test_does_it_help(gain: float, resolved: str, mark: str) -> None:
    four = headlines({"downstream": downstream(gain, resolved)})
    assert (four[3].mark, four[3].section) == (mark, "downstream")
    assert f"Dice {gain:+.3f}".replace("-", "−") in four[3].text
    assert [answer.mark for answer in four[:3]] == [UNASKED] * 3
    assert "--steps evaluate report" in four[0].text


def test_networks_that_have_not_learned_leave_the_question_open() -> None:
    four = headlines({"downstream": downstream(0.05, "yes", notes=["They hardly find WM."])})
    assert four[3].mark == OPEN
    assert "hardly learned" in four[3].text


def test_what_was_left_out_is_open_and_not_unasked() -> None:
    four = headlines({name: Answer({}, reason="Too few.") for name in cohort()})
    assert [answer.mark for answer in four] == [OPEN, UNASKED, OPEN, UNASKED]


def test_a_model_without_an_answer_was_not_asked() -> None:
    """Each question is answered for the models that were there."""
    answers = {**cohort(), "pairs": pairs(), "downstream": downstream(0.05, "yes")}
    marks = [(line.mark, line.section) for line in headlines(answers, "adni")]
    assert marks == [(UNASKED, None), (BAD, "pairs"), (UNASKED, None), (UNASKED, None)]
