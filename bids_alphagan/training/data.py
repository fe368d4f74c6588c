"""Volumes to train on, and their batches on the device, prepared ahead of the loop.

All random numbers are functions of (seed, stream, number), so that a resumed run needs no random state.
"""

import hashlib
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

from bids_alphagan.common.errors import UserError

SHARE = 0.25  # of a GPU's free memory that scans may take; the rest is for the iterations


@dataclass(frozen=True)
class Volumes:
    """Volumes (n, C, N, N, N) float32 in [-1, 1], an array or a mapped file, and their `data_hash`."""

    array: np.ndarray
    sha256: str

    @classmethod
    def of(cls, array: np.ndarray | Tensor) -> "Volumes":
        """Check and hash an array. Raises UserError unless it holds scans that are cubes."""
        array = np.asarray(array)
        check(array)
        return cls(array, data_hash(array))

    def __len__(self) -> int:
        return len(self.array)


def random_source(*key: int) -> torch.Generator:
    """A random number generator that depends only on `key` (numbers of at least 0).

    It draws on the CPU, so that every device gets the same numbers; they are few.
    """
    state = np.random.SeedSequence(key).generate_state(1, np.uint64)
    return torch.Generator().manual_seed(int(state[0] >> np.uint64(1)))


@lru_cache(maxsize=4)
def _epoch(n: int, seed: int, epoch: int) -> Tensor:
    return torch.randperm(n, generator=random_source(seed, 0, epoch))


def batch_indices(n: int, batch_size: int, seed: int, batch: int) -> Tensor:
    """Which scans form batch number `batch` (from 0): (batch_size,) indices below `n`.

    Batches run through an endless sequence of epochs, each a permutation of all scans: `batch_size` need not divide
    `n` and may exceed it, and every scan appears once per epoch. All scans count alike, as in the paper: an animal
    with several sessions is seen as often as it was scanned.
    """
    start, stop = batch * batch_size, (batch + 1) * batch_size
    first, last = start // n, (stop - 1) // n
    epochs = [_epoch(n, seed, epoch) for epoch in range(first, last + 1)]
    return torch.cat(epochs)[start - first * n : stop - first * n]


def data_hash(volumes: np.ndarray | Tensor) -> str:
    """SHA-256 of the volumes' shape and values (as float32), with one volume in memory at a time."""
    digest = hashlib.sha256(str(tuple(volumes.shape)).encode())
    for volume in volumes:
        digest.update(np.ascontiguousarray(volume, dtype=np.float32).data)
    return digest.hexdigest()


def send(values: np.ndarray | Tensor, device: torch.device) -> Tensor:
    """Copy to `device` without waiting; a plain copy to a GPU first waits for its pending work."""
    tensor = torch.from_numpy(values) if isinstance(values, np.ndarray) else values
    return (tensor.pin_memory() if device.type == "cuda" else tensor).to(device, non_blocking=True)


class Batches:
    """`batches[number]` is batch `number` (from 0) of the endless sequence: (batch_size, C, N, N, N) on `device`.

    It is a function of `volumes`, `seed` and `number` alone. Volumes (n, C, N, N, N) float32 that fit are copied to the
    GPU. All others stay where they are, and a thread gathers one batch ahead, e.g. from a memory-mapped file
    (`cache.prepared`), which may be larger than the memory because the system caches only what fits.
    """

    def __init__(
        self,
        volumes: np.ndarray | Tensor,
        batch_size: int,
        seed: int,
        device: torch.device | str = "cpu",
        resident: bool | None = None,
    ) -> None:
        """resident: whether to copy the volumes to the device; None: to a GPU if they fit."""
        self.device = torch.device(device)
        self._volumes, self._batch_size, self._seed = volumes, batch_size, seed
        if resident is None:
            resident = fits(volumes, self.device)
        self._resident = _copy(volumes, self.device) if resident else None
        self._worker = ThreadPoolExecutor(1, thread_name_prefix="batches")
        self._ahead: tuple[int, Future[Tensor]] | None = None

    def __getitem__(self, number: int) -> Tensor:
        if self._resident is not None:
            return self._resident[send(self._indices(number), self.device)]
        number_ahead, future = self._ahead or (None, None)
        batch = future.result() if future and number_ahead == number else self._gather(number)
        self._ahead = number + 1, self._worker.submit(self._gather, number + 1)
        return batch.to(self.device, non_blocking=True)

    def _indices(self, number: int) -> Tensor:
        return batch_indices(len(self._volumes), self._batch_size, self._seed, number)

    def _gather(self, number: int) -> Tensor:
        shape = (self._batch_size, *self._volumes.shape[1:])
        batch = torch.empty(shape, pin_memory=self.device.type == "cuda")
        for row, index in zip(batch.numpy(), self._indices(number).tolist(), strict=True):
            row[...] = self._volumes[index]  # disk access, during which other threads run
        return batch


def check(volumes: np.ndarray | Tensor) -> None:
    """Raise UserError unless there is at least one scan and scans are cubes: (n, C, N, N, N)."""
    shape = tuple(volumes.shape)
    if len(shape) != 5 or not shape[1] or len(set(shape[2:])) > 1:
        raise UserError(f"Scans of shape {shape} cannot be trained on: (n, C, N, N, N) is needed.")
    if not len(volumes):
        raise UserError("There is no scan to train on: at least one is needed.")


def fits(volumes: np.ndarray | Tensor, device: torch.device) -> bool:
    """Whether to keep the volumes on the device: on a GPU with enough free memory.

    A CPU reads a mapped file as fast as memory once the system has cached it, and the system can free that memory.
    """
    if device.type != "cuda":
        return False
    free, _ = torch.cuda.mem_get_info(device)
    return 4 * int(np.prod(volumes.shape)) <= SHARE * free


def _copy(volumes: np.ndarray | Tensor, device: torch.device) -> Tensor:
    """float32 volumes on the device; only one more is in memory at a time."""
    copy = torch.empty(tuple(volumes.shape), device=device)
    for target, volume in zip(copy, volumes, strict=True):
        target.copy_(torch.tensor(np.asarray(volume)))
    return copy
