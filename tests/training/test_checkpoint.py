"""A run resumes from its checkpoints: bit for bit, and only as the run that it is."""

import json
import logging
import random
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from training_runs import TINY, VOLUMES, leaves, same, settings, weights

import bids_alphagan
from bids_alphagan.common.errors import UserError
from bids_alphagan.common.files import read_json, read_tsv
from bids_alphagan.models import MODELS, load_model
from bids_alphagan.training import checkpoint, loop, phases
from bids_alphagan.training.configuration import configuration, differences
from bids_alphagan.training.data import Volumes, data_hash
from bids_alphagan.training.loop import train
from bids_alphagan.training.phases import batches_in
from bids_alphagan.training.state import State, stream

MODEL = load_model("sigmarat2")


@pytest.mark.parametrize("model", MODELS)
def test_a_resumed_run_equals_an_uninterrupted_one_bit_for_bit(tmp_path, model):
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    train(VOLUMES, load_model(model), settings(iterations=5), whole)
    for iterations in (1, 3, 5):
        result = train(VOLUMES, load_model(model), settings(iterations=iterations), parts)
        assert result.step == iterations
    assert same(weights(whole), weights(parts))
    assert (whole / "losses.tsv").read_text() == (parts / "losses.tsv").read_text()
    assert same(load_file(whole / "generator.safetensors"), load_file(parts / "generator.safetensors"))
    assert read_json(whole / "config.json") == read_json(parts / "config.json")


@pytest.mark.parametrize(
    "change",
    [
        {"batch_size": 3},
        {"seed": 1},
        {"learning_rate": 1e-3},
        {"channels": 3},
        {"latent": 4},
        {"ema_decay": 0.9},
        {"adam_betas": [0.0, 0.9]},
        {"precision": "bf16"},
    ],
)
def test_settings_change_the_weights_and_may_not_change_on_resuming(tmp_path, change):
    train(VOLUMES, MODEL, settings(iterations=2), tmp_path / "a")
    train(VOLUMES, MODEL, settings(iterations=2, **change), tmp_path / "b")
    assert not same(weights(tmp_path / "a"), weights(tmp_path / "b"))
    ((key, value),) = change.items()
    before = weights(tmp_path / "a")
    with pytest.raises(
        UserError, match=rf"settings\.{key} is {re.escape(repr(value))}, was .*--resume never"
    ):
        train(VOLUMES, MODEL, settings(**change), tmp_path / "a")
    assert same(weights(tmp_path / "a"), before)
    result = train(VOLUMES, MODEL, settings(iterations=2, **change), tmp_path / "a", resume=False)
    assert result.step == 2
    assert same(weights(tmp_path / "a"), weights(tmp_path / "b"))


def test_other_data_or_another_model_is_refused_by_name(tmp_path):
    train(VOLUMES, MODEL, settings(iterations=1), tmp_path)
    with pytest.raises(UserError, match=r"data\.scans is 2, was 3; data\.sha256"):
        train(VOLUMES[:2], MODEL, TINY, tmp_path)
    with pytest.raises(UserError, match=r"model\.name is 'sigmarat1', was 'sigmarat2'"):
        train(VOLUMES, load_model("sigmarat1"), TINY, tmp_path)


def damage(path: Path, how: str) -> None:
    content = path.read_bytes()
    middle = len(content) * 3 // 4
    path.write_bytes(
        {
            "empty": b"",
            "truncated": content[:middle],
            "zeros": content[:middle] + bytes(len(content) - middle),
            "no metadata": content[:8] + content[8:].replace(b'"crc32"', b'"crc_2"', 1),
        }[how]
    )


@pytest.mark.parametrize("how", ["empty", "truncated", "zeros", "no metadata"])
def test_a_damaged_checkpoint_falls_back_to_the_one_before(tmp_path, caplog, how):
    train(VOLUMES, MODEL, TINY, tmp_path)
    expected, table = weights(tmp_path), (tmp_path / "losses.tsv").read_text()
    newest = tmp_path / "checkpoints" / "step-000004.safetensors"
    damage(newest, how)
    with caplog.at_level(logging.INFO):
        train(VOLUMES, MODEL, TINY, tmp_path)
    assert f"{newest} is damaged" in caplog.text
    assert "from its checkpoint at iteration 2" in caplog.text
    assert same(weights(tmp_path), expected)
    assert (tmp_path / "losses.tsv").read_text() == table


def test_a_run_whose_checkpoints_are_all_damaged_is_not_thrown_away(tmp_path):
    train(VOLUMES, MODEL, TINY, tmp_path)
    for path in (tmp_path / "checkpoints").iterdir():
        damage(path, "truncated")
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    before = {path: path.read_bytes() for path in files}
    with pytest.raises(UserError, match=r"No checkpoint in .*checkpoints can be read.*--resume never"):
        train(VOLUMES, MODEL, TINY, tmp_path)
    assert {path: path.read_bytes() for path in files} == before


def test_a_disk_that_does_not_give_a_checkpoint_costs_none(tmp_path, monkeypatch):
    train(VOLUMES, MODEL, TINY, tmp_path)
    before = weights(tmp_path)

    def stale(*arguments: object, **options: object) -> None:
        raise OSError(116, "Stale file handle")

    with monkeypatch.context() as patch:
        patch.setattr(checkpoint, "safe_open", stale)
        with pytest.raises(UserError, match=r"cannot be read .*Stale.*Try again"):
            train(VOLUMES, MODEL, settings(iterations=5), tmp_path)
    assert same(weights(tmp_path), before)
    (tmp_path / "checkpoints" / "step-old.safetensors").write_bytes(b"not ours")
    assert train(VOLUMES, MODEL, settings(iterations=5), tmp_path).step == 5


def test_a_full_disk_is_one_clear_error_and_keeps_what_there_is(tmp_path, monkeypatch):
    def full(*arguments: object, **options: object) -> None:
        if Path(arguments[1]).suffixes[-1:] == [".safetensors"]:
            raise OSError(28, "No space left on device")

    train(VOLUMES, MODEL, settings(iterations=2), tmp_path)
    before = weights(tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr(checkpoint, "save_file", full)
        with pytest.raises(
            UserError,
            match=r"iteration 4 cannot .*No space.*Free some space or give fewer --keep-checkpoints",
        ):
            train(VOLUMES, MODEL, TINY, tmp_path)
    assert same(weights(tmp_path), before)
    assert train(VOLUMES, MODEL, TINY, tmp_path).step == 4


def test_work_is_kept_after_some_minutes_whatever_the_iterations(tmp_path, monkeypatch):
    rare = settings(iterations=3, checkpoint_every=100)
    train(VOLUMES, MODEL, rare, tmp_path / "whole")

    def dies(*arguments: object) -> object:
        if arguments[-1] == 2:
            raise KeyboardInterrupt
        return phases.iteration(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(loop, "AT_RISK", 0.0)
        patch.setattr(loop, "iteration", dies)
        with pytest.raises(KeyboardInterrupt):
            train(VOLUMES, MODEL, rare, tmp_path / "cut")
    assert checkpoint.newest(tmp_path / "cut" / "checkpoints").step == 2
    train(VOLUMES, MODEL, rare, tmp_path / "cut")
    assert leaves(tmp_path / "cut") == leaves(tmp_path / "whole")


def test_settings_that_a_former_version_did_not_know_have_their_defaults():
    volumes = Volumes.of(VOLUMES)
    now = configuration(volumes, MODEL, TINY)
    before = {**now, "settings": {k: v for k, v in now["settings"].items() if k != "ema_decay"}}
    assert not differences(before, now)
    assert differences(before, configuration(volumes, MODEL, settings(ema_decay=0.5)))


def test_a_checkpoint_is_everything(tmp_path):
    train(VOLUMES, MODEL, TINY, tmp_path)
    newest = checkpoint.newest(tmp_path / "checkpoints")
    assert {name.rpartition(".")[0].partition(".")[0] for name in newest.tensors} == {"network", "optimiser"}
    assert newest.info["settings"] == json.loads(json.dumps(vars(TINY)))
    assert newest.info["data"]["sha256"] == data_hash(VOLUMES)
    assert newest.info["versions"]["bids_alphagan"] == bids_alphagan.__version__
    assert newest.info["versions"]["torch"] == str(torch.__version__)
    assert (newest.info["step"], newest.info["next_batch"], newest.info["rollbacks"]) == (4, 8, 0)


def test_no_global_random_state_matters_or_is_touched(tmp_path):
    for seed in (1, 2):
        random.seed(seed)
        np.random.seed(seed)
        torch.manual_seed(seed)
        before = random.getstate(), str(np.random.get_state()), torch.get_rng_state().tolist()
        train(VOLUMES, load_model("adni"), TINY, tmp_path / str(seed))
        after = random.getstate(), str(np.random.get_state()), torch.get_rng_state().tolist()
        assert after == before
    assert leaves(tmp_path / "1") == leaves(tmp_path / "2")


def steps(folder: Path) -> list[int]:
    return sorted(int(path.stem.split("-")[1]) for path in (folder / "checkpoints").iterdir())


def test_the_last_and_the_best_are_kept(tmp_path):
    train(VOLUMES, MODEL, settings(iterations=7, checkpoint_every=1, keep_checkpoints=3), tmp_path)
    rows = read_tsv(tmp_path / "health.tsv")
    best = min(rows, key=lambda row: float(row["distance"]))
    assert [row["step"] for row in rows] == ["1", "2", "3", "4", "5", "6", "7"]
    assert steps(tmp_path) == sorted({5, 6, 7, int(best["step"])})
    kept = checkpoint.newest(tmp_path / "checkpoints").info["best"]
    assert kept == {"step": int(best["step"]), "distance": pytest.approx(float(best["distance"]), rel=1e-5)}
    # may change between runs
    train(VOLUMES, MODEL, settings(iterations=8, checkpoint_every=1), tmp_path)
    assert {7, 8} <= set(steps(tmp_path)) <= {7, 8, int(best["step"])}


def test_the_best_is_kept_however_old_it_gets():
    state = State(best={"step": 2, "distance": 0.1})
    for step in (2, 4, 6, 8):
        state.step = step
        state.saved(keep=2)
    assert state.kept(2) == {2, 6, 8}
    state.step = 9  # interrupted: neither regular nor one to go back to
    assert state.kept(2) == {2, 8, 9}
    assert state.regular == [6, 8]
    assert State.read(json.loads(json.dumps(state.info(batches_in(MODEL))))) == state


def test_an_interruption_decides_nothing(tmp_path):
    """One that ended at iteration 3 for a while has no third candidate for the best, nor another file."""
    train(VOLUMES, MODEL, settings(iterations=3), tmp_path / "parts")
    train(VOLUMES, MODEL, settings(iterations=6), tmp_path / "parts")
    train(VOLUMES, MODEL, settings(iterations=6), tmp_path / "whole")
    parts, whole = leaves(tmp_path / "parts"), leaves(tmp_path / "whole")
    del parts["samples/step-000003.npy"]
    assert parts.keys() == whole.keys()
    assert all(parts[name] == whole[name] for name in ("losses.tsv", "health.tsv", "samples/step-000006.npy"))
    infos = [checkpoint.newest(tmp_path / name / "checkpoints").info for name in ("parts", "whole")]
    assert infos[0] == infos[1]


def test_the_best_generator_can_be_chosen_and_the_last_again(tmp_path, caplog):
    few = settings(iterations=6, checkpoint_every=1, learning_rate=0.05)
    train(VOLUMES, MODEL, few, tmp_path)
    best = checkpoint.newest(tmp_path / "checkpoints").info["best"]["step"]
    assert best < 6, "choose another seed: this test needs a best that is not the last"
    last = load_file(tmp_path / "generator.safetensors")
    last = {name: tensor.clone() for name, tensor in last.items()}

    train(VOLUMES, MODEL, replace(few, use_checkpoint="best"), tmp_path)
    chosen = load_file(tmp_path / "checkpoints" / f"step-{best:06d}.safetensors")
    written = load_file(tmp_path / "generator.safetensors")
    assert all(torch.equal(tensor, chosen[f"network.generator.{name}"]) for name, tensor in written.items())
    info = MODEL.load(tmp_path).info
    assert (info["step"], info["trained"], info["checkpoint"]) == (best, 6, "best")
    assert not same(written, last)

    train(VOLUMES, MODEL, few, tmp_path)
    assert same(load_file(tmp_path / "generator.safetensors"), last)

    damage(tmp_path / "checkpoints" / f"step-{best:06d}.safetensors", "truncated")
    train(VOLUMES, MODEL, replace(few, use_checkpoint="best"), tmp_path)
    assert "The best checkpoint cannot be read: using the last generator" in caplog.text
    assert same(load_file(tmp_path / "generator.safetensors"), last)


def test_a_run_of_another_version_resumes_with_a_warning(tmp_path, caplog, monkeypatch):
    train(VOLUMES, MODEL, settings(iterations=2), tmp_path)
    train(VOLUMES, MODEL, settings(iterations=3), tmp_path)
    assert "other software versions" not in caplog.text
    monkeypatch.setattr("bids_alphagan.training.configuration.__version__", "99.0")
    train(VOLUMES, MODEL, settings(iterations=4), tmp_path)
    assert "other software versions, whose numbers may differ: bids_alphagan is 99.0, was 0." in caplog.text


def test_the_random_numbers_after_a_rollback_are_others_each_time():
    seeds = [stream(replace(TINY, seed=seed), n).seed for seed in range(5) for n in range(4)]
    assert seeds[::4] == [0, 1, 2, 3, 4]
    assert len(set(seeds)) == 20
    assert 0 <= min(seeds) <= max(seeds) < 2**31
