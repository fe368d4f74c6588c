"""What the networks see: the order of the scans, how batches reach the device, and their augmentation."""

import hashlib
import subprocess
import sys
from contextlib import nullcontext
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch.nn import functional as F
from torch.utils._python_dispatch import TorchDispatchMode

from bids_alphagan.errors import UserError
from bids_alphagan.models import MODELS
from bids_alphagan.training import TrainSettings, data, train
from bids_alphagan.training.batches import Batches, fits
from bids_alphagan.training.data import (
    AUGMENTATIONS,
    NUMBERS,
    PROBABILITY,
    augment,
    batch_indices,
    data_hash,
    random_source,
)
from bids_alphagan.training.phases import initial_networks, iteration

VOLUMES = np.random.default_rng(0).uniform(-1, 1, (3, 1, 16, 16, 16)).astype(np.float32)
TINY = TrainSettings(iterations=3, batch_size=2, channels=2, latent=5, log_every=1, checkpoint_every=3)


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
    expected = hashlib.sha256(b"(3, 1, 16, 16, 16)" + VOLUMES.tobytes()).hexdigest()
    assert data_hash(VOLUMES) == data_hash(VOLUMES.astype(np.float64)) == expected
    assert data_hash(VOLUMES) == data_hash(torch.as_tensor(VOLUMES))
    assert data_hash(VOLUMES) != data_hash(VOLUMES[::-1])
    assert data_hash(VOLUMES) != data_hash(VOLUMES.reshape(3, 1, 8, 32, 16))


@pytest.mark.parametrize("batch_size", [1, 2, 3, 8])
@pytest.mark.parametrize("n", [1, 3])
def test_batches_are_the_same_gathered_ahead_and_on_the_device(n, batch_size):
    gathered = Batches(VOLUMES[:n], batch_size, seed=4, resident=False)
    resident = Batches(torch.as_tensor(VOLUMES[:n]), batch_size, seed=4, resident=True)
    for number in (0, 1, 2, 7, 8, 3, 3, 4):  # in a row, after a resumption, backwards, twice
        expected = VOLUMES[batch_indices(n, batch_size, 4, number).numpy()]
        np.testing.assert_array_equal(gathered[number], expected)
        np.testing.assert_array_equal(resident[number], expected)


def test_the_next_batch_is_gathered_while_this_one_is_used():
    batches = Batches(VOLUMES, 2, seed=4)
    batches[5]
    number, ahead = batches._ahead
    expected = ahead.result(timeout=10)
    assert number == 6
    assert batches[6] is expected


def test_a_batch_is_not_changed_by_what_comes_after_it():
    batches = Batches(VOLUMES, 2, seed=4)
    first = batches[0]
    before = first.clone()
    augment(first, list(AUGMENTATIONS), random_source(0))
    _ = batches[1], batches[2]
    assert torch.equal(first, before)


def test_scans_lie_on_a_gpu_where_they_take_a_quarter_of_what_is_free(monkeypatch):
    size = VOLUMES.nbytes
    gpu = torch.device("cuda")
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (4 * size, 100 * size))
    assert fits(VOLUMES, gpu)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (4 * size - 4, 100 * size))
    assert not fits(VOLUMES, gpu)
    assert not fits(VOLUMES, torch.device("cpu"))


@pytest.mark.parametrize("resident", [True, False])
def test_training_does_not_depend_on_where_the_scans_lie(tmp_path, monkeypatch, resident):
    monkeypatch.setattr("bids_alphagan.training.batches.fits", lambda volumes, device: resident)
    np.save(tmp_path / "scans.npy", VOLUMES)
    mapped = np.load(tmp_path / "scans.npy", mmap_mode="r")
    train(mapped, MODELS["sigmarat2"], TINY, tmp_path / "mapped")
    monkeypatch.undo()
    train(VOLUMES, MODELS["sigmarat2"], TINY, tmp_path / "plain")
    for name in ("losses.tsv", "generator.safetensors", "config.json"):
        assert (tmp_path / "mapped" / name).read_bytes() == (tmp_path / "plain" / name).read_bytes()


@pytest.mark.parametrize("n", [1, 2, 5])
def test_any_number_of_scans_trains(tmp_path, n):
    volumes = np.random.default_rng(1).uniform(-1, 1, (n, 1, 16, 16, 16)).astype(np.float32)
    assert train(volumes, MODELS["sigmarat2"], replace(TINY, batch_size=3), tmp_path).step == 3


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        ((0, 1, 16, 16, 16), "no scan to train on"),
        ((3, 16, 16, 16), r"shape \(3, 16, 16, 16\)"),
        ((3, 2, 16, 16, 16), "shape"),
        ((3, 1, 16, 16, 32), "shape"),
    ],
)
def test_no_scans_or_no_cubes_are_an_error_before_anything_is_written(tmp_path, shape, message):
    with pytest.raises(UserError, match=message):
        train(np.zeros(shape, np.float32), MODELS["sigmarat2"], TINY, tmp_path / "new")
    assert not (tmp_path / "new").exists()


LARGE = """
import resource, sys
from pathlib import Path
import numpy as np
from bids_alphagan.models import MODELS
from bids_alphagan.training import TrainSettings, train
scans = np.lib.format.open_memmap(Path(sys.argv[1], "scans.npy"), "r")
settings = TrainSettings(iterations=2, batch_size=2, channels=2, latent=5)
def go(volumes, name):
    train(volumes, MODELS["sigmarat2"], settings, Path(sys.argv[1], name))
go(scans[:4], "first")  # what torch and its threads need
status = Path("/proc/self/status").read_text()
(used,) = [int(line.split()[1]) * 1024 for line in status.splitlines() if line.startswith("VmData")]
resource.setrlimit(resource.RLIMIT_DATA, [used + scans.nbytes // 4] * 2)
try:
    np.array(scans)
except MemoryError:
    print("has no room for them")
go(scans, "all")
print("trained")
"""


@pytest.mark.skipif(sys.platform != "linux", reason="limits memory as Linux does")
def test_scans_larger_than_the_memory_train(tmp_path):
    shape = (20_000, 1, 16, 16, 16)  # 328 MB, a hole in the file
    np.lib.format.open_memmap(tmp_path / "scans.npy", "w+", np.float32, shape)
    run = subprocess.run(
        [sys.executable, "-c", LARGE, str(tmp_path)], capture_output=True, text=True, check=False
    )
    assert run.stdout.split("\n")[:2] == ["has no room for them", "trained"], run.stderr


# Waiting


class NeverWaits(TorchDispatchMode):
    """Fails where the host would wait for the device "meta", which has no values to wait for: torch itself
    refuses to read them, and a copy to it that is not told otherwise waits on a GPU.
    """

    copies = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        result = func(*args, **kwargs)
        if func is torch.ops.aten._to_copy.default and result.device.type != args[0].device.type:
            assert kwargs.get("non_blocking"), f"a copy of {tuple(result.shape)} waits"
            self.copies += 1
        elif func is torch.ops.aten.copy_.default:
            assert args[0].device == args[1].device
        return result


@pytest.fixture
def device(monkeypatch):
    """A device without values, on which neither autocast nor random numbers are implemented."""
    monkeypatch.setattr(torch, "autocast", lambda *_, **__: nullcontext())
    monkeypatch.setattr(data, "_normal", lambda like, number: torch.empty_like(like))
    return torch.device("meta")


@pytest.mark.parametrize("name", MODELS)
def test_an_iteration_never_waits_for_the_device(device, monkeypatch, name):
    certain = {key: (function, 1.0) for key, (function, _) in AUGMENTATIONS.items()}
    monkeypatch.setattr(data, "AUGMENTATIONS", certain)
    spec = MODELS[name]
    networks = initial_networks(spec, TINY, 16).to(device)
    optimisers = {key: torch.optim.SGD(network.parameters()) for key, network in vars(networks).items()}
    batches = Batches(VOLUMES, 2, seed=0, device=device)
    with NeverWaits() as mode:
        terms = iteration(networks, optimisers, batches, spec, TINY, step=0)
    assert all(term.device == device for term in terms.values())
    assert mode.copies >= 2 + 3 + 3  # batches, codes, mixes


@pytest.mark.parametrize(
    "wait",
    [
        lambda scores: scores.sum().item(),
        lambda scores: scores.cpu(),
        lambda scores: scores.nonzero(),
        lambda scores: scores[scores > 0],
        lambda scores: torch.rand(3).to(scores.device),
        lambda scores: scores.copy_(torch.rand(3)),
    ],
)
def test_what_waits_is_seen(device, wait):
    scores = torch.empty(3, device=device)
    with pytest.raises((RuntimeError, NotImplementedError, AssertionError)), NeverWaits():
        wait(scores)


# Augmentation


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


def test_sampling_positions_are_those_of_torch():
    source = np.random.default_rng(3)
    matrix, shift = source.normal(size=(2, 3, 3)), source.normal(size=(2, 3))
    volumes = torch.as_tensor(VOLUMES[:2])
    theta = np.concatenate([matrix[:, ::-1, ::-1], shift[:, ::-1, None]], axis=2)
    grid = F.affine_grid(torch.tensor(theta, dtype=torch.float32), [2, 1, 16, 16, 16], align_corners=False)
    expected = F.grid_sample(volumes + 1, grid, align_corners=False) - 1
    torch.testing.assert_close(data._warp(volumes, matrix, shift, "bilinear"), expected, rtol=0, atol=1e-5)


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
    spec = replace(MODELS["sigmarat2"], augmentations=("zoom", "translate") * 20)
    for precision in ("fp32", "bf16"):
        chosen = replace(TINY, precision=precision)
        networks = initial_networks(spec, chosen, 16)
        optimisers = {key: torch.optim.SGD(network.parameters()) for key, network in vars(networks).items()}
        iteration(networks, optimisers, Batches(VOLUMES, 2, seed=0), spec, chosen, step=0)
    full, half = seen[:2], seen[2:]
    assert all(torch.equal(left, right) for left, right in zip(full, half, strict=True))
    assert not torch.equal(full[0], Batches(VOLUMES, 2, seed=0)[0])
