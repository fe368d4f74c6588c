import json
import os
from collections import Counter

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import nn
from training_runs import TINY, VOLUMES, heads, same, settings, weights

from bids_alphagan.common.errors import UserError
from bids_alphagan.common.files import read_json, read_tsv
from bids_alphagan.models import MODELS, load_model
from bids_alphagan.models.alphagan.spec import SPECS
from bids_alphagan.models.base import Batch, Networks
from bids_alphagan.training.data import Batches, data_hash
from bids_alphagan.training.loop import train
from bids_alphagan.training.phases import initial_networks, iteration, total

# Phases


def networks(name: str) -> Networks:
    return initial_networks(load_model(name), settings(seed=1), 16)


TERMS = [
    (model, phase.name, term)
    for model, spec in SPECS.items()
    for phase in load_model(model).phases
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
    phases = load_model(model).phases
    batch = Batch(
        real=torch.as_tensor(VOLUMES),
        one_pass=True,
        normal=lambda length: torch.randn(3, length),
        uniform=lambda n: torch.rand(n, 3),
    )
    for phase in phases:  # an earlier one hands on what a later one needs
        batch.handed = {} if phase.new_scans else batch.handed
        for name, network in nets.items():
            network.requires_grad_(name in phase.networks)
        terms = phase.terms(nets, batch)
        if phase.name == phase_name:
            break
        batch.handed = {name: codes.detach() for name, codes in batch.handed.items()}
    before = {name: [p.clone() for p in n.parameters()] for name, n in nets.items()}
    optimiser = torch.optim.SGD([p for n in nets.values() for p in n.parameters()], lr=1.0)
    terms[term].backward()
    optimiser.step()
    moved = {
        name
        for name, n in nets.items()
        if any(not torch.equal(p, q) for p, q in zip(n.parameters(), before[name], strict=True))
    }
    assert moved == REACH.get(term, set(phase.networks))


@pytest.mark.parametrize("model", MODELS)
def test_the_loss_is_the_weighted_sum_of_its_terms(model):
    spec, nets = SPECS[model], networks(model)
    optimisers = {name: torch.optim.SGD(n.parameters(), lr=1e-4) for name, n in nets.items()}
    got = iteration(nets, optimisers, Batches(VOLUMES, 2, seed=0), load_model(model), TINY, step=0)
    weight = {"penalty": spec.gradient_penalty} | spec.reconstruction
    for phase in load_model(model).phases:
        names = [n for n in got if n.startswith(phase.name + "_") and not n.endswith("_loss")]
        sums = sum(weight.get(n.removeprefix(phase.name + "_"), 1) * got[n].item() for n in names)
        assert got[f"{phase.name}_loss"].item() == pytest.approx(sums, rel=1e-5)


@pytest.mark.parametrize("model", MODELS)
def test_phases_train_every_network_once_in_the_papers_order(model):
    phases = load_model(model).phases
    assert [phase.networks for phase in phases] == [
        ("generator", "encoder"),
        ("discriminator",),
        ("code_discriminator",),
    ]
    assert Counter(name for phase in phases for name in phase.networks) == dict.fromkeys(networks(model), 1)


# Runs


def test_the_seed_decides(tmp_path):
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        torch.manual_seed(os.getpid())  # the caller's random state must not matter
        state = torch.get_rng_state()
        train(VOLUMES, load_model("sigmarat2"), settings(seed=seed, iterations=2), tmp_path / name)
        assert torch.equal(state, torch.get_rng_state())
    assert same(weights(tmp_path / "a"), weights(tmp_path / "b"))
    assert not same(weights(tmp_path / "a"), weights(tmp_path / "c"))


def test_the_variants_train_differently_and_are_not_mixed(tmp_path):
    released = load_model("sigmarat2", "released")
    train(VOLUMES, load_model("sigmarat2"), settings(iterations=1), tmp_path / "a")
    train(VOLUMES, released, settings(iterations=1), tmp_path / "b")
    assert not same(weights(tmp_path / "a"), weights(tmp_path / "b"))
    with pytest.raises(UserError, match=r"model\.generator_updates is 2, was 1"):
        train(VOLUMES, released, settings(iterations=2), tmp_path / "a")


def test_a_term_without_gradient_counts_and_trains_nothing():
    phase = load_model("sigmarat2", "released").phases[0]
    terms = {"gdl": torch.tensor(3.0, requires_grad=True), "mse": torch.tensor(2.0, requires_grad=True)}
    loss = total(terms, phase)
    loss.backward()
    assert loss.item() == pytest.approx(0.03 + 200)
    assert terms["gdl"].grad is None
    assert terms["mse"].grad.item() == 100


def test_what_a_run_leaves(tmp_path):
    result = train(VOLUMES, load_model("sigmarat1"), settings(iterations=7, log_every=3), tmp_path)
    files = {str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*") if path.is_file()}
    assert {name for name in files if not name.startswith("tensorboard/events.")} == {
        "checkpoints/step-000006.safetensors",
        "checkpoints/step-000007.safetensors",
        "config.json",
        "generator.safetensors",
        "health.tsv",
        "losses.tsv",
        "samples/step-000007.npy",
    }
    assert result.parameters == tmp_path / "generator.safetensors"
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
    model = load_model("sigmarat2")
    train(VOLUMES, model, settings(iterations=1), tmp_path)
    first = weights(tmp_path)
    train(VOLUMES, model, settings(iterations=2), tmp_path)
    last = weights(tmp_path)
    for name, tensor in last.items():
        if name.startswith("network.") and not name.endswith(("_u", "_v")):
            assert not torch.equal(tensor, first[name]), name
    saved = load_file(tmp_path / "generator.safetensors")
    assert all(torch.equal(tensor, last[f"network.generator.{name}"]) for name, tensor in saved.items())
    assert model.load(tmp_path).draw([0]).shape == (1, 1, 16, 16, 16)


@pytest.mark.parametrize("model", ["adni", "sigmarat1"])
def test_a_batch_of_one_cannot_be_normalised(tmp_path, model):
    with pytest.raises(UserError, match="at least 2"):
        train(VOLUMES, load_model(model), settings(batch_size=1), tmp_path)
    assert not list(tmp_path.iterdir())


def test_an_impossible_grid_is_an_error_before_anything_is_written(tmp_path):
    with pytest.raises(UserError, match="power of two"):
        train(np.zeros((2, 1, 18, 18, 18), np.float32), load_model("sigmarat2"), TINY, tmp_path / "new")
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize("name", MODELS)
def test_bf16_gradients_point_where_those_of_fp32_do(name):
    model, averages = load_model(name), []
    for precision in ("fp32", "bf16"):
        chosen = settings(precision=precision, channels=8, batch_size=4, latent=None)
        ours = initial_networks(model, chosen, 16)
        without_batch_norm(ours["code_discriminator"])
        optimisers = model.optimisers(ours, chosen)
        iteration(ours, optimisers, Batches(heads(6), 4, seed=0), model, chosen, step=0)
        averages.append(
            {
                key: torch.cat([state["exp_avg"].flatten() for state in optimiser.state.values()])
                for key, optimiser in optimisers.items()
            }
        )
    for key, exact in averages[0].items():
        assert torch.cosine_similarity(exact, averages[1][key], dim=0) > 0.97, key


def without_batch_norm(network: nn.Module) -> None:
    """That of a few codes turns gradients with any rounding, and in fp32 with any noise of the scans."""
    for parent in list(network.modules()):
        for name, layer in list(parent.named_children()):
            if isinstance(layer, nn.BatchNorm1d):
                delattr(parent, name)
