"""The report's section on metrics of pairs: the best model by direction, what is too good, and all of it escaped."""

import re

from answers import TWO, metrics, pairs, section
from pages import EVIL, read_section

from bids_alphagan.evaluation.pairs.section import view
from bids_alphagan.evaluation.question import Answer
from bids_alphagan.report.html import Section


def shown(rows: list[dict] | None = None) -> str:
    return str(section("pairs", pairs(rows), TWO).html)


def stars(rows: list[dict]) -> list[str]:
    """The values with a star, from the top."""
    return re.findall(r'<td class="value best">\s*<span class="figure">([^<]+)', shown(rows))


def test_the_table_marks_the_best_model_by_direction() -> None:
    rows = metrics()
    for row in rows[:3]:
        row["value"] -= 0.15 if row["model"] == "adni" else 0  # as alike as real ones
    rows[-1] |= {"value": None, "low": None, "high": None, "n": 0}
    # MS-SSIM nearest to 0.8 is 0.800 of ADNI; NCC nearest to 0.9; one MAE alone is no contest
    assert stars(rows) == ["0.800", "0.600"]
    words = read_section(section("pairs", pairs(rows), TWO)).words
    assert "n/a" in words
    assert "→ closer to real" in words
    assert "↑ higher" in words
    assert "↓ lower" in words
    assert "0.800 0.788 to 0.812 9 pairs" in words
    assert "an animal that no model was trained on" in words
    assert "Normalised cross-correlation. Pairs of a real and a synthetic scan." in words


def test_no_star_beyond_what_real_animals_reach() -> None:
    """One scan over and over: nearer to other animals than these to each other, and all the same."""
    far = {"NCC": (0.92, 0.7), "MAE": (0.005, 0.02)}  # metric: of the collapsed model, of the sound one
    rows = [row | {"direction": "lower" if row["metric"] == "MAE" else row["direction"]} for row in metrics()]
    for row in rows:
        if row["metric"] in far and row["model"] != "real":
            row["value"] = far[row["metric"]][row["model"] == "adni"]
    rows = [row | {"high": row["value"] + 0.001, "low": row["value"] - 0.001} for row in rows]
    for row in rows[:3]:
        row["value"] = {"real": 0.8, "sigmarat2": 0.79, "adni": 0.7}[row["model"]]
    assert stars(rows) == ["0.7900", "0.7000", "0.0200"]
    assert shown(rows).count("beyond real</small>") == 2
    inside = [row | {"high": 1.0, "low": 0.0} if row["model"] == "real" else row for row in rows]
    assert stars(inside)[1:] == ["0.9200", "0.0050"]  # it may be chance
    assert "beyond real</small>" not in shown(inside)


def test_no_star_for_a_model_whose_scans_are_too_alike() -> None:
    rows = metrics()  # the second model's MS-SSIM is 0.95, and 0.8 in real scans
    assert stars(rows) == ["0.700", "0.500", "0.020"]
    assert "too alike</small>" in shown(rows)


def test_the_section_says_what_limits_it() -> None:
    limited = pairs(notes=["With only 2 animals"])
    assert "Note With only 2 animals" in read_section(section("pairs", limited, TWO)).words


def test_a_reason_stands_where_numbers_are_missing() -> None:
    page = read_section(section("pairs", Answer({}, reason="Not computed for these scans."), TWO))
    assert page.words == "Metrics Left out Not computed for these scans."
    assert page.sources == []


def test_the_papers_table_is_shown_where_there_is_one() -> None:
    rows = [{"model": name, "NCC": f"{value} ± 0.01"} for name, value in (("real", 0.9), ("adni", 0.6))]
    words = read_section(section("pairs", pairs(table2=rows), TWO)).words
    assert "As in Table 2 of the paper Scans NCC Real 0.9 ± 0.01 ADNI 0.6 ± 0.01 Mean" in words
    assert "Table 2" not in read_section(section("pairs", pairs(), TWO)).text


def test_names_are_escaped() -> None:
    evil = pairs([{**row, "metric": EVIL, "unit": EVIL} for row in metrics()], notes=[EVIL])
    content = view(evil, {"sigmarat2": EVIL}, {EVIL: EVIL})
    page = read_section(Section("pairs", EVIL, content, "evaluation/pairs/section.html.j2"))
    assert EVIL not in page.text
    assert page.words.count(EVIL) >= 7  # heading, note, metric, unit, model, description
