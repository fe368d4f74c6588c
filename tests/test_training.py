import json
import logging
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from bids_alphagan.errors import UserError
from bids_alphagan.files import read_json, read_tsv
from bids_alphagan.models import MODELS, variant
from bids_alphagan.models.networks import Networks, build_networks
from bids_alphagan.training import (
    Interrupted,
    TrainSettings,
    checkpoint,
    draw_latent,
    generate,
    load_generator,
    loop,
    train,
)
from bids_alphagan.training.batches import Batches
from bids_alphagan.training.data import data_hash
from bids_alphagan.training.phases import PHASES, Batch, iteration, total

TINY = TrainSettings(iterations=4, batch_size=2, channels=2, latent=5, log_every=1, checkpoint_every=2)
VOLUMES = np.random.default_rng(0).uniform(-1, 1, (3, 1, 16, 16, 16)).astype(np.float32)


def settings(**changes: object) -> TrainSettings:
    return TrainSettings(**(vars(TINY) | changes))  # type: ignore[arg-type]


def weights(folder: Path) -> dict[str, torch.Tensor]:
    path = sorted((folder / "checkpoints").glob("*.safetensors"))[-1]
    return {name: tensor.clone() for name, tensor in load_file(path).items()}  # of views of the file


def same(left: dict[str, torch.Tensor], right: dict[str, torch.Tensor]) -> bool:
    return left.keys() == right.keys() and all(torch.equal(left[name], right[name]) for name in left)


# Phases


def networks(name: str) -> Networks:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        return build_networks(MODELS[name], 16, 2, 5)


TERMS = [
    (model, phase.name, term)
    for model, spec in MODELS.items()
    for phase in PHASES
    for term in (
        ["adversarial", "code_adversarial", *spec.reconstruction]
        if phase.name == "generator"
        else ["wasserstein", "penalty"]
    )
]
# what a term of the generator's loss can reach: the code's term says nothing about the generator
REACH = {"code_adversarial": {"encoder"}}


@pytest.mark.parametrize(("model", "phase_name", "term"), TERMS)
def test_each_term_alone_moves_its_own_phase_and_no_other_network(model, phase_name, term):
    nets = networks(model)
    (phase,) = [phase for phase in PHASES if phase.name == phase_name]
    for name, network in vars(nets).items():
        network.requires_grad_(name in phase.networks)
    real = torch.as_tensor(VOLUMES)
    batch = Batch(real, nets.encoder(real), torch.randn(3, 5), torch.rand(2, 3), one_pass=True)
    terms = phase.terms(nets, batch, MODELS[model])
    before = {name: [p.clone() for p in n.parameters()] for name, n in vars(nets).items()}
    optimiser = torch.optim.SGD([p for n in vars(nets).values() for p in n.parameters()], lr=1.0)
    terms[term].backward()
    optimiser.step()
    moved = {
        name
        for name, n in vars(nets).items()
        if any(not torch.equal(p, q) for p, q in zip(n.parameters(), before[name], strict=True))
    }
    assert moved == REACH.get(term, set(phase.networks))


@pytest.mark.parametrize("model", MODELS)
def test_the_loss_is_the_weighted_sum_of_its_terms(model):
    spec, nets = MODELS[model], networks(model)
    optimisers = {name: torch.optim.SGD(n.parameters(), lr=1e-4) for name, n in vars(nets).items()}
    got = iteration(nets, optimisers, Batches(VOLUMES, 2, seed=0), spec, TINY, step=0)
    weight = {"penalty": spec.gradient_penalty} | spec.reconstruction
    for phase in PHASES:
        names = [n for n in got if n.startswith(phase.name + "_") and not n.endswith("_loss")]
        sums = sum(weight.get(n.removeprefix(phase.name + "_"), 1) * got[n].item() for n in names)
        assert got[f"{phase.name}_loss"].item() == pytest.approx(sums, rel=1e-5)


def test_phases_train_every_network_once_in_the_papers_order():
    assert [phase.networks for phase in PHASES] == [
        ("generator", "encoder"),
        ("discriminator",),
        ("code_discriminator",),
    ]
    assert Counter(name for phase in PHASES for name in phase.networks) == dict.fromkeys(
        vars(networks("adni")), 1
    )


# Runs


@pytest.mark.parametrize("model", MODELS)
def test_a_resumed_run_equals_an_uninterrupted_one_bit_for_bit(tmp_path, model):
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    train(VOLUMES, MODELS[model], settings(iterations=5), whole)
    for iterations in (1, 3, 5):
        result = train(VOLUMES, MODELS[model], settings(iterations=iterations), parts)
        assert result.step == iterations
    assert same(weights(whole), weights(parts))
    assert (whole / "losses.tsv").read_text() == (parts / "losses.tsv").read_text()
    assert same(load_file(whole / "generator.safetensors"), load_file(parts / "generator.safetensors"))
    assert read_json(whole / "config.json") == read_json(parts / "config.json")


def test_the_seed_decides(tmp_path):
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        torch.manual_seed(os.getpid())  # the caller's random state must not matter
        state = torch.get_rng_state()
        train(VOLUMES, MODELS["sigmarat2"], settings(seed=seed, iterations=2), tmp_path / name)
        assert torch.equal(state, torch.get_rng_state())
    assert same(weights(tmp_path / "a"), weights(tmp_path / "b"))
    assert not same(weights(tmp_path / "a"), weights(tmp_path / "c"))


@pytest.mark.parametrize(
    "change",
    [
        {"batch_size": 3},
        {"seed": 1},
        {"learning_rate": 1e-3},
        {"channels": 3},
        {"latent": 4},
        {"precision": "bf16"},
    ],
)
def test_settings_change_the_weights_and_may_not_change_on_resuming(tmp_path, change):
    spec = MODELS["sigmarat2"]
    train(VOLUMES, spec, settings(iterations=2), tmp_path / "a")
    train(VOLUMES, spec, settings(iterations=2, **change), tmp_path / "b")
    assert not same(weights(tmp_path / "a"), weights(tmp_path / "b"))
    ((key, value),) = change.items()
    before = weights(tmp_path / "a")
    with pytest.raises(UserError, match=rf"settings\.{key} is {value!r}, was .*--resume never"):
        train(VOLUMES, spec, settings(**change), tmp_path / "a")
    assert same(weights(tmp_path / "a"), before)
    result = train(VOLUMES, spec, settings(iterations=2, **change), tmp_path / "a", resume=False)
    assert result.step == 2
    assert same(weights(tmp_path / "a"), weights(tmp_path / "b"))


def test_the_variants_train_differently_and_are_not_mixed(tmp_path):
    released = variant(MODELS["sigmarat2"], "released")
    train(VOLUMES, MODELS["sigmarat2"], settings(iterations=1), tmp_path / "a")
    train(VOLUMES, released, settings(iterations=1), tmp_path / "b")
    assert not same(weights(tmp_path / "a"), weights(tmp_path / "b"))
    with pytest.raises(UserError, match=r"model\.generator_updates is 2, was 1"):
        train(VOLUMES, released, settings(iterations=2), tmp_path / "a")


def test_a_term_without_gradient_counts_and_trains_nothing():
    spec = variant(MODELS["sigmarat2"], "released")
    terms = {"gdl": torch.tensor(3.0, requires_grad=True), "mse": torch.tensor(2.0, requires_grad=True)}
    loss = total(terms, spec)
    loss.backward()
    assert loss.item() == pytest.approx(0.03 + 200)
    assert terms["gdl"].grad is None
    assert terms["mse"].grad.item() == 100


def test_other_data_or_another_model_is_refused_by_name(tmp_path):
    train(VOLUMES, MODELS["sigmarat2"], settings(iterations=1), tmp_path)
    with pytest.raises(UserError, match=r"data\.scans is 2, was 3; data\.sha256"):
        train(VOLUMES[:2], MODELS["sigmarat2"], TINY, tmp_path)
    with pytest.raises(UserError, match=r"model\.name is 'sigmarat1', was 'sigmarat2'"):
        train(VOLUMES, MODELS["sigmarat1"], TINY, tmp_path)


def test_what_a_run_leaves(tmp_path):
    result = train(VOLUMES, MODELS["sigmarat1"], settings(iterations=7, log_every=3), tmp_path)
    files = {str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*") if path.is_file()}
    assert {name for name in files if not name.startswith("tensorboard/events.")} == {
        "checkpoints/step-000006.safetensors",
        "checkpoints/step-000007.safetensors",
        "config.json",
        "generator.safetensors",
        "losses.tsv",
    }
    assert result.generator == tmp_path / "generator.safetensors"
    config = read_json(tmp_path / "config.json")
    assert config["data"] == {"scans": 3, "shape": [16, 16, 16], "sha256": data_hash(VOLUMES)}
    assert config["settings"] | {"iterations": 4, "log_every": 1} == json.loads(json.dumps(vars(TINY)))
    assert config["model"]["reconstruction"] == {"l1": 10, "mse": 10}
    rows = read_tsv(tmp_path / "losses.tsv")
    assert [row["step"] for row in rows] == ["1", "3", "6"]
    assert list(rows[0])[1:6] == [
        "generator_loss",
        "generator_adversarial",
        "generator_code_adversarial",
        "generator_l1",
        "generator_mse",
    ]
    assert all(np.isfinite(float(value)) for row in rows for value in row.values())


def test_training_moves_all_networks_and_the_generator_is_the_last_one(tmp_path):
    train(VOLUMES, MODELS["sigmarat2"], settings(iterations=1), tmp_path)
    first = weights(tmp_path)
    train(VOLUMES, MODELS["sigmarat2"], settings(iterations=2), tmp_path)
    last = weights(tmp_path)
    for name, tensor in last.items():
        if name.startswith("network.") and not name.endswith(("_u", "_v")):
            assert not torch.equal(tensor, first[name]), name
    saved = load_file(tmp_path / "generator.safetensors")
    assert all(torch.equal(tensor, last[f"network.generator.{name}"]) for name, tensor in saved.items())
    latents = draw_latent(0, 5)[None]
    assert generate(load_generator(tmp_path), latents).shape == (1, 16, 16, 16)


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
    spec = MODELS["sigmarat2"]
    train(VOLUMES, spec, TINY, tmp_path)
    expected, table = weights(tmp_path), (tmp_path / "losses.tsv").read_text()
    newest = tmp_path / "checkpoints" / "step-000004.safetensors"
    damage(newest, how)
    with caplog.at_level(logging.INFO):
        train(VOLUMES, spec, TINY, tmp_path)
    assert f"{newest} is damaged" in caplog.text
    assert "from its checkpoint at iteration 2" in caplog.text
    assert same(weights(tmp_path), expected)
    assert (tmp_path / "losses.tsv").read_text() == table


def test_a_loss_that_is_not_finite_stops_the_run_and_leaves_the_checkpoint(tmp_path):
    spec = MODELS["sigmarat2"]
    train(VOLUMES, spec, settings(iterations=2), tmp_path)
    good = weights(tmp_path)
    broken = np.full_like(VOLUMES, np.inf)
    with pytest.raises(UserError, match=r"iteration 1 generator_loss.* is not a finite number"):
        train(broken, spec, TINY, tmp_path / "broken")
    assert not list((tmp_path / "broken" / "checkpoints").glob("*"))

    path = tmp_path / "checkpoints" / "step-000002.safetensors"
    found = checkpoint.newest(path.parent)
    nets = networks("sigmarat2")
    checkpoint.restore(found, vars(nets), {})
    assert torch.equal(nets.generator[0].weight, good["network.generator.0.weight"])


def test_weights_that_are_not_finite_are_not_kept(tmp_path, monkeypatch):
    def broken_update(networks: Networks, *others: object) -> dict[str, torch.Tensor]:
        terms = iteration(networks, *others)
        networks.encoder[0].bias.data[0] = torch.nan
        return terms

    monkeypatch.setattr(loop, "iteration", broken_update)
    with pytest.raises(UserError, match="iteration 1 a weight of the encoder is not a finite number"):
        train(VOLUMES, MODELS["sigmarat2"], settings(checkpoint_every=1), tmp_path)
    assert not list((tmp_path / "checkpoints").glob("*"))


@pytest.mark.parametrize("model", ["adni", "sigmarat1"])
def test_a_batch_of_one_cannot_be_normalised(tmp_path, model):
    with pytest.raises(UserError, match="at least 2"):
        train(VOLUMES, MODELS[model], settings(batch_size=1), tmp_path)
    assert not list(tmp_path.iterdir())


def test_an_impossible_grid_is_an_error_before_anything_is_written(tmp_path):
    with pytest.raises(UserError, match="power of two"):
        train(np.zeros((2, 1, 18, 18, 18), np.float32), MODELS["sigmarat2"], TINY, tmp_path / "new")
    assert not (tmp_path / "new").exists()


RUN = """
import sys, numpy as np
from pathlib import Path
from bids_alphagan.models import MODELS, variant
from bids_alphagan.training import Interrupted, TrainSettings, train
settings = TrainSettings(10**6, batch_size=2, channels=2, latent=5)
volumes = np.random.default_rng(0).uniform(-1, 1, (3, 1, 16, 16, 16)).astype(np.float32)
try:
    train(volumes, MODELS["sigmarat2"], settings, Path(sys.argv[1]))
except Interrupted as stop:
    print(stop)
    sys.exit(128 + stop.by)
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_the_iteration_saves_and_gives_the_handlers_back(tmp_path, monkeypatch, number):
    def interrupted(*arguments: object) -> dict[str, torch.Tensor]:
        if arguments[-1] == 2:
            signal.raise_signal(number)
            assert signal.getsignal(number) is before  # a second one acts at once
        return iteration(*arguments)

    before = signal.getsignal(number)
    monkeypatch.setattr(loop, "iteration", interrupted)
    with pytest.raises(Interrupted, match="iteration 3") as caught:
        train(VOLUMES, MODELS["sigmarat2"], settings(iterations=9), tmp_path)
    assert caught.value.by == number
    assert signal.getsignal(number) is before
    assert checkpoint.newest(tmp_path / "checkpoints").step == 3
    assert not (tmp_path / "generator.safetensors").exists()


def test_a_stopped_process_leaves_a_checkpoint_from_which_the_run_ends_as_if_never_stopped(tmp_path):
    stopped, whole = tmp_path / "stopped", tmp_path / "whole"
    process = subprocess.Popen([sys.executable, "-c", RUN, str(stopped)], stdout=subprocess.PIPE, text=True)
    table = stopped / "losses.tsv"
    while process.poll() is None and not (table.is_file() and table.read_text().count("\n") > 1):
        time.sleep(0.01)
    process.terminate()
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 128 + signal.SIGTERM
    assert "by SIGTERM; the state is saved" in output

    goal = settings(iterations=checkpoint.newest(stopped / "checkpoints").step + 2)
    for folder in (stopped, whole):
        train(VOLUMES, MODELS["sigmarat2"], goal, folder)
    assert same(weights(stopped), weights(whole))
