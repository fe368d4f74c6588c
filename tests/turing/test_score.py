"""Scoring with known answers: the paper's Table 3, textbook numbers, and files that cannot be scored."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import turing_kits as kits
from scipy import stats

from bids_alphagan.cli.turing import main
from bids_alphagan.common.errors import UserError
from bids_alphagan.common.files import read_tsv
from bids_alphagan.turing import statistics
from bids_alphagan.turing.answers import checksum, read_all
from bids_alphagan.turing.score import EVERYBODY, Scores, score

KEY = kits.key(20, sigmarat1=15, sigmarat2=15)
# Ferreira et al. 2022, Table 3: sigmarat1, sigmarat2 and real misclassified; right answers.
TABLE3 = {"1": (1, 0, 1, 48), "2": (13, 8, 16, 13), "3": (2, 4, 3, 41), "4": (5, 8, 8, 29)}


def read(tmp_path: Path, *files: dict[str, Any], key: dict[str, Any] = KEY) -> tuple[list, list[str]]:
    paths = [kits.save(tmp_path / f"{k}.json", content) for k, content in enumerate(files)]
    return read_all(paths, key["Kit"], list(key["Scans"]))


def paper(tmp_path: Path) -> Scores:
    files = [
        kits.answers_of(KEY, rater, kits.misses(sigmarat1=one, sigmarat2=two, real=real))
        for rater, (one, two, real, _) in TABLE3.items()
    ]
    return score(KEY, read(tmp_path, *files)[0], 0.1)


def number(scores: Scores, rater: str, scans: str, measure: str) -> dict[str, Any]:
    rows = [r for r in scores.rows if (r["rater"], r["scans"], r["measure"]) == (rater, scans, measure)]
    assert len(rows) == 1
    return rows[0]


def test_the_papers_table_3(tmp_path: Path) -> None:
    scores = paper(tmp_path)
    names = ("sigmarat1_misclassified", "sigmarat2_misclassified", "real_misclassified", "right")
    assert {row["rater"]: tuple(row[name] for name in names) for row in scores.table3} == TABLE3
    first = scores.table3[0]
    exact = stats.binomtest(48, 50).proportion_ci(method="exact")
    assert (first["right_low"], first["right_high"]) == pytest.approx((exact.low, exact.high), abs=1e-4)
    assert first["p_binomial"] == pytest.approx(stats.binomtest(48, 50).pvalue, rel=1e-3)
    called = number(scores, "2", "sigmarat1", "called_synthetic")
    assert called["value"] == pytest.approx(2 / 15, abs=1e-4)
    together = number(scores, EVERYBODY, "sigmarat1", "called_synthetic")
    assert together["value"] == pytest.approx((60 - 21) / 60, abs=1e-4)
    assert together["low"] < 0.65 < together["high"]
    assert 15 <= together["n"] <= 60
    statements = dict(zip([*TABLE3, EVERYBODY], scores.statements, strict=True))
    assert statements["1"].startswith("Rater 1: can tell real from synthetic: right for 96 %")
    assert statements["2"].startswith("Rater 2: sees a difference, but confuses real and synthetic")
    assert statements["3"].startswith("Rater 3: can tell")
    assert statements["4"].startswith("Rater 4: undecided")
    assert "There are too few answers to show it" in statements["4"]
    assert "about 215 scans" in statements["4"]
    assert "But synthetic scans were more suspect" in statements["4"]
    plain = kits.answers_of(KEY, "4", lambda place, *_: ("real" if place % 2 else "synthetic", 3))
    assert "suspect" not in score(KEY, read(tmp_path, plain)[0], 0.1).statements[0]


def test_who_always_says_the_same_guesses(tmp_path: Path) -> None:
    """30 of 50 are synthetic: 60 % right, and yet nothing is known."""
    files = [kits.answers_of(KEY, name, lambda *_: ("synthetic", 3)) for name in ("A", "B")]
    scores = score(KEY, read(tmp_path, *files)[0], 0.1)
    assert number(scores, "A", "all", "right")["value"] == 0.6
    balanced = number(scores, "A", "all", "balanced")
    assert balanced["value"] == 0.5
    assert balanced["low"] == pytest.approx(1 - balanced["high"], abs=0.03)
    assert balanced["p"] == 1
    assert number(scores, "A", "all", "auc")["value"] == 0.5
    assert number(scores, EVERYBODY, "all", "kappa")["value"] is None
    assert number(scores, EVERYBODY, "all", "agreement")["value"] == 1


def test_confidence_counts_in_the_area_only(tmp_path: Path) -> None:
    """Wrong answers were unsure and right ones were not: the area exceeds the share of right answers."""
    sure = kits.misses(real=8, sigmarat1=6, sigmarat2=6)
    scores = score(KEY, read(tmp_path, kits.answers_of(KEY, "A", sure))[0], 0.1)
    assert number(scores, "A", "all", "right")["value"] == 0.6
    area = number(scores, "A", "all", "auc")["value"]
    # Ratings: synthetic 3.5 (18), -1.5 (12); real -3.5 (12), 1.5 (8).
    assert area == pytest.approx((18 * 20 + 12 * 12) / 600, abs=1e-4)


@pytest.mark.parametrize(("k", "n"), [(0, 15), (1, 15), (7, 15), (15, 15), (33, 50)])
def test_intervals_equal_scipys(k: int, n: int) -> None:
    wilson, exact = (stats.binomtest(k, n).proportion_ci(method=name) for name in ("wilson", "exact"))
    assert statistics.wilson(k / n, n)[1:3] == pytest.approx((wilson.low, wilson.high))
    assert statistics.exact(k, n)[1:3] == pytest.approx((exact.low, exact.high))


def calls(*yes_of: tuple[int, int]) -> list[np.ndarray]:
    return [np.arange(n)[None] < yes for yes, n in yes_of]


def test_the_difference_is_newcombes_published_example() -> None:
    """56/70 against 48/80: 0.2, method 10: 0.0524 to 0.3339 (Newcombe 1998, Table II)."""
    found = statistics.balanced(*calls((56, 70), (48, 80)))
    assert [2 * (x - 0.5) for x in found[:3]] == pytest.approx([0.2, 0.0524, 0.3339], abs=5e-5)


def test_several_raters_are_worth_between_one_and_all() -> None:
    rng = np.random.default_rng(0)
    alone = rng.random((1, 400)) < 0.4
    assert statistics.effective_n(alone) == 400
    assert statistics.effective_n(np.repeat(alone, 4, axis=0)) == pytest.approx(400, rel=0.01)
    guessing = rng.random((4, 400)) < 0.4
    assert statistics.effective_n(guessing) == pytest.approx(1600, rel=0.15)
    assert statistics.effective_n(np.ones((4, 15), bool)) == 15


def test_the_area_is_symmetric_and_its_interval_covers() -> None:
    rng = np.random.default_rng(1)
    a, b = rng.normal(0.8, 1, 15), rng.normal(0, 1, 20)
    forth, back = statistics.auc(a, b), statistics.auc(b, a)
    assert forth.value == pytest.approx(1 - back.value)
    assert forth.low == pytest.approx(1 - back.high)
    apart = statistics.auc(np.ones(15), np.zeros(20))
    assert (apart.value, apart.high) == (1, 1)
    assert 0.8 < apart.low < 0.95
    assert statistics.auc(np.zeros(15), np.ones(20))[:2] == (0, 0)
    true = stats.norm.cdf(1 / np.sqrt(2))
    intervals = [statistics.auc(rng.normal(1, 1, 15), rng.normal(0, 1, 20)) for _ in range(400)]
    assert 0.92 < np.mean([low < true < high for _, low, high, _ in intervals]) < 0.99


def test_textbook_kappas() -> None:
    """20 yes-yes, 5 yes-no, 10 no-yes, 15 no-no: 0.4. Three raters by hand."""
    two = np.repeat([[1, 1, 0, 0], [1, 0, 1, 0]], [20, 5, 10, 15], axis=1).astype(bool)
    assert statistics.cohen(two) == pytest.approx(0.4)
    found = statistics.kappa(two)
    assert found.value == pytest.approx(0.4)
    assert 0.1 < found.low < 0.3 < 0.5 < found.high < 0.7
    three = np.array([[1, 1, 0, 0], [1, 1, 0, 1], [1, 0, 0, 0]], bool)
    # Pairs agree on 1, 1/3, 1, 1/3 of them: 2/3; 6 of 12 yes: by chance 1/2.
    assert statistics.fleiss(three) == pytest.approx(1 / 3)
    assert statistics.fleiss(np.repeat(two[:1], 3, axis=0)) == 1


def test_guessing_is_found_equivalent_in_four_of_five_tests_of_the_size_that_is_named() -> None:
    rng, n = np.random.default_rng(2), statistics.scans_needed(0.1) // 2
    found = []
    for _ in range(400):
        low, high = statistics.balanced(rng.random((1, n)) < 0.5, rng.random((1, n)) < 0.5, 0.9)[1:3]
        found.append(low >= 0.4 and high <= 0.6)
    assert 0.72 < np.mean(found) < 0.87


def test_a_large_test_shows_equivalence_and_a_wide_margin_needs_less(tmp_path: Path) -> None:
    key = kits.key(200, adni=200)
    files = read(tmp_path, kits.answers_of(key, "A", kits.misses(real=100, adni=98)), key=key)[0]
    assert (
        score(key, files, 0.1).statements[0].startswith("Rater A: no better than guessing, within the margin")
    )
    assert score(key, files, 0.02).statements[0].startswith("Rater A: undecided")
    hardly = read(tmp_path, kits.answers_of(key, "A", kits.misses(real=85, adni=85)), key=key)[0]
    assert (
        score(key, hardly, 0.2).statements[0].startswith("Rater A: can tell real from synthetic, but hardly")
    )


Change = Callable[[dict[str, Any]], object]


def resealed(change: Change) -> Change:
    """A change with a checksum that fits it."""

    def both(answers: dict[str, Any]) -> None:
        change(answers)
        answers["checksum"] = checksum(answers)

    return both


def flip(answers: dict[str, Any]) -> None:
    one = answers["answers"][3]
    one["answer"] = "real" if one["answer"] == "synthetic" else "synthetic"


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (resealed(lambda t: t["answers"].pop()), "is incomplete: rater A answered 49 of 50 scans"),
        (lambda t: t.update(kit="0" * 16), "belongs to another kit"),
        (lambda t: t.pop("format"), "is not an answers file"),
        (flip, "the checksum does not match"),
        (lambda t: t.update(rater="B"), "the checksum does not match"),
        (resealed(lambda t: t["answers"].reverse()), "not in the order"),
        (resealed(lambda t: t["answers"].append(t["answers"][0])), "not in the order"),
        (resealed(lambda t: t["order"].append("0")), "not one of this kit's scans"),
        (resealed(lambda t: t["answers"][0].update(answer="fake")), "has no valid answer"),
        (resealed(lambda t: t["answers"][0].update(confidence=6)), "has a confidence of 6"),
        (resealed(lambda t: t["answers"][0].update(confidence=True)), "has no valid answer"),
        (lambda t: t["answers"][0].pop("milliseconds"), "milliseconds"),
        *(
            (
                resealed(lambda t, time=time: t["answers"][0].update(milliseconds=time)),
                "no valid time in milliseconds",
            )
            for time in (10**400, float("inf"), float("nan"), -1, 1.5, "6", True, 10**12)
        ),
        (resealed(lambda t: t.update(rater=" ")), "rater or expertise is missing or invalid"),
        (resealed(lambda t: t.update(expertise="guru")), "rater or expertise is missing or invalid"),
        (lambda t: t.update(answers=None), "is damaged or was changed"),
        (lambda t: t.update(answers=[1, 2]), "is damaged or was changed"),
    ],
)
def test_files_that_cannot_be_scored_are_reported(tmp_path: Path, change: Change, said: str) -> None:
    good, bad = (kits.answers_of(KEY, name, kits.misses(real=2)) for name in ("C", "A"))
    change(bad)
    found, left_out = read(tmp_path, good, bad)
    assert [one.rater for one in found] == ["C"]
    assert len(left_out) == 1
    assert left_out[0].startswith(f"{tmp_path / '1.json'}: left out: it ")
    assert said in left_out[0]
    with pytest.raises(UserError, match=r"Nothing is left to score\.$"):
        read(tmp_path, bad)


@pytest.mark.parametrize("text", ["", "{", "[]", '"a"', "[" * 100000, "\x00\xff"])
def test_other_files_are_reported(tmp_path: Path, text: str) -> None:
    (tmp_path / "x.json").write_text(text, encoding="latin-1")
    with pytest.raises(UserError, match=r"x\.json: (is not|cannot)") as error:
        read_all([tmp_path / "x.json"], KEY["Kit"], list(KEY["Scans"]))
    assert "?." not in str(error.value)
    with pytest.raises(UserError, match="cannot be read"):
        read_all([tmp_path / "none.json"], KEY["Kit"], list(KEY["Scans"]))


@pytest.mark.parametrize("years", [-1, 10**400, 1.5, "x", True])
def test_years_that_cannot_be_are_not_told(tmp_path: Path, years: object) -> None:
    [found], left_out = read(tmp_path, kits.answers_of(KEY, "A", kits.misses(real=2)) | {"years": years})
    assert (found.years, left_out) == (None, [])


def test_a_copy_counts_once_and_a_second_try_is_an_error(tmp_path: Path) -> None:
    once = kits.answers_of(KEY, "A", kits.misses(real=2))
    found, left_out = read(tmp_path, once, once)
    assert len(found) == 1
    assert "it is a copy of" in left_out[0]
    again = kits.answers_of(KEY, "a", kits.misses(real=3))
    with pytest.raises(UserError, match="rater a gave other answers in"):
        read(tmp_path, once, again)
    forged = kits.answers_of(KEY, "Another", kits.misses(real=5)) | {"session": once["session"]}
    forged["checksum"] = checksum(forged)
    with pytest.raises(UserError, match="rater Another gave other answers in"):
        read(tmp_path, once, forged)


@pytest.fixture
def kit(tmp_path: Path) -> Path:
    out = kits.output(tmp_path / "out")
    assert main(["make", str(out), str(tmp_path / "kit"), "--n-real", "6", "--n-per-model", "4"]) == 0
    return tmp_path / "kit"


def answers(kit: Path, rater: str, **wrong: int) -> Path:
    key = json.loads(kit.with_name("kit-key.json").read_text())
    file = kit.parent / f"answers-{len(list(kit.parent.iterdir()))}.json"
    return kits.save(file, kits.answers_of(key, rater, kits.misses(**wrong)))


def test_the_command_writes_tables_sidecars_and_a_page(kit: Path, capsys: pytest.CaptureFixture[str]) -> None:
    evil = "<script>alert(1)</script>\t\x1b[2J"
    files = [answers(kit, evil, real=1), answers(kit, "B", sigmarat2=4)]
    assert main(["score", str(kit), *map(str, files)]) == 0
    said = capsys.readouterr().out
    assert "Misclassified scans and right answers (Table 3)" in said
    assert "\x1b" not in said
    folder = kit.with_name("kit-scores")
    names = ["table3.json", "table3.tsv", "turing.html", "turing.json", "turing.tsv"]
    assert sorted(path.name for path in folder.iterdir()) == names
    for name in ("table3", "turing"):
        rows, sidecar = read_tsv(folder / f"{name}.tsv"), json.loads((folder / f"{name}.json").read_text())
        assert all(None not in row.values() and None not in row for row in rows)
        assert set(rows[0]) == set(sidecar) - {"Test"}
        assert all(sidecar[column]["Description"] for column in rows[0])
    levels = json.loads((folder / "turing.json").read_text())["measure"]["Levels"]
    assert {row["measure"] for row in read_tsv(folder / "turing.tsv")} == set(levels)
    table = {row["rater"]: row for row in read_tsv(folder / "table3.tsv")}
    assert (table["B"]["sigmarat2_misclassified"], table["B"]["right"]) == ("4", "10")
    page = (folder / "turing.html").read_text()
    assert "<script" not in page
    assert "&lt;script&gt;" in page
    assert "http" not in page.replace("doi.org", "")


def test_what_is_left_out_shows_in_the_exit_code(kit: Path, capsys: pytest.CaptureFixture[str]) -> None:
    good, bad = answers(kit, "A"), kit.parent / "no.json"
    bad.write_text("{}")
    assert main(["score", str(kit), str(good), str(bad)]) == 1
    assert f"{bad}: left out" in capsys.readouterr().err
    assert "no.json: left out" in (kit.with_name("kit-scores") / "turing.html").read_text()
    assert main(["score", str(kit), str(bad)]) == 2


def test_wrong_keys_kits_folders_and_margins(kit: Path, capsys: pytest.CaptureFixture[str]) -> None:
    good, key = str(answers(kit, "A")), kit.with_name("kit-key.json")

    def refused(*words: str) -> str:
        assert main(["score", *words]) == 2
        error = capsys.readouterr().err
        assert error.count("\n") == 1
        return error

    assert "is in the kit" in refused(str(kit), good, "--out", str(kit / "scores"))
    assert "give a share between 0 and 0.5" in refused(str(kit), good, "--margin", "0.5")
    assert "no key" in refused(str(kit), good, "--key", str(kit.parent / "gone.json"))
    assert "no key" in refused(str(kit.parent / "other"), good)
    assert "turing.html: does not exist" in refused(str(kit.parent), good, "--key", str(key))
    moved = json.loads(key.read_text()) | {"Kit": "0" * 16}
    assert "give the key that was made with it" in refused(
        str(kit), good, "--key", str(kits.save(kit.parent / "k.json", moved))
    )
    untold = json.loads(key.read_text())
    untold["Scans"][next(iter(untold["Scans"]))]["Truth"] = None
    for damage in (
        json.dumps(untold),
        "[" * 100000,
        "[]",
        "{}",
        "{",
        '{"Format": "bids-alphagan turing key 1", "Kit": "a", "Scans": {}}',
    ):
        key.write_text(damage)
        assert "not a key" in refused(str(kit), good)
    page = kit / "turing.html"
    page.write_text(page.read_text().replace('{"kit": ', '{"kit": [[', 1))
    assert "is kit unknown" in refused(str(kit), good, "--key", str(kit.parent / "k.json"))
    assert not kit.with_name("kit-scores").exists()
