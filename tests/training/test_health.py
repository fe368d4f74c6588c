"""A run that goes wrong is detected, logged, stopped or put back, and a sound one is left alone."""

import re
import signal
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from training_runs import TINY, VOLUMES, heads, leaves, settings, weights

from bids_alphagan.common.errors import UserError
from bids_alphagan.common.files import read_tsv
from bids_alphagan.common.process.interrupt import Interrupted
from bids_alphagan.models import MODELS, load_model
from bids_alphagan.models.alphagan.model import AlphaGan
from bids_alphagan.models.alphagan.spec import SPECS
from bids_alphagan.models.base import Networks, Terms
from bids_alphagan.training import checkpoint, loop
from bids_alphagan.training.health import (
    FLOOR,
    PATIENCE,
    DivergenceError,
    Health,
    distance,
    farthest,
    features,
)
from bids_alphagan.training.loop import train
from bids_alphagan.training.phases import initial_networks, iteration
from bids_alphagan.training.state import State

MODEL = load_model("sigmarat2")
DRIFT = "discriminator_wasserstein"


def test_a_loss_that_is_not_finite_stops_the_run_and_leaves_the_checkpoint(tmp_path):
    train(VOLUMES, MODEL, settings(iterations=2), tmp_path)
    good = weights(tmp_path)
    broken = np.full_like(VOLUMES, np.inf)
    with pytest.raises(UserError, match=r"iteration 1 generator_loss.* are not finite numbers"):
        train(broken, MODEL, TINY, tmp_path / "broken")
    assert not list((tmp_path / "broken" / "checkpoints").glob("*"))

    path = tmp_path / "checkpoints" / "step-000002.safetensors"
    networks = initial_networks(MODEL, settings(seed=1), 16)
    assert not torch.equal(networks["generator"][0].weight, good["network.generator.0.weight"])
    checkpoint.restore(checkpoint.newest(path.parent), networks, {})
    assert torch.equal(networks["generator"][0].weight, good["network.generator.0.weight"])


def test_weights_that_are_not_finite_are_not_kept(tmp_path, monkeypatch):
    def broken_update(networks: Networks, *others: object) -> dict[str, torch.Tensor]:
        terms = iteration(networks, *others)
        networks["encoder"][0].bias.data[0] = torch.nan
        return terms

    monkeypatch.setattr(loop, "iteration", broken_update)
    with pytest.raises(UserError, match="iteration 1 a weight of the encoder is not a finite number"):
        train(VOLUMES, MODEL, settings(checkpoint_every=1), tmp_path)
    assert not list((tmp_path / "checkpoints").glob("*"))


# What is measured


def test_features_are_means_and_deviations_of_blocks():
    volume = torch.zeros(1, 1, 16, 16, 16)
    volume[0, 0, :2, :2, :2] = torch.tensor([0.0, 1.0])  # a block of 2 x 2 x 2 voxels
    blocks = features(volume)
    assert blocks.shape == (1, 2, 8, 8, 8)
    assert blocks[0, 0, 0, 0, 0] == 0.5
    assert blocks[0, 1, 0, 0, 0] == 0.5
    assert blocks.count_nonzero() == 2
    many = np.random.default_rng(0).uniform(-1, 1, (19, 1, 20, 20, 20)).astype(np.float32)
    assert features(many).shape == (19, 2, 8, 8, 8)
    torch.testing.assert_close(features(many)[17:], features(many[17:]))


def test_the_distance_is_that_of_normal_distributions():
    source = torch.Generator().manual_seed(0)
    left = torch.randn((500, 1), generator=source, dtype=torch.float64)
    left = (left - left.mean()) / left.std(correction=0)
    assert distance(left, left) == 0
    assert distance(left, left + 3) == pytest.approx(3)
    assert distance(left, 5 * left + 3) == pytest.approx(5)  # sqrt(3^2 + 4^2)


def test_no_two_volumes_are_farther_apart():
    ones = torch.ones(1, 1, 16, 16, 16)
    assert (ones - -ones).norm().item() == pytest.approx(farthest(16))


def test_diversity_is_one_for_the_scans_themselves_and_zero_for_copies():
    health = Health(VOLUMES, "warn", DRIFT)
    measures = health.samples(State(step=1), VOLUMES[:, 0])
    assert measures.diversity == pytest.approx(1)
    assert measures.distance == pytest.approx(0, abs=1e-6)
    assert health.samples(State(step=1), VOLUMES[[0, 0, 0], 0]).diversity == pytest.approx(0, abs=1e-6)
    assert Health(VOLUMES[:1], "stop", DRIFT).samples(State(step=1), VOLUMES[:, 0]).diversity is None


def test_a_few_voxels_that_differ_are_no_diversity():
    black = np.full((3, 16, 16, 16), -1, np.float32)
    black[0, 8, 8, 8] = black[1, 4, 4, 4] = black[2, 12, 12, 12] = 1
    assert Health(VOLUMES, "warn", DRIFT).samples(State(step=1), black).diversity < FLOOR


def test_a_critic_with_an_input_gradient_of_one_has_drifted_as_far_as_it_may():
    scans, samples = VOLUMES, -VOLUMES[:, 0]
    health, state = Health(scans, "warn", DRIFT), State(step=1)
    health.samples(state, samples)
    distances = [np.linalg.norm(scan[0] - sample) for scan in scans for sample in samples]
    assert state.apart == pytest.approx(np.mean(distances))
    # the Wasserstein term of the loss sums over two fakes
    health.losses(state, {DRIFT: -2 * float(np.mean(distances))})
    assert state.drift == pytest.approx(1)


@pytest.mark.slow
@pytest.mark.parametrize("model", MODELS)
def test_an_ordinary_training_is_far_from_both_limits(tmp_path, model):
    ordinary = settings(iterations=40, checkpoint_every=10, on_divergence="stop")
    train(VOLUMES, load_model(model), ordinary, tmp_path)
    rows = read_tsv(tmp_path / "health.tsv")
    assert len(rows) == 4
    assert max(float(row["drift"]) for row in rows) < 0.2
    assert min(float(row["diversity"]) for row in rows) > 5 * FLOOR


# What goes wrong, by its true cause


def test_a_critic_without_a_bound_drifts_and_is_stopped(tmp_path):
    unbound = AlphaGan(replace(SPECS["adni"], gradient_penalty=0.0))
    stop = settings(iterations=200, learning_rate=0.1, on_divergence="stop", checkpoint_every=100)
    with pytest.raises(DivergenceError, match=r"drift apart: .* above samples by [\d.]+ times .*rollback"):
        train(VOLUMES, unbound, stop, tmp_path)
    losses = read_tsv(tmp_path / "losses.tsv")
    assert abs(float(losses[-1]["discriminator_wasserstein"])) > farthest(16)
    assert np.isfinite([float(value) for value in losses[-1].values()]).all()  # long before NaN


@pytest.fixture
def collapsed(monkeypatch):
    def constant(networks: Networks, *others: object) -> dict[str, torch.Tensor]:
        terms = iteration(networks, *others)
        networks["generator"][-2].weight.data.zero_()
        return terms

    monkeypatch.setattr(loop, "iteration", constant)


def test_a_generator_of_one_scan_is_one_warning(tmp_path, caplog, collapsed):
    train(VOLUMES, load_model("adni"), settings(iterations=PATIENCE + 2, checkpoint_every=1), tmp_path)
    assert caplog.text.count("samples look alike (mode collapse)") == 1
    assert f"iteration {PATIENCE} " in caplog.text
    rows = read_tsv(tmp_path / "health.tsv")
    assert [float(row["diversity"]) for row in rows] == [0] * (PATIENCE + 2)


def test_a_generator_of_one_scan_is_stopped(tmp_path, collapsed):
    once = settings(iterations=9, checkpoint_every=1, on_divergence="stop")
    with pytest.raises(DivergenceError, match=rf"iteration {PATIENCE} the samples look alike .* by 0.0%"):
        train(VOLUMES, load_model("adni"), once, tmp_path)
    assert checkpoint.newest(tmp_path / "checkpoints").step == PATIENCE - 1


@pytest.mark.slow
@pytest.mark.parametrize(("model", "rate"), [("adni", 10), ("sigmarat2", 1)])
def test_far_too_large_steps_collapse_and_are_stopped(tmp_path, model, rate):
    large = settings(
        **{"batch_size": 4, "latent": None, "iterations": 100, "checkpoint_every": 10},
        **{"learning_rate": rate, "on_divergence": "stop"},
    )

    def stopped(seed: int) -> bool:  # how such a run ends depends on the processor's rounding, too
        try:
            train(heads(6), load_model(model), replace(large, seed=seed), tmp_path / str(seed))
        except DivergenceError as error:
            return bool(re.search("samples look alike|drift apart", str(error)))
        return False

    assert any(stopped(seed) for seed in range(5))
    train(heads(6), load_model(model), replace(large, learning_rate=2e-4), tmp_path / "ordinary")


# Going back


def breaking(at: int, seeds: Callable[[int], bool], signal_at: int = 0) -> Callable[..., Terms]:
    """An iteration that breaks a weight at iteration `at` (from 1), where `seeds` says so."""

    def broken(networks: Networks, *others: Any) -> Terms:
        terms = iteration(networks, *others)
        if others[-1] + 1 == at and seeds(others[-2].seed):
            networks["encoder"][0].bias.data[0] = torch.nan
        if others[-1] + 1 == signal_at and seeds(others[-2].seed) == (signal_at < at):
            signal.raise_signal(signal.SIGTERM)
        return terms

    return broken


@pytest.mark.parametrize("at", [2, 6])  # before there is a regular checkpoint, and after
def test_a_rollback_uses_other_numbers_and_survives_interruptions(tmp_path, monkeypatch, at, caplog):
    goal = settings(iterations=9, checkpoint_every=3, on_divergence="rollback")
    monkeypatch.setattr(loop, "iteration", breaking(at, lambda seed: seed == 0))
    train(VOLUMES, MODEL, goal, tmp_path / "whole")
    assert (
        f"Rolling back to iteration {at // 6 * 3}, with other random numbers from there (1 of 3"
        in caplog.text
    )
    assert checkpoint.newest(tmp_path / "whole" / "checkpoints").info["rollbacks"] == 1
    assert [row["step"] for row in read_tsv(tmp_path / "whole" / "losses.tsv")] == list("123456789")
    monkeypatch.setattr(loop, "iteration", iteration)
    train(VOLUMES, MODEL, settings(iterations=9, checkpoint_every=3), tmp_path / "sound")
    assert leaves(tmp_path / "whole")["losses.tsv"] != leaves(tmp_path / "sound")["losses.tsv"]

    for moment in (1, 4, 5, 7):
        monkeypatch.setattr(loop, "iteration", breaking(at, lambda seed: seed == 0, signal_at=moment))
        with pytest.raises(Interrupted, match=f"iteration {moment} "):
            train(VOLUMES, MODEL, goal, tmp_path / str(moment))
        monkeypatch.setattr(loop, "iteration", breaking(at, lambda seed: seed == 0))
        train(VOLUMES, MODEL, goal, tmp_path / str(moment))
        assert leaves(tmp_path / str(moment)) == leaves(tmp_path / "whole")


def test_a_run_that_always_breaks_is_given_up(tmp_path, monkeypatch):
    monkeypatch.setattr(loop, "iteration", breaking(3, lambda seed: True))
    with pytest.raises(
        DivergenceError,
        match=r"7 more are not finite numbers\. .*rolled back 3 times\..*older than that: train again",
    ):
        train(VOLUMES, MODEL, settings(on_divergence="rollback"), tmp_path)
    assert checkpoint.newest(tmp_path / "checkpoints").step == 2


@pytest.mark.parametrize("mode", ["warn", "stop"])
def test_a_loss_that_is_not_a_number_stops_the_run_at_least(tmp_path, monkeypatch, mode):
    monkeypatch.setattr(loop, "iteration", breaking(3, lambda seed: True))
    with pytest.raises(DivergenceError, match=r"not finite numbers\. .*--on-divergence rollback"):
        train(VOLUMES, MODEL, settings(on_divergence=mode), tmp_path)
    # going on as advised needs no other run
    monkeypatch.setattr(loop, "iteration", breaking(3, lambda seed: seed == 0))
    assert train(VOLUMES, MODEL, settings(on_divergence="rollback"), tmp_path).step == 4
