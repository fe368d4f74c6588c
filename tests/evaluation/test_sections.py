"""The report's sections on whole cohorts: sentences, numbers, reasons, escaping."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import cohorts
import numpy as np
import pytest
from answers import LABELS, cohort, section
from pages import EVIL, read_section

from bids_alphagan.bids.study import Study
from bids_alphagan.evaluation import QUESTIONS
from bids_alphagan.evaluation.question import Answer
from bids_alphagan.report.methods import compose


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    path = tmp_path / "memorisation.npz"
    pairs = np.random.default_rng(0).integers(0, 255, (2, 2, 7, 8, 9)).astype(np.uint8)
    np.savez(path, allow_pickle=False, sigmarat2=pairs)
    return path


@pytest.fixture
def study(tmp_path: Path) -> Study:
    cohorts.real(tmp_path / "out", range(4))
    return cohorts.study(tmp_path / "out")


def memorisation(**changes: Any) -> dict[str, Any]:
    """What the section on memorisation shows of SigmaRat2."""
    model: dict[str, Any] = section("memorisation", cohort(**changes)["memorisation"]).view["models"][0]
    return model


def test_all_three_sections_are_there(pictures: Path) -> None:
    pages = {name: read_section(section(name, answer, LABELS, pictures)) for name, answer in cohort().items()}
    words = pages["memorisation"].words
    assert "None of 3 scans of SigmaRat2 is a copy of a training scan" in words
    assert "75 % are nearest to a training animal; 80 % are expected" in words
    assert (words.count("No copy."), words.count(" Copy.")) == (1, 1)
    assert "differs from real animals" in pages["distribution"].words
    assert "Only four animals." in pages["distribution"].words
    assert "small, may be chance" in pages["anatomy"].words
    assert "-0.10 to 0.90" in pages["anatomy"].words
    # Two charts, two pairs.
    pictures_of = {name: len(page.sources) for name, page in pages.items()}
    assert pictures_of == {"distribution": 1, "anatomy": 1, "memorisation": 2}


def test_the_worst_pairs_go_with_their_own_pictures(pictures: Path) -> None:
    models = section("memorisation", cohort()["memorisation"], LABELS, pictures).view["models"]
    shown = models[0]["pairs"]
    assert [row["scan"] for row, _ in shown] == ["s2", "s0"]
    assert shown[0][1] != shown[1][1]


def test_names_are_escaped(pictures: Path) -> None:
    answers = cohort(EVIL)
    answers["distribution"] = replace(answers["distribution"], notes=[EVIL])
    sources = 0
    for name, answer in answers.items():
        page = read_section(section(name, answer, {"sigmarat2": EVIL}, pictures))
        assert EVIL not in page.text
        assert EVIL in page.words
        sources += len(page.sources)
    assert sources == 2 + 2


@pytest.mark.parametrize("name", ["distribution", "anatomy", "memorisation"])
def test_a_reason_stands_where_numbers_are_missing(name: str) -> None:
    page = read_section(section(name, Answer({}, reason=f"No masks were made. {EVIL}")))
    assert f"Left out No masks were made. {EVIL}" in page.words
    assert EVIL not in page.text
    assert page.sources == []


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"copies": 1}, "1 of 3 scans of SigmaRat2 is a copy of a training scan, and all are different"),
        ({"copies": 2}, "2 of 3 scans of SigmaRat2 are copies"),
        (
            {"distinct": 1},
            "None of 3 scans of SigmaRat2 is a copy of a training scan, but only 1 is different",
        ),
        ({"copies": 3, "distinct": 2}, "are copies of a training scan, and only 2 are different"),
    ],
)
def test_the_verdict_in_a_sentence(changes: dict[str, Any], words: str) -> None:
    model = memorisation(**changes)
    assert words in model["verdict"]
    assert model["bad"]


def test_a_cohort_of_few_different_scans_is_no_success() -> None:
    bad = [
        memorisation(**changes)["bad"]
        for changes in (
            {"copies": 0},
            {"copies": 0, "n": 10, "distinct": 9},
            {"copies": 0, "n": 10, "distinct": 8},
        )
    ]
    assert bad == [False, False, True]


def test_without_held_out_animals_nothing_is_said_of_closeness() -> None:
    assert memorisation(closer=None, closer_p=None)["closeness"] is None


def test_effects_in_words() -> None:
    """Sizes after Cohen 1988; an interval that holds 0 is no finding."""
    words = []
    for effect, low, high in ((0.1, 0.05, 0.2), (-0.6, -0.9, -0.1), (2.0, -0.1, 3.0), (None, None, None)):
        answer = cohort()["anatomy"]
        row = answer.tables["anatomy"][0] | {"effect": effect, "effect_low": low, "effect_high": high}
        view = section("anatomy", replace(answer, tables={"anatomy": [row]})).view
        words.append(view["lines"][0]["size"])
    assert words == ["hardly any, more", "medium, less", "large, may be chance", "volumes do not vary"]


def test_methods_say_what_was_done_and_no_more(study: Study) -> None:
    def text(answers: dict[str, Answer]) -> str:
        every = [QUESTIONS[name].load().methods(answer, study) for name, answer in answers.items()]
        return compose([paragraph for paragraph in every if paragraph], {})

    answers = cohort()
    assert "Fréchet" not in text(answers)  # refused: too few scans
    for author in ("Gretton", "Kynkäänniemi", "Naeem", "Hedges", "Facco", "Holm"):
        assert author in text(answers)
    answers["distribution"].tables["distribution"][0]["frechet"] = 1.5
    answers["memorisation"] = Answer({}, reason="Only three training animals.")
    assert "Fréchet" in text(answers)
    assert "Facco" not in text(answers)
    refused = {name: Answer({}, reason="Too few.") for name in QUESTIONS}
    assert text(refused) == compose([], {})
