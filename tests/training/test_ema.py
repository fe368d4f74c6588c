"""The exponential moving average of the generator: what it is, what it changes, and that no run loses it."""

import copy

import pytest
import torch
from safetensors.torch import load_file
from training_runs import VOLUMES, leaves, same, settings, weights

from bids_alphagan.models import MODELS, load_model
from bids_alphagan.training.ema import drawn_from, update, with_ema
from bids_alphagan.training.loop import train
from bids_alphagan.training.phases import initial_networks

DECAY = 0.8


@pytest.mark.parametrize("model", MODELS)
def test_the_average_is_its_formula(model):
    torch.manual_seed(0)
    networks = initial_networks(load_model(model), settings(), 16)
    held, generator = with_ema(networks, "generator", DECAY), networks["generator"]
    expected = [weight.detach().clone() for weight in generator.parameters()]
    for step in range(1, 41):
        with torch.no_grad():
            for value in [*generator.parameters(), *generator.buffers()]:
                value.copy_(torch.randn(value.shape))
        update(held, "generator", DECAY, step)
        keep = min(DECAY, (1 + step) / (10 + step))
        expected = [
            keep * mean + (1 - keep) * now for mean, now in zip(expected, generator.parameters(), strict=True)
        ]
    average = drawn_from(held, "generator")
    torch.testing.assert_close([*average.parameters()], expected, rtol=1e-5, atol=1e-6)
    assert not any(weight.requires_grad for weight in average.parameters())
    for theirs, ours in zip(average.buffers(), generator.buffers(), strict=True):
        assert torch.equal(theirs, ours)


def test_without_it_the_generator_itself_is_drawn_from():
    networks = initial_networks(load_model("sigmarat2"), settings(), 16)
    held, generator = with_ema(networks, "generator", 0), networks["generator"]
    before = copy.deepcopy(generator.state_dict())
    update(held, "generator", 0, 1)
    assert drawn_from(held, "generator") is generator
    assert same(generator.state_dict(), before)


@pytest.mark.parametrize("model", MODELS)
def test_a_resumed_average_is_the_same_bit_for_bit(tmp_path, model):
    changes = {"ema_decay": DECAY, "learning_rate": 0.01}
    train(VOLUMES, load_model(model), settings(iterations=5, **changes), tmp_path / "whole")
    for iterations in (1, 3, 5):
        train(VOLUMES, load_model(model), settings(iterations=iterations, **changes), tmp_path / "parts")
    whole, parts = leaves(tmp_path / "whole"), leaves(tmp_path / "parts")
    for name in ("losses.tsv", "generator.safetensors", "checkpoints/step-000005.safetensors", "config.json"):
        assert whole[name] == parts[name], name


def test_the_average_is_what_is_kept_and_trains_nothing(tmp_path):
    few = {"learning_rate": 0.01, "checkpoint_every": 1, "use_checkpoint": "best"}
    model = load_model("sigmarat2")
    train(VOLUMES, model, settings(**few), tmp_path / "plain")
    train(VOLUMES, model, settings(**few, ema_decay=DECAY), tmp_path / "ema")
    assert (tmp_path / "plain" / "losses.tsv").read_text() == (tmp_path / "ema" / "losses.tsv").read_text()
    plain, averaged = weights(tmp_path / "plain"), weights(tmp_path / "ema")
    assert all(torch.equal(averaged[name], value) for name, value in plain.items())
    step = model.load(tmp_path / "ema").info["step"]
    held = load_file(tmp_path / "ema" / "checkpoints" / f"step-{step:06d}.safetensors")
    written = load_file(tmp_path / "ema" / "generator.safetensors")
    assert same(written, {name: held[f"network.average.{name}"] for name in written})
    assert not same(written, {name: held[f"network.generator.{name}"] for name in written})
