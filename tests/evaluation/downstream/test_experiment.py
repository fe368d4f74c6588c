"""The downstream experiment: the same result after a stop; does it tell a gain from noise?"""

import json
import logging
import signal
from pathlib import Path

import numpy as np
import pytest
import torch
from toy_scans import LEARNING, QUICK, REAL, toys, try_out

from bids_alphagan.common.errors import UserError
from bids_alphagan.common.process.interrupt import Interrupted
from bids_alphagan.common.process.lock import lock
from bids_alphagan.evaluation.downstream import experiment
from bids_alphagan.evaluation.downstream.experiment import run
from bids_alphagan.evaluation.downstream.network import Settings
from bids_alphagan.evaluation.downstream.summary import (
    scan_columns,
    summary_columns,
)
from bids_alphagan.evaluation.downstream.table import Gain, tables_of


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, experiment.Result]:
    torch.set_num_threads(1)
    folder = tmp_path_factory.mktemp("whole")
    return folder, try_out(folder)


def test_rows_and_tables_of_two_models(whole) -> None:
    _, result = whole
    assert len(result.rows) == 4 * 2 * 3 * 4  # arms, seeds, held-out scans, tissues
    assert {row["animal"] for row in result.rows} == set("efg")
    assert all(list(row) == list(scan_columns()) for row in result.rows)
    assert all(set(row) == set(summary_columns()) for row in result.summary)
    tables, columns = tables_of({"a": result, "b": result}), Gain().columns()
    summary, scans, table4 = (tables[name] for name in ("downstream", "downstream_scans", "table4"))
    assert {name: set(rows[0]) for name, rows in tables.items()} == {n: set(c) for n, c in columns.items()}
    assert len(scans) == len(result.rows) * 6 / 4  # two of four arms have synthetic scans
    assert {row["model"] for row in scans if row["arm"] == "r1"} == {None}
    assert {row["model"] for row in scans if row["arm"] == "r1+s1"} == {"a", "b"}
    assert summary[0]["mean"] == result.summary[0]["mean"]
    sets = [(row["test"], row["model"], row["training_set"]) for row in table4]
    assert sets == [
        *((1, None, "r4"), (3, "a", "r4 + s4"), (8, "a", "r2 + s4"), (10, None, "r4, augmented")),
        *((3, "b", "r4 + s4"), (8, "b", "r2 + s4")),
    ]
    gm = [row["dice"] for row in result.rows if (row["arm"], row["tissue"]) == ("r1", "GM")]
    assert float(table4[0]["GM"]) == pytest.approx(np.mean(gm), abs=5e-5)
    assert result.record["held_out"] == list("efg")


def test_every_arm_takes_as_many_steps(whole, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    folder, _ = whole
    records = [json.loads(path.read_text()) for path in sorted(folder.glob("*.json"))]
    assert {(r["n_real"], r["n_synthetic"]) for r in records} == {(4, 0), (4, 4), (2, 4)}
    taken, trainings, step = [], 0, torch.optim.Adam.step

    def counted(self: torch.optim.Adam, *arguments: object) -> object:
        taken.append(trainings)
        return step(self, *arguments)

    def next_training(*arguments: object) -> torch.nn.Module:
        nonlocal trainings
        trainings += 1
        return train(*arguments)

    train = experiment.train_network
    monkeypatch.setattr(torch.optim.Adam, "step", counted)
    monkeypatch.setattr(experiment, "train_network", next_training)
    try_out(tmp_path)
    assert np.bincount(taken).tolist() == [0] + [3] * 8


def test_a_stopped_run_resumes_to_the_same_result(whole, tmp_path, monkeypatch, caplog) -> None:
    folder, expected = whole
    trained: list[object] = []

    def stopped(*arguments: object) -> torch.nn.Module:
        trained.append(arguments)
        if len(trained) == 4:
            signal.raise_signal(signal.SIGTERM)
        return train(*arguments)

    train = experiment.train_network
    monkeypatch.setattr(experiment, "train_network", stopped)
    with pytest.raises(Interrupted, match=r"stopped in r1\+s1"):
        try_out(tmp_path)
    written = {path: path.stat().st_mtime_ns for path in tmp_path.iterdir()}
    assert len(written) == 3
    damaged = sorted(written)[0]
    damaged.write_text(damaged.read_text()[:100])
    with caplog.at_level(logging.INFO, logger="bids_alphagan"):
        result = try_out(tmp_path)
    assert (result.rows, result.summary) == (expected.rows, expected.summary)
    assert len(trained) == 4 + 6  # the one that was stopped, the damaged one, four that had not begun
    assert {path.name for path in tmp_path.iterdir()} == {path.name for path in folder.iterdir()}
    assert "2 of 8 trainings are already done" in caplog.text
    assert "8 of 8 trainings done, about 0 s left" in caplog.text
    try_out(tmp_path)
    assert len(trained) == 10


def test_other_scans_or_settings_are_trained_again_and_more_seeds_are_not(whole, tmp_path, monkeypatch):
    trained: list[object] = []
    train = experiment.train_network
    monkeypatch.setattr(experiment, "train_network", lambda *a: trained.append(a) or train(*a))
    one = Settings(**{**vars(QUICK), "arms": QUICK.arms[:2], "seeds": 1})
    try_out(tmp_path, one)
    for changed, more in (
        ({"seeds": 2}, 2),
        ({"arms": QUICK.arms[:3]}, 1),
        ({"steps": 4}, 2),
        ({"learning_rate": 0.02}, 2),
    ):
        before = len(trained)
        last = Settings(**{**vars(one), **changed})
        rows = try_out(tmp_path, last).rows
        assert len(trained) == before + more, changed
    before = len(trained)
    again = run(REAL, toys("stuv", seed=2), "efg", "ab", last, tmp_path)
    assert len(trained) == before + 1  # what takes no synthetic scans is as it was
    real_alone = [row for row in rows if row["arm"] == "r1"]
    assert [row for row in again.rows if row["arm"] == "r1"] == real_alone
    assert again.rows != rows


def test_two_runs_in_one_folder_are_refused(tmp_path: Path) -> None:
    with lock(tmp_path), pytest.raises(UserError, match="Another run"):
        try_out(tmp_path)


def test_what_the_real_scans_lack_is_called_a_gain_and_noise_is_not(tmp_path: Path) -> None:
    """Held-out animals are negatives, the real ones are not: what teaches negatives must help."""
    positives = toys("abcdefghijklmnop")
    negatives = [scan._replace(image=1 - scan.image) for scan in positives]
    test, few, more = negatives[:6], positives[6:8], negatives[8:]
    held_out, seen = {scan.animal for scan in test}, {few[0].animal}
    result = run([*test, *few], more, held_out, seen, LEARNING, tmp_path)
    compared = {(row["measure"], row["tissue"]): row for row in result.summary if row["compared_with"]}
    assert compared["dice", "global"]["gain"] > 0.1
    assert compared["dice", "global"]["resolved"] == "yes"

    source = np.random.default_rng(0)
    noise = [
        scan._replace(
            image=source.random(scan.image.shape, dtype=np.float32),
            labels=source.permutation(scan.labels.ravel()).reshape(scan.labels.shape),
        )
        for scan in more
    ]
    result = run([*positives[:6], *few], noise, held_out, seen, LEARNING, tmp_path)
    compared = {(row["measure"], row["tissue"]): row for row in result.summary if row["compared_with"]}
    assert not [row for row in compared.values() if row["resolved"] == "yes" and row["gain"] > 0]
    assert compared["dice", "global"]["gain"] < 0
