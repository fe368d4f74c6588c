"""What the networks see: the order of the scans, and how batches reach the device."""

import hashlib
import queue
import subprocess
import sys
import threading
from contextlib import nullcontext

import numpy as np
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from training_runs import TINY, VOLUMES, settings

from bids_alphagan.common.errors import UserError
from bids_alphagan.models import MODELS, load_model
from bids_alphagan.training import augment as augmentation
from bids_alphagan.training.augment import AUGMENTATIONS, augment
from bids_alphagan.training.data import Batches, batch_indices, data_hash, fits, random_source
from bids_alphagan.training.loop import train
from bids_alphagan.training.phases import initial_networks, iteration

MODEL = load_model("sigmarat2")


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
    read: queue.Queue[tuple[int, str]] = queue.Queue()

    class Disk:
        """Volumes that note which are read, and in which thread."""

        shape = VOLUMES.shape

        def __len__(self) -> int:
            return len(VOLUMES)

        def __getitem__(self, index: int) -> np.ndarray:
            read.put((index, threading.current_thread().name))
            return VOLUMES[index]

    def expected(number: int) -> list[int]:
        return batch_indices(len(VOLUMES), 2, 4, number).tolist()

    batches = Batches(Disk(), 2, seed=4)
    batches[5]
    reads = [read.get(timeout=10) for _ in range(4)]  # nobody has asked for the last two yet
    assert [index for index, _ in reads] == expected(5) + expected(6)
    here = threading.current_thread().name
    assert [name == here for _, name in reads] == [True, True, False, False]
    np.testing.assert_array_equal(batches[6], VOLUMES[expected(6)])
    assert [read.get(timeout=10)[0] for _ in range(2)] == expected(7)


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
    monkeypatch.setattr("bids_alphagan.training.data.fits", lambda volumes, device: resident)
    np.save(tmp_path / "scans.npy", VOLUMES)
    mapped = np.load(tmp_path / "scans.npy", mmap_mode="r")
    train(mapped, MODEL, TINY, tmp_path / "mapped")
    monkeypatch.undo()
    train(VOLUMES, MODEL, TINY, tmp_path / "plain")
    for name in ("losses.tsv", "generator.safetensors", "config.json"):
        assert (tmp_path / "mapped" / name).read_bytes() == (tmp_path / "plain" / name).read_bytes()


@pytest.mark.parametrize("n", [1, 2, 5])
def test_any_number_of_scans_trains(tmp_path, n):
    volumes = np.random.default_rng(1).uniform(-1, 1, (n, 1, 16, 16, 16)).astype(np.float32)
    assert train(volumes, MODEL, settings(iterations=3, batch_size=3), tmp_path).step == 3


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
        train(np.zeros(shape, np.float32), MODEL, TINY, tmp_path / "new")
    assert not (tmp_path / "new").exists()


LARGE = """
import resource, sys
from pathlib import Path
import numpy as np
from bids_alphagan.models import load_model
from bids_alphagan.training.loop import train
from bids_alphagan.training.settings import TrainSettings
scans = np.lib.format.open_memmap(Path(sys.argv[1], "scans.npy"), "r")
settings = TrainSettings(iterations=2, batch_size=2, channels=2, latent=5)
def go(volumes, name):
    train(volumes, load_model("sigmarat2"), settings, Path(sys.argv[1], name))
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
    shape = (320, 1, 64, 64, 64)  # 336 MB, a hole in the file
    np.lib.format.open_memmap(tmp_path / "scans.npy", "w+", np.float32, shape)
    run = subprocess.run(
        [sys.executable, "-c", LARGE, str(tmp_path)], capture_output=True, text=True, check=False
    )
    assert run.stdout.split("\n")[:2] == ["has no room for them", "trained"], run.stderr


# Waiting


class NeverWaits(TorchDispatchMode):
    """Fails where the host would wait for the device "meta", which has no values to wait for: torch itself
    refuses to read them, and a plain copy to it would wait on a GPU.
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
    monkeypatch.setattr(augmentation, "_normal", lambda like, number: torch.empty_like(like))
    return torch.device("meta")


@pytest.mark.parametrize("name", MODELS)
def test_an_iteration_never_waits_for_the_device(device, monkeypatch, name):
    certain = {key: (function, 1.0) for key, (function, _) in AUGMENTATIONS.items()}
    monkeypatch.setattr(augmentation, "AUGMENTATIONS", certain)
    model = load_model(name)
    networks = {key: network.to(device) for key, network in initial_networks(model, TINY, 16).items()}
    optimisers = {key: torch.optim.SGD(network.parameters()) for key, network in networks.items()}
    batches = Batches(VOLUMES, 2, seed=0, device=device)
    with NeverWaits() as mode:
        terms = iteration(networks, optimisers, batches, model, TINY, step=0)
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
