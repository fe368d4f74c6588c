"""The report's section on the downstream experiment: the right answer, in every direction, and escaped."""

import base64
import re
from pathlib import Path
from typing import Any

import pytest
import tiny
from test_report import EVIL, read

from bids_alphagan.evaluation.downstream.section import REAL_ALONE, DownstreamSection, training_set, view
from bids_alphagan.report import charts
from bids_alphagan.report.html import write_group_report


def section(gain: float, resolved: str, text: str = "so it is", **changes: Any) -> DownstreamSection:
    """Real alone at a Dice of 0.8, and with synthetic scans `gain` more; global and GM, and a distance."""
    rows = []
    for arm, model, mean in (("r1", None, 0.8), ("r1+s1", "sigmarat2", 0.8 + gain)):
        for tissue, measure in (("global", "dice"), ("GM", "dice"), ("GM", "surface_distance")):
            against = {"compared_with": None, "gain": None, "gain_low": None, "gain_high": None}
            if model:
                ends = {"gain_low": gain - 0.01, "gain_high": gain + 0.01}
                against = {"compared_with": REAL_ALONE, "gain": gain, **ends}
            numbers = {"mean": mean, "low": mean - 0.02, "high": mean + 0.02, "n_animals": 7, "n_seeds": 3}
            about = {"model": model, "arm": arm, "tissue": tissue, "measure": measure}
            rows.append({**about, **numbers, **against, "resolved": resolved if model else None})
    headline = {"arm": "r1+s1", "compared_with": "r1", "tissue": "global", "measure": "dice", "text": text}
    told = {
        "headline": headline,
        "sentences": [headline, {**headline, "tissue": "GM", "text": "of one tissue"}],
        "sizes": {"r1": [12, 0], "r1+s1": [12, 11]},
        "left_out": {},
        "settings": {"steps": 150},
    } | changes
    return DownstreamSection(rows, {"sigmarat2": told}, {"sigmarat2": "SigmaRat2"}, {"arm": "what"})


def write(path: Path, made: DownstreamSection | None) -> None:
    real = tiny.scan(path.with_name("scan.nii.gz"), tiny.values())
    write_group_report(path, [real], [None], [], None, {}, "text", downstream_section=made)


@pytest.mark.parametrize(
    ("gain", "resolved", "word"),
    [
        (0.05, "yes", "Yes"),
        (0.05, "no", "Not shown"),
        (-0.05, "no", "Not shown"),
        (-0.05, "yes", "No, they harm"),
    ],
)
def test_the_verdict_follows_the_gain(tmp_path: Path, gain: float, resolved: str, word: str) -> None:
    path = tmp_path / "group.html"
    made = section(gain, resolved)
    assert [verdict["word"] for verdict in view(made)["verdicts"]] == [word]
    write(path, made)
    words = " ".join(read(path).words.split())
    told = f"{gain:+.3f}".replace("-", "−")
    assert f"{word} do the scans of SigmaRat2 help?" in words
    assert f"{told} Dice of all three tissues against real scans alone" in words
    assert "for 150 steps and with 3 seeds; tested on 7 real animals" in words
    assert words.count("so it is") == 2  # as the lead, and among all comparisons
    assert "of one tissue" not in words
    assert ("not resolved" in words.split("Trained on")[1]) == (resolved == "no")


def test_the_chart_names_training_sets_and_draws_what_is_not_resolved_hollow() -> None:
    drawn = {}
    for resolved in ("yes", "no"):
        made = view(section(0.05, resolved))
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


def test_the_page_without_the_experiment_has_no_such_section(tmp_path: Path) -> None:
    write(tmp_path / "g.html", None)
    assert "downstream" not in (tmp_path / "g.html").read_text()


def test_text_from_files_is_escaped(tmp_path: Path) -> None:
    path = tmp_path / "group.html"
    evil = section(0.1, "yes", EVIL, left_out={EVIL: EVIL})
    evil = DownstreamSection(evil.rows, evil.experiments, {"sigmarat2": EVIL}, {EVIL: EVIL})
    write(path, evil)
    assert EVIL not in path.read_text()
    assert read(path).words.count(EVIL) >= 6
