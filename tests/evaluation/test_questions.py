"""Questions about cohorts through the group level: tables, verdicts in sidecars, reasons, and what is kept."""

import logging
import shutil
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest import mock

import cohorts
import numpy as np
import pytest

from bids_alphagan.bids.names import sidecar
from bids_alphagan.bids.prepared import synthetic_scans
from bids_alphagan.common.errors import UserError
from bids_alphagan.common.files import read_json, read_tsv, write_json
from bids_alphagan.evaluation import QUESTIONS, record_name
from bids_alphagan.evaluation.anatomy.table import Anatomy
from bids_alphagan.evaluation.question import Answer
from bids_alphagan.evaluation.scans import Scans
from bids_alphagan.group import ledger
from bids_alphagan.group.evaluate import Evaluate
from bids_alphagan.group.step import Cohorts

N, OTHERS = 15, range(20, 26)
TABLES = ("distribution", "anatomy", "memorisation", "memorisation_summary")


def evaluate(root: Path, held_out: float = 0.2, **settings: Any) -> list[dict]:
    """Evaluate the cohort as it is; the rows of group_memorisation.tsv, none where there is no table."""
    study = cohorts.study(root, held_out)
    cohorts.drawn(study)
    Evaluate(cohorts.SETTINGS | settings, Cohorts((cohorts.MODEL,), 0, True), "cpu").run(study)
    table = root / "group_memorisation.tsv"
    return read_tsv(table) if table.is_file() else []


def verdicts(root: Path) -> list[dict | None]:
    scans = synthetic_scans(root / "derivatives" / cohorts.MODEL)
    return [read_json(sidecar(path)).get("Memorisation") for path in scans]


@pytest.fixture(scope="module")
def planted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Scans of other animals, and last a copy of a training scan with noise."""
    root = tmp_path_factory.mktemp("planted") / "out"
    cohorts.real(root, range(N))
    scan, dseg = cohorts.animal(source(root))
    noisy = scan + np.random.default_rng(0).normal(0, 20, scan.shape).astype(np.float32)
    cohorts.synthetic(root, [*map(cohorts.animal, OTHERS), (np.clip(noisy, 0, None), dseg)])
    evaluate(root)
    return root


def source(root: Path) -> int:
    """The training animal that the copy is of."""
    return int(cohorts.study(root).training[4].name.subject)


@pytest.fixture
def copy(planted: Path, tmp_path: Path) -> Path:
    shutil.copytree(planted, tmp_path / "out")
    return tmp_path / "out"


def test_a_planted_copy_is_named_in_table_and_sidecar(planted: Path) -> None:
    rows = read_tsv(planted / "group_memorisation.tsv")
    assert [row["copy"] for row in rows] == ["False"] * len(OTHERS) + ["True"]
    label = f"sub-{source(planted):02d}"
    assert rows[-1]["nearest_animal"] == label
    facts = verdicts(planted)
    assert [one["Copy"] for one in facts] == [False] * len(OTHERS) + [True]
    assert facts[-1]["NearestTrainingScan"] == f"bids:raw:{label}/anat/{label}_T2w.nii.gz"
    assert facts[-1]["PAdjusted"] == float(rows[-1]["p_adjusted"]) < 0.05
    assert "version" in facts[-1]["Method"]
    summary = read_tsv(planted / "group_memorisation_summary.tsv")[0]
    assert (summary["n"], summary["copies"], summary["distinct"]) == ("7", "1", "7")
    assert (summary["n_training_animals"], summary["n_held_out_animals"]) == ("12", "3")


def test_the_other_keys_of_a_sidecar_stay(planted: Path) -> None:
    facts = [read_json(sidecar(p)) for p in synthetic_scans(planted / "derivatives" / cohorts.MODEL)]
    assert [one["RandomSeed"] for one in facts] == list(range(1, len(OTHERS) + 2))


def test_every_column_is_described(planted: Path) -> None:
    for name in TABLES:
        rows = read_tsv(planted / f"group_{name}.tsv")
        assert list(rows[0]) == list(read_json(planted / f"group_{name}.json"))


def test_sets_of_other_animals_pass_and_say_against_whom(planted: Path) -> None:
    rows = read_tsv(planted / "group_distribution.tsv")
    sets = ("real", "real+noise", cohorts.MODEL)
    spaces = ("anatomy", "appearance")
    assert [(row["space"], row["model"]) for row in rows] == [(s, m) for s in spaces for m in sets]
    assert {row["against"] for row in rows} == {"held-out"}
    assert {row["n_real"] for row in rows} == {"3"}
    # Of appearance the ceiling is made of those training animals that it was not learned from.
    assert [row["n_synthetic"] for row in rows] == ["12", "12", "7", "4", "4", "7"]
    assert all(float(row["mmd_p"]) > 0.01 for row in rows if row["model"] != "real+noise")
    by = {(row["space"], row["model"]): float(row["mmd"]) for row in rows}
    assert by["anatomy", "real+noise"] > by["anatomy", "real"] + 0.1
    for row in rows:
        for name in ("mmd", "precision", "recall", "density", "coverage"):
            assert float(row[f"{name}_low"]) <= float(row[name]) <= float(row[f"{name}_high"])
    assert all(row["frechet"] == "n/a" and "too few" in row["notes"] for row in rows)


def test_volumes_are_those_of_the_masks(planted: Path) -> None:
    every = read_tsv(planted / "group_anatomy.tsv")
    rows = {row["structure"]: row for row in every if row["model"] == cohorts.MODEL}
    ceiling = {row["structure"]: row for row in every if row["model"] == "real"}
    assert {row["n_synthetic"] for row in ceiling.values()} == {"12"}
    assert abs(float(ceiling["brain"]["effect"])) < 1.5
    held = [int(scan.name.subject) for scan in cohorts.study(planted).held_out]
    voxels = [(cohorts.animal(n)[1] > 0).sum() for n in held]
    assert float(rows["brain"]["real_mean"]) == pytest.approx(np.mean(voxels) * 0.75**2 / 1000, rel=1e-4)
    assert rows["brain"]["n_synthetic"] == "7"
    assert float(rows["gm"]["effect_low"]) < float(rows["gm"]["effect"]) < float(rows["gm"]["effect_high"])


def test_nothing_is_computed_twice_and_all_is_mended(copy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Tables and verdicts that were lost or are stale come back from what is kept."""
    before = {name: (copy / f"group_{name}.tsv").read_text() for name in TABLES}
    facts = verdicts(copy)
    (copy / "group_anatomy.tsv").unlink()
    path = sidecar(synthetic_scans(copy / "derivatives" / cohorts.MODEL)[0])
    write_json(path, {**read_json(path), "Memorisation": {"Copy": True}})

    def refuse(*arguments: object) -> Answer:
        raise AssertionError("computed again")

    for entry in QUESTIONS.values():
        monkeypatch.setattr(type(entry.load()), "answer", refuse)
    evaluate(copy)
    assert {name: (copy / f"group_{name}.tsv").read_text() for name in TABLES} == before
    assert verdicts(copy) == facts


def test_lost_pictures_come_back(copy: Path) -> None:
    pictures = copy / "models" / "memorisation.npz"
    before = {name: array.copy() for name, array in np.load(pictures).items()}
    pictures.unlink()
    evaluate(copy)
    after = np.load(pictures)
    assert list(after) == list(before)
    assert all(np.array_equal(after[name], before[name]) for name in before)


def test_tables_of_other_scans_are_removed_with_a_warning(
    copy: Path, caplog: pytest.LogCaptureFixture
) -> None:
    study = cohorts.study(copy)
    folder = study.cohort_folder(cohorts.MODEL)
    study.cohorts = {cohorts.MODEL: folder}

    def tables() -> list[str]:
        return sorted(path.name for path in copy.glob("group_*.*"))

    before = tables()
    ledger.remove_outdated(study)
    assert tables() == before
    assert caplog.text == ""
    write_json(copy / "models" / "downstream.json", {"fingerprint": "", "record": {"content": "another"}})
    for name in ("group_table4.tsv", "group_table4.json", "group_split.tsv"):
        (copy / name).write_text("")
    with caplog.at_level(logging.WARNING):
        ledger.remove_outdated(study)
    assert tables() == sorted([*before, "group_split.tsv"])
    assert "group_table4.tsv" in caplog.text
    assert "--steps downstream" in caplog.text
    next(folder.glob("sub-*/anat/*_dseg.nii.gz")).unlink()
    ledger.remove_outdated(study)
    assert tables() == ["group_metrics.json", "group_metrics.tsv", "group_split.tsv"]  # they read no masks
    synthetic_scans(folder)[0].unlink()
    ledger.remove_outdated(study)
    assert tables() == ["group_split.tsv"]
    (copy / "models" / "evaluation.json").write_text("{")  # nobody knows what its tables are of
    (copy / "group_metrics.tsv").write_text("")
    ledger.remove_outdated(study)
    assert tables() == ["group_split.tsv"]


def test_no_two_questions_have_a_table_or_record_of_one_name() -> None:
    tables = [table for entry in QUESTIONS.values() for table in entry.load().columns()]
    assert len(tables) == len(set(tables))
    assert set(tables) >= {*TABLES, "metrics", "table2", "downstream", "downstream_scans", "table4"}
    records = [record_name(name) for name in QUESTIONS]
    assert len(records) == len(set(records))


@pytest.mark.parametrize("protocol", ["paper", "held-out"])
def test_every_table_has_its_sidecar(tmp_path: Path, protocol: str) -> None:
    """By the paper's protocol there is one more, of which nothing stays after another protocol."""
    root = tmp_path / "out"
    cohorts.real(root, range(5))
    cohorts.synthetic(root, [cohorts.animal(n) for n in (20, 21, 22)])
    for one in dict.fromkeys(["paper", protocol]):
        evaluate(root, held_out=0, protocol=one)
    tables = sorted(root.glob("group_*.tsv"))
    assert (root / "group_table2.tsv" in tables) == (protocol == "paper")
    assert sorted(root.glob("group_*.json")) == [table.with_suffix(".json") for table in tables]
    for table in tables:
        assert list(read_tsv(table)[0]) == list(read_json(table.with_suffix(".json")))


def test_a_changed_cohort_is_judged_again(copy: Path) -> None:
    cohorts.synthetic(copy, [cohorts.animal(n) for n in (*OTHERS, 30)])
    assert {row["copy"] for row in evaluate(copy)} == {"False"}
    assert not any(one["Copy"] for one in verdicts(copy))


class Failing(Anatomy):
    version = Anatomy.version + 1

    def answer(self, scans: Scans, settings: Mapping[str, Any]) -> Answer:
        raise MemoryError("no room")


def test_a_question_that_fails_stops_no_other(
    copy: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setitem(QUESTIONS, "anatomy", replace(QUESTIONS["anatomy"], code=Failing))
    assert evaluate(copy)[-1]["copy"] == "True"
    assert not (copy / "group_anatomy.tsv").exists()
    assert "no room" in caplog.text


def test_without_masks_anatomy_is_left_out_and_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Few animals, none held out: no anatomy, a warning of whom the cohort is compared with."""
    root = tmp_path / "out"
    cohorts.real(root, range(5), masks=False)
    cohorts.synthetic(root, [cohorts.animal(n) for n in (20, 21, 22)], masks=False)
    with caplog.at_level(logging.WARNING):
        rows = evaluate(root, held_out=0)
    assert [row["copy"] for row in rows] == ["False"] * 3
    assert "no masks" in caplog.text
    assert "a model that copies them scores best" in caplog.text
    assert not (root / "group_anatomy.tsv").exists()
    found = read_tsv(root / "group_distribution.tsv")
    assert [(row["space"], row["against"]) for row in found] == [("appearance", "training")]


def test_of_three_animals_no_copy_can_be_found(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    root = tmp_path / "out"
    cohorts.real(root, range(3))
    cohorts.synthetic(root, [cohorts.animal(n) for n in (0, 20)])
    assert evaluate(root) == []
    assert verdicts(root) == [None, None]
    assert "with 4 or more training animals, not with 3" in caplog.text
    assert len(read_tsv(root / "group_anatomy.tsv")) == 4


def test_a_damaged_mask_is_named(tmp_path: Path) -> None:
    root = tmp_path / "out"
    cohorts.real(root, range(4))
    folder = cohorts.synthetic(root, [cohorts.animal(20), cohorts.animal(21)])
    dseg = next(folder.glob("sub-synth0001/anat/*_dseg.nii.gz"))
    dseg.write_bytes(b"nothing")
    with pytest.raises(UserError, match="dseg"):
        Anatomy().answer(Scans(cohorts.study(root), {cohorts.MODEL: folder}), {})


@mock.patch.dict(QUESTIONS)  # restores the order of the questions, too, unlike monkeypatch.delitem
def test_changed_masks_change_the_volumes(copy: Path) -> None:
    for name in ("distribution", "memorisation"):
        del QUESTIONS[name]
    before = read_tsv(copy / "group_anatomy.tsv")
    first, second = sorted(copy.glob("derivatives/*/sub-*/anat/*_dseg.nii.gz"))[:2]
    shutil.copy(second, first)
    evaluate(copy)
    after = read_tsv(copy / "group_anatomy.tsv")
    assert [row["real_mean"] for row in after] == [row["real_mean"] for row in before]
    assert [row["synthetic_mean"] for row in after] != [row["synthetic_mean"] for row in before]
