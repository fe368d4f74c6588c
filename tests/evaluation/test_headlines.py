"""The report's headline: four questions for each model, answered from the records of the sections below."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from bids_alphagan.evaluation.headline import BAD, GOOD, OPEN, UNASKED, Answer
from bids_alphagan.evaluation.sections import StatisticsSection
from test_report import EVIL, metrics_section, read
from test_report_downstream import section as helped
from test_report_statistics import LABELS, records

from bids_alphagan.evaluation import headline
from bids_alphagan.evaluation.pairs.section import MetricsSection
from bids_alphagan.report.html import ModelSection, write_group_report


def answers(metrics: MetricsSection | None = None, **changes: Any) -> dict[str, Answer]:
    """The answers for SigmaRat2; changes: of the distribution's row and the memorisation's summary."""
    found = records()
    row = found["distribution"]["tables"]["distribution"][0]
    line = found["memorisation"]["tables"]["memorisation_summary"][0]
    row |= {"against": "held-out", "n_real_animals": 9} | changes
    line |= {key: value for key, value in changes.items() if key in line}
    sets = StatisticsSection(found, LABELS, Path("none.npz"))
    [(label, four)] = headline.view(LABELS, metrics, sets, helped(0.05, "yes"))
    assert label == "SigmaRat2"
    return {answer.question: answer for answer in four}


@pytest.mark.parametrize(
    ("changes", "mark", "told"),
    [
        ({"mmd_p": 0.001}, BAD, "differ from held-out animals by appearance (p = 0.001)"),
        ({"mmd_p": 0.3}, GOOD, "No difference found from 9 held-out animals by appearance (p = 0.3)."),
        ({"mmd_p": 0.3, "n_real_animals": 4}, OPEN, "too few to tell"),
        ({"mmd_p": 0.3, "against": "training"}, OPEN, "which copies would pass"),
        ({"mmd_p": None}, OPEN, "Too few scans to tell"),
    ],
)
def test_is_it_real(changes: dict[str, Any], mark: str, told: str) -> None:
    answer = answers(**changes)["Is it real?"]
    assert (answer.mark, answer.section) == (mark, "distribution")
    assert told in answer.text


def test_one_difference_is_enough() -> None:
    """A second way to compare that finds nothing does not hide what the first one found."""
    found = records()
    rows = found["distribution"]["tables"]["distribution"]
    rows.append(rows[0] | {"space": "anatomy", "mmd_p": 0.9})
    [(_, four)] = headline.view(LABELS, None, StatisticsSection(found, LABELS, Path("x")), None)
    assert four[0].mark == BAD
    assert "anatomy" not in four[0].text


@pytest.mark.parametrize(
    ("changes", "mark", "told"),
    [
        ({"n": 20, "distinct": 20}, GOOD, "All 20 scans are different from each other"),
        ({"n": 20, "distinct": 19}, OPEN, "19 of 20"),
        ({"n": 20, "distinct": 1}, BAD, "Only 1 of 20 scans is different"),
    ],
)
def test_is_it_diverse(changes: dict[str, Any], mark: str, told: str) -> None:
    answer = answers(**changes)["Is it diverse?"]
    assert (answer.mark, answer.section) == (mark, "memorisation")
    assert told in answer.text


def test_scans_that_are_too_alike_are_not_diverse() -> None:
    """MS-SSIM within the model beside that of real scans, which has an interval or not."""
    marks = []
    for value, real_ends in ((0.7, (0.788, 0.812)), (0.9, (0.788, 0.812)), (0.9, (None, None))):
        section = metrics_section()
        rows = [dict(row) for row in section.rows]
        rows[0] |= dict(zip(("low", "high"), real_ends, strict=True))
        rows[1]["value"] = value
        answer = answers(replace(section, rows=rows))["Is it diverse?"]
        marks.append((answer.mark, answer.section))
        assert f"MS-SSIM is {value:.3f}" in answer.text
    assert marks == [(GOOD, "memorisation"), (BAD, "metrics"), (OPEN, "metrics")]


@pytest.mark.parametrize(
    ("changes", "mark", "told"),
    [
        ({"copies": 0}, GOOD, "None of 3 scans is found to copy a training scan."),
        ({"copies": 1}, BAD, "1 of 3 scans is a copy"),
        ({"copies": 2}, BAD, "2 of 3 scans are copies"),
        ({"closer_p": 0.01}, OPEN, "closer to the training animals than to others (p = 0.01)"),
        ({"notes": "Only 2 animals"}, OPEN, "as far as these animals can tell"),
    ],
)
def test_is_it_a_copy(changes: dict[str, Any], mark: str, told: str) -> None:
    answer = answers(**changes)["Is it a copy?"]
    assert (answer.mark, answer.section) == (mark, "memorisation")
    assert told in answer.text


@pytest.mark.parametrize(
    ("gain", "resolved", "mark"), [(0.05, "yes", GOOD), (0.05, "no", OPEN), (-0.05, "yes", BAD)]
)
def test_does_it_help(gain: float, resolved: str, mark: str) -> None:
    [(_, four)] = headline.view(LABELS, None, None, helped(gain, resolved))
    assert (four[3].mark, four[3].section) == (mark, "downstream")
    assert f"Dice {gain:+.3f}".replace("-", "−") in four[3].text
    assert [answer.mark for answer in four[:3]] == [UNASKED] * 3
    assert "--steps evaluate report" in four[0].text


def test_networks_that_have_not_learned_leave_the_question_open(tmp_path: Path) -> None:
    made = helped(0.05, "yes", notes=["They hardly find WM."])
    [(_, four)] = headline.view(LABELS, None, None, made)
    assert four[3].mark == OPEN
    assert "hardly learned" in four[3].text
    write_group_report(tmp_path / "g.html", [], [], [], None, {}, "", downstream_section=made)
    assert "Note They hardly find WM." in " ".join(read(tmp_path / "g.html").words.split())


def test_what_was_left_out_is_open_and_not_unasked() -> None:
    refused = {name: {"reason": "Too few.", "notes": [], "tables": {}} for name in records()}
    [(_, four)] = headline.view(LABELS, None, StatisticsSection(refused, LABELS, Path("x")), None)
    assert [answer.mark for answer in four] == [OPEN, UNASKED, OPEN, UNASKED]


def test_the_page_begins_with_the_answers_and_they_lead_to_their_sections(tmp_path: Path) -> None:
    path = tmp_path / "group.html"
    models = [ModelSection("sigmarat2", EVIL), ModelSection("adni", "ADNI")]
    sets = StatisticsSection(records(), {"sigmarat2": EVIL}, tmp_path / "none.npz")
    write_group_report(path, [], [], models, metrics_section(), {}, "", statistics_section=sets)
    page = read(path)
    words = " ".join(page.words.split())
    before = words[: words.index("Memorisation")]
    assert before.index(EVIL) < before.index("Is it real? ✗ As a set, they differ from the training animals")
    assert before.index("Is it a copy? ✓ None of 3 scans") < before.index("Is it a copy? – Not asked")
    assert before.count("Does it help? – Not asked: run --steps downstream report.") == 2
    assert page.links[:4] == ["#distribution", "#memorisation", "#memorisation", "#metrics"]
    assert EVIL not in path.read_text()
    write_group_report(path, [], [], models, None, {}, "")
    assert "Is it real?" not in path.read_text()
