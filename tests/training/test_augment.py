"""What each augmentation does to a scan, and to how many."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation
from torch.nn import functional as F
from training_runs import TINY, VOLUMES

from bids_alphagan.models import MODELS, load_model
from bids_alphagan.models.alphagan.model import AlphaGan
from bids_alphagan.models.alphagan.spec import SPECS
from bids_alphagan.training.augment import (
    AUGMENTATIONS,
    NUMBERS,
    PROBABILITY,
    ROTATION,
    TRANSLATION,
    TRANSLATION_GRID,
    augment,
)
from bids_alphagan.training.data import Batches, random_source
from bids_alphagan.training.phases import initial_networks, iteration


def numbers(seed: int) -> np.ndarray:
    """What an augmentation draws for one sample."""
    return np.random.default_rng(seed).random((1, NUMBERS), np.float32)


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
    result = function(volume, numbers(5))
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
    names = load_model(name).augmentations
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
    moves = np.array([centre(translate(volume, numbers(k))) - centre(volume) for k in range(60)])
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
    turned = np.array([centre(rotate(volume, numbers(k))) - middle for k in range(60)])
    assert np.abs(np.linalg.norm(turned, axis=1) - np.linalg.norm(arm)).max() < 0.05
    for axis in (1, 2):  # turns about z and y
        angles = np.arcsin(turned[:, axis] / np.linalg.norm(arm))
        assert 0.035 < np.abs(angles).max() < 0.058


def rotation(numbers: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    angles = (2 * numbers - 1) * ROTATION * (1, -1, 1)  # the second is from z to x
    return Rotation.from_euler("xyz", angles).as_matrix(), np.zeros((len(numbers), 3))


def translation(numbers: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    shift = (2 * numbers - 1) * np.array(TRANSLATION) / (TRANSLATION_GRID / 2)
    return np.tile(np.eye(3), (len(numbers), 1, 1)), shift


@pytest.mark.parametrize(("name", "pose"), [("rotate", rotation), ("translate", translation)])
def test_sampling_positions_are_those_of_torch(name, pose):
    function, _ = AUGMENTATIONS[name]
    drawn = np.random.default_rng(3).random((2, NUMBERS))
    matrix, shift = pose(drawn)
    volumes = torch.as_tensor(VOLUMES[:2])
    theta = np.concatenate([matrix[:, ::-1, ::-1], shift[:, ::-1, None]], axis=2)
    grid = F.affine_grid(torch.tensor(theta, dtype=torch.float32), [2, 1, 16, 16, 16], align_corners=False)
    expected = F.grid_sample(volumes + 1, grid, align_corners=False) - 1
    torch.testing.assert_close(function(volumes, drawn), expected, rtol=0, atol=1e-5)


def test_zoom_enlarges_by_up_to_a_tenth():
    volume = torch.full((1, 1, 64, 64, 64), -1.0)
    volume[0, 0, 12:52, 12:52, 12:52] = 1
    zoom, _ = AUGMENTATIONS["zoom"]
    edges = [(zoom(volume, numbers(k))[0, 0, :, 32, 32] > 0).sum().item() for k in range(30)]
    assert min(edges) >= 40
    assert 42 <= max(edges) <= 44


def test_flip_mirrors_x():
    flip, _ = AUGMENTATIONS["flip"]
    np.testing.assert_array_equal(flip(block(), numbers(0)), block().numpy()[:, :, ::-1])


def test_scaling_multiplies_the_signal_by_up_to_a_tenth_and_noise_is_a_hundredth():
    scale, _ = AUGMENTATIONS["scale"]
    noise, _ = AUGMENTATIONS["noise"]
    factors = [((scale(block(), numbers(k)).max() + 1) / 2).item() for k in range(60)]
    assert 0.9 <= min(factors) < 0.92
    assert 1.08 < max(factors) <= 1.1
    assert (noise(block(), numbers(0)) - block()).std().item() == pytest.approx(0.01, rel=0.05)


def test_noise_differs_between_samples_and_follows_from_its_number():
    noise, _ = AUGMENTATIONS["noise"]
    twice = np.concatenate([numbers(1), numbers(2), numbers(1)])
    result = noise(block().expand(3, -1, -1, -1, -1), twice)
    assert torch.equal(result[0], result[2])
    assert not torch.equal(result[0], result[1])


def test_bf16_passes_leave_the_augmentation_in_full_precision(monkeypatch):
    seen = []

    def keep(volumes, names, source):
        seen.append(augment(volumes, names, source))
        return seen[-1]

    monkeypatch.setattr("bids_alphagan.training.phases.augment", keep)
    model = AlphaGan(replace(SPECS["sigmarat2"], augmentations=("zoom", "translate") * 20))
    for precision in ("fp32", "bf16"):
        chosen = replace(TINY, precision=precision)
        networks = initial_networks(model, chosen, 16)
        optimisers = {key: torch.optim.SGD(network.parameters()) for key, network in networks.items()}
        iteration(networks, optimisers, Batches(VOLUMES, 2, seed=0), model, chosen, step=0)
    full, half = seen[:2], seen[2:]
    assert all(torch.equal(left, right) for left, right in zip(full, half, strict=True))
    assert not torch.equal(full[0], Batches(VOLUMES, 2, seed=0)[0])
