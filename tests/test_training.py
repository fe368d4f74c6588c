import json
import os
from collections import Counter

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from training_runs import TINY, VOLUMES, same, settings, weights

from bids_alphagan.errors import UserError
from bids_alphagan.files import read_json, read_tsv
from bids_alphagan.models import MODELS, variant
from bids_alphagan.models.networks import Networks, build_networks
from bids_alphagan.training import (
    draw_latent,
    generate,
    load_generator,
    train,
)
from bids_alphagan.training.data import (
    AUGMENTATIONS,
    PROBABILITY,
    augment,
    batch_indices,
    data_hash,
    random_source,
)
from bids_alphagan.training.phases import PHASES, Batch, iteration, total

# Batches


@pytest.mark.parametrize(("n", "batch_size"), [(7, 3), (7, 7), (3, 8), (1, 4), (8, 4)])
def test_every_scan_appears_once_in_each_epoch(n, batch_size):
    epochs = 6
    batches = [batch_indices(n, batch_size, 1, b).tolist() for b in range(-(-epochs * n // batch_size))]
    assert all(len(batch) == batch_size for batch in batches)
    row = [scan for batch in batches for scan in batch][: epochs * n]
    orders = [tuple(row[start : start + n]) for start in range(0, epochs * n, n)]
    assert all(sorted(order) == list(range(n)) for order in orders)
    assert len(set(orders)) > 1 or n == 1


def test_the_order_of_scans_follows_from_the_seed():
    assert batch_indices(50, 20, 1, 3).tolist() == batch_indices(50, 20, 1, 3).tolist()
    assert batch_indices(50, 20, 1, 3).tolist() != batch_indices(50, 20, 2, 3).tolist()


def test_the_data_hash_sees_values_and_shape():
    assert data_hash(VOLUMES) == data_hash(torch.as_tensor(VOLUMES))
    assert data_hash(VOLUMES) != data_hash(VOLUMES[::-1])
    assert data_hash(VOLUMES) != data_hash(VOLUMES.reshape(3, 1, 8, 32, 16))


# Augmentation


def block() -> torch.Tensor:
    """A bright, unequal block on no signal, its values spanning [-1, 1]."""
    volume = torch.full((1, 1, 16, 16, 16), -1.0)
    volume[0, 0, 3:9, 4:12, 5:10] = torch.linspace(-0.5, 1, 6).view(6, 1, 1)
    return volume


@pytest.mark.parametrize("name", AUGMENTATIONS)
def test_each_augmentation_acts_keeps_its_input_and_fills_with_no_signal(name):
    function, _ = AUGMENTATIONS[name]
    volume = block() * (0.5 if name == "rescale" else 1)
    before = volume.clone()
    result = function(volume, random_source(5))
    assert torch.equal(volume, before)
    assert result.shape == volume.shape
    assert not torch.equal(result, volume)
    if name not in ("noise", "rescale"):
        assert (result[0, 0, [0, -1], [0, -1], [0, -1]] == -1).all()
    if name not in ("noise", "scale"):
        assert result.min() == -1
        assert result.max() <= 1


@pytest.mark.parametrize("name", MODELS)
def test_augmented_scans_stay_in_range_and_follow_from_the_source(name):
    batch = block().expand(200, -1, -1, -1, -1)
    names = MODELS[name].augmentations
    result = augment(batch, names, random_source(1, 2))
    assert result.min() >= -1
    assert result.max() <= 1 + 1e-6
    assert torch.equal(result, augment(batch, names, random_source(1, 2)))
    assert not torch.equal(result, augment(batch, names, random_source(1, 3)))


@pytest.mark.parametrize("name", [name for name, (_, p) in AUGMENTATIONS.items() if p < 1])
def test_each_augmentation_takes_one_sample_in_ten(name):
    batch = block().expand(600, -1, -1, -1, -1)
    changed = (augment(batch, [name], random_source(7)) != batch).flatten(1).any(1)
    assert 0.06 < changed.float().mean() < 0.14
    assert AUGMENTATIONS[name][1] == PROBABILITY == 0.1


def test_samples_are_augmented_independently():
    batch = block().expand(300, -1, -1, -1, -1)
    result = augment(batch, ["translate"], random_source(2))
    moved = [tuple(s.flatten().tolist()) for s in result if not torch.equal(s, batch[0])]
    assert len(set(moved)) == len(moved) > 10


def centre(volume: torch.Tensor) -> np.ndarray:
    """Centre of the signal along x, y, z in voxels."""
    signal = (volume[0, 0] + 1).double().numpy()
    return np.array(
        [(signal.sum((1, 2), keepdims=False) * np.arange(16)).sum() / signal.sum()]
        + [(np.moveaxis(signal, axis, 0).sum((1, 2)) * np.arange(16)).sum() / signal.sum() for axis in (1, 2)]
    )


def test_translation_moves_along_x_and_y_as_far_as_the_paper_and_never_along_z():
    volume = torch.full((1, 1, 16, 16, 16), -1.0)
    volume[0, 0, 6:9, 5:8, 7:10] = 1
    translate, _ = AUGMENTATIONS["translate"]
    moves = np.array([centre(translate(volume, random_source(k))) - centre(volume) for k in range(60)])
    assert np.abs(moves[:, 2]).max() < 1e-3
    for axis in (0, 1):  # 4 of 64 voxels are 1 of 16
        assert 0.8 < moves[:, axis].max() <= 1.001
        assert -0.8 > moves[:, axis].min() >= -1.001


def test_rotation_is_rigid_and_at_most_three_degrees_on_each_axis():
    volume = torch.full((1, 1, 16, 16, 16), -1.0)
    volume[0, 0, 12:15, 7:9, 7:9] = 1  # off the centre, along x
    rotate, _ = AUGMENTATIONS["rotate"]
    middle = np.array([7.5, 7.5, 7.5])
    arm = centre(volume) - middle
    turned = np.array([centre(rotate(volume, random_source(k))) - middle for k in range(60)])
    assert np.abs(np.linalg.norm(turned, axis=1) - np.linalg.norm(arm)).max() < 0.05
    for axis in (1, 2):  # turns about z and y
        angles = np.arcsin(turned[:, axis] / np.linalg.norm(arm))
        assert 0.035 < np.abs(angles).max() < 0.058


def test_zoom_enlarges_by_up_to_a_tenth():
    volume = torch.full((1, 1, 64, 64, 64), -1.0)
    volume[0, 0, 12:52, 12:52, 12:52] = 1
    zoom, _ = AUGMENTATIONS["zoom"]
    edges = [(zoom(volume, random_source(k))[0, 0, :, 32, 32] > 0).sum().item() for k in range(30)]
    assert min(edges) >= 40
    assert 42 <= max(edges) <= 44


def test_flip_mirrors_x():
    flip, _ = AUGMENTATIONS["flip"]
    np.testing.assert_array_equal(flip(block(), random_source(0)), block().numpy()[:, :, ::-1])


def test_scaling_multiplies_the_signal_by_up_to_a_tenth_and_noise_is_a_hundredth():
    scale, _ = AUGMENTATIONS["scale"]
    noise, _ = AUGMENTATIONS["noise"]
    factors = [((scale(block(), random_source(k)).max() + 1) / 2).item() for k in range(60)]
    assert 0.9 <= min(factors) < 0.92
    assert 1.08 < max(factors) <= 1.1
    assert (noise(block(), random_source(0)) - block()).std().item() == pytest.approx(0.01, rel=0.05)


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
    got = iteration(nets, optimisers, torch.as_tensor(VOLUMES), spec, TINY, step=0)
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


def test_the_seed_decides(tmp_path):
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        torch.manual_seed(os.getpid())  # the caller's random state must not matter
        state = torch.get_rng_state()
        train(VOLUMES, MODELS["sigmarat2"], settings(seed=seed, iterations=2), tmp_path / name)
        assert torch.equal(state, torch.get_rng_state())
    assert same(weights(tmp_path / "a"), weights(tmp_path / "b"))
    assert not same(weights(tmp_path / "a"), weights(tmp_path / "c"))


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


def test_what_a_run_leaves(tmp_path):
    result = train(VOLUMES, MODELS["sigmarat1"], settings(iterations=7, log_every=3), tmp_path)
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


@pytest.mark.parametrize("model", ["adni", "sigmarat1"])
def test_a_batch_of_one_cannot_be_normalised(tmp_path, model):
    with pytest.raises(UserError, match="at least 2"):
        train(VOLUMES, MODELS[model], settings(batch_size=1), tmp_path)
    assert not list(tmp_path.iterdir())


def test_an_impossible_grid_is_an_error_before_anything_is_written(tmp_path):
    with pytest.raises(UserError, match="power of two"):
        train(np.zeros((2, 1, 18, 18, 18), np.float32), MODELS["sigmarat2"], TINY, tmp_path / "new")
    assert not (tmp_path / "new").exists()
