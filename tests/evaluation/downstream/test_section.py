"""The report's section on the downstream experiment: the right answer, in every direction, and escaped."""

import base64
import re

import pytest
from answers import downstream, section
from pages import EVIL, read_section

from bids_alphagan.evaluation.downstream.section import DownstreamSection, training_set, view
from bids_alphagan.evaluation.question import Answer
from bids_alphagan.report import charts
from bids_alphagan.report.html import Section


@pytest.mark.parametrize(
    ("gain", "resolved", "word"),
    [
        (0.05, "yes", "Yes"),
        (0.05, "no", "Not shown"),
        (-0.05, "no", "Not shown"),
        (-0.05, "yes", "No, they harm"),
    ],
)
def test_the_verdict_follows_the_gain(gain: float, resolved: str, word: str) -> None:
    made = section("downstream", downstream(gain, resolved))
    assert [verdict["word"] for verdict in made.view["verdicts"]] == [word]
    words = read_section(made).words
    signed = f"{gain:+.3f}".replace("-", "−")
    assert f"{word} do the scans of SigmaRat2 help?" in words
    assert f"{signed} Dice of all three tissues against real scans alone" in words
    assert "for 150 steps and with 3 seeds, and tested on 7 real animals" in words
    assert words.count("so it is") == 2  # as the lead, and among all comparisons
    assert "of one tissue" not in words
    assert ("not resolved" in words.split("Trained on")[1]) == (resolved == "no")


def test_the_chart_names_training_sets_and_draws_what_is_not_resolved_hollow() -> None:
    drawn = {}
    for resolved in ("yes", "no"):
        made = section("downstream", downstream(0.05, resolved)).view
        drawn[resolved] = base64.b64decode(made["chart"].split(",")[1]).decode()
        for words in ("12 real + 11 synthetic", "Dice, all three", "gain in Dice, GM"):
            assert words in drawn[resolved]
        assert [line["name"] for line in made["lines"]] == ["12 real", "12 real + 11 synthetic"]
        assert made["lines"][1]["dice"]["WM"] is None
    hollow = {
        name: len(re.findall(rf"fill-opacity: 0|fill: none; stroke: {charts.colour('sigmarat2')}", text))
        for name, text in drawn.items()
    }
    assert hollow["no"] > hollow["yes"]
    assert training_set("s1+a", 0, 5) == "5 synthetic, augmented"


def test_the_section_says_what_limits_it() -> None:
    made = downstream(0.05, "yes", notes=["They hardly find WM."], left_out={"r1+s2": "needs 8"})
    words = read_section(section("downstream", made)).words
    assert "Note They hardly find WM." in words
    assert "The training set r1+s2 is left out: it needs 8." in words


def test_a_reason_stands_where_numbers_are_missing() -> None:
    page = read_section(section("downstream", Answer({}, reason="Too few animals.")))
    assert page.words == "Does it help? Left out Too few animals."


def test_text_from_files_is_escaped() -> None:
    answer = downstream(0.1, "yes", EVIL, left_out={EVIL: EVIL})
    rows, records = answer.tables["downstream"], answer.more["models"]
    content = view(DownstreamSection(rows, records, {"sigmarat2": EVIL}, {EVIL: EVIL}))
    template = "evaluation/downstream/section.html.j2"
    page = read_section(Section("downstream", "Does it help?", {"reason": None, **content}, template))
    assert EVIL not in page.text
    assert page.words.count(EVIL) >= 6
