"""The report's sections on whole cohorts: sentences, numbers, reasons, escaping."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from bids_alphagan.evaluation.sections import StatisticsSection, statistics_methods, view
from test_report import EVIL, Page, read, save

from bids_alphagan.evaluation.anatomy import section as anatomy
from bids_alphagan.evaluation.memorisation import section as memorisation
from bids_alphagan.report.html import ModelSection, write_group_report
from bids_alphagan.report.methods import compose

LABELS = {"sigmarat2": "SigmaRat2"}


def summary(**changes: Any) -> dict[str, Any]:
    line = {"model": "sigmarat2", "n": 3, "copies": 0, "closer": 0.75, "closer_expected": 0.8}
    return line | {"closer_p": 0.6, "repetitions": 0, "distinct": 3, "notes": None} | changes


def records(name: str = "sub-01_bold", **changes: Any) -> dict[str, dict[str, Any]]:
    row = {"model": "sigmarat2", "nearest_scan": name, "similarity": 0.5, "ratio": 0.97, "mirrored": True}
    scans = [row | {"scan": f"s{i}", "p_adjusted": 1.0, "copy": i == 2} for i in range(3)]
    volumes = [{"brain": 2 + i, "gm": 1 + i, "wm": 0.5 + i, "csf": 0.2 + i} for i in range(3)]
    interval = {"effect": 0.4, "effect_low": -0.1, "effect_high": 0.9}
    interval |= {"spread_ratio": 0.6, "spread_ratio_low": None, "spread_ratio_high": None}
    moments = {"real_mean": 3.0, "real_sd": 1.0, "synthetic_mean": 3.0, "synthetic_sd": 1.0}
    tissues = [
        {"model": "sigmarat2", "structure": s, "against": "training", **moments, **interval}
        for s in ("brain", "gm", "wm", "csf")
    ]
    near = {"precision": 1.0, "recall": 0.5, "density": 0.9, "coverage": 0.8, "expected_coverage": 0.9}
    spread = {"model": "sigmarat2", "space": "appearance", "against": "training", "mmd": 0.3, "mmd_p": 0.001}
    spread |= {"frechet": None, "n_real": 9, "n_real_animals": 4, "n_synthetic": 3, **near}
    more: dict[str, Any] = {"sigmarat2": [2, 0], "zooms": [0.5, 0.5, 1.0]}
    found = {
        "distribution": {"tables": {"distribution": [spread]}, "notes": ["Only four animals."]},
        "anatomy": {
            "tables": {"anatomy": tissues},
            "more": {"volumes": {"real": volumes, "sigmarat2": volumes}},
        },
        "memorisation": {
            "tables": {"memorisation": scans, "memorisation_summary": [summary(**changes)]},
            "more": more,
        },
    }
    return {key: {"notes": [], "reason": None, **record} for key, record in found.items()}


def page(tmp_path: Path, section: StatisticsSection) -> Page:
    path = tmp_path / "group.html"
    models = [ModelSection("sigmarat2", "SigmaRat2")]
    scan = save(tmp_path / "scan.nii.gz", np.arange(7 * 8 * 9, dtype=np.float32).reshape(7, 8, 9))
    write_group_report(path, [scan], [None], models, None, {}, "", statistics_section=section)
    return read(path)


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    path = tmp_path / "memorisation.npz"
    pairs = np.random.default_rng(0).integers(0, 255, (2, 2, 7, 8, 9)).astype(np.uint8)
    np.savez(path, allow_pickle=False, sigmarat2=pairs)
    return path


def test_all_three_sections_are_there(tmp_path: Path, pictures: Path) -> None:
    found = page(tmp_path, StatisticsSection(records(), LABELS, pictures))
    assert "None of 3 scans of SigmaRat2 is a copy of a training scan" in found.words
    assert "75 % lie nearest to a training animal, where 80 % would" in found.words
    assert "differs from real animals" in found.words
    assert "Only four animals." in found.words
    assert "small, may be chance" in found.words
    assert "-0.10 to 0.90" in found.words
    assert (found.words.count("No copy."), found.words.count(" Copy.")) == (1, 1)
    # A real scan, its three tiles to scroll, two charts, two pairs.
    assert len(found.sources) == 1 + 3 + 2 + 2


def test_the_worst_pairs_go_with_their_own_pictures(pictures: Path) -> None:
    shown = memorisation.view(records()["memorisation"], LABELS, pictures)["models"][0]["pairs"]
    assert [row["scan"] for row, _ in shown] == ["s2", "s0"]
    assert shown[0][1] != shown[1][1]


def test_names_are_escaped(tmp_path: Path, pictures: Path) -> None:
    section = StatisticsSection(records(EVIL), {"sigmarat2": EVIL}, pictures)
    assert len(page(tmp_path, section).sources) == 1 + 3 + 2 + 2
    assert EVIL not in (tmp_path / "group.html").read_text()


def test_a_reason_stands_where_numbers_are_missing(tmp_path: Path) -> None:
    refused = {"anatomy": {"reason": "No masks were made.", "notes": []}}
    words = page(tmp_path, StatisticsSection(refused, LABELS, tmp_path / "none.npz")).words
    assert "No masks were made." in words
    assert words.count("Not computed for these scans") == 2


@pytest.mark.parametrize(
    ("changes", "told"),
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
def test_the_verdict_in_a_sentence(changes: dict[str, Any], told: str, tmp_path: Path) -> None:
    section = StatisticsSection(records(**changes), LABELS, tmp_path / "none.npz")
    model = view(section)["memorisation"]["models"][0]
    assert told in model["verdict"]
    assert model["bad"]


def test_a_cohort_of_few_different_scans_is_no_success(tmp_path: Path) -> None:
    bad = [
        view(StatisticsSection(records(**changes), LABELS, tmp_path / "none.npz"))["memorisation"]["models"][
            0
        ]["bad"]
        for changes in (
            {"copies": 0},
            {"copies": 0, "n": 10, "distinct": 9},
            {"copies": 0, "n": 10, "distinct": 8},
        )
    ]
    assert bad == [False, False, True]


def test_without_held_out_animals_nothing_is_said_of_closeness(tmp_path: Path) -> None:
    record = records(closer=None, closer_p=None)["memorisation"]
    assert memorisation.view(record, LABELS, tmp_path / "none.npz")["models"][0]["closeness"] is None


def test_effects_in_words() -> None:
    """Sizes after Cohen 1988; an interval that holds 0 is no finding."""
    words = []
    for effect, low, high in ((0.1, 0.05, 0.2), (-0.6, -0.9, -0.1), (2.0, -0.1, 3.0), (None, None, None)):
        record = records()["anatomy"]
        row = record["tables"]["anatomy"][0] | {"effect": effect, "effect_low": low, "effect_high": high}
        record["tables"]["anatomy"] = [row]
        words.append(anatomy.view(record, LABELS)["lines"][0]["size"])
    assert words == ["hardly any, more", "middling, less", "large, may be chance", "volumes do not vary"]


def test_methods_tell_what_was_done_and_no_more(pictures: Path) -> None:
    found = records()
    text = compose(statistics_methods(StatisticsSection(found, LABELS, pictures)), {})
    assert "Fréchet" not in text  # refused: too few scans
    for author in ("Gretton", "Kynkäänniemi", "Naeem", "Hedges", "Facco", "Holm"):
        assert author in text
    found["distribution"]["tables"]["distribution"][0]["frechet"] = 1.5
    found["memorisation"]["reason"] = "Only three training animals."
    text = compose(statistics_methods(StatisticsSection(found, LABELS, pictures)), {})
    assert "Fréchet" in text
    assert "Facco" not in text
    assert statistics_methods(StatisticsSection({}, LABELS, pictures)) == []
