"""Training on several devices that share every batch, with one process per device.

A batch keeps its size, and its random numbers follow from the seed and the step, whatever the number of devices:
each process draws the numbers of the whole batch and uses those of its rows. Gradients are averaged over the
process group, terms that are sums are multiplied by its size first, and batch normalisation uses the statistics of
the whole batch: the result is that of one device, to rounding. Only rank 0 writes files; all processes read the
checkpoint, so the folder must be on a shared disk.

torch.distributed is used directly; Lightning Fabric 2.6 was tried. The phases call networks several times and
compute input gradients by hand, which Fabric's wrapped modules (DistributedDataParallel) do not support. Its
all-reduce first waits at a barrier. Its launchers run the whole command in every process, which ends without a
message or with a traceback if rank 0 is killed; signals and log messages are not forwarded. It needs nine more
packages. Only its reading of the variables of torchrun and Slurm could be used: `started_by`.
"""

import json
import logging
import os
import re
import signal
import socket
import sys
import threading
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any, NamedTuple, NoReturn
from urllib.parse import urlsplit

import torch
import torch.distributed as dist
from torch import Tensor

from bids_alphagan.common.errors import UserError
from bids_alphagan.common.process.interrupt import SIGNALS
from bids_alphagan.training.settings import check_shares

PATIENCE = timedelta(minutes=10)  # with a process that neither responds nor ends
FIRST_PORT, PORTS = 20_000, 10_000  # of rank 0, under Slurm


logger = logging.getLogger(__name__)


class LostError(UserError):
    """Another process of the group has ended or does not respond."""


class Process(NamedTuple):
    """A process in its group. local: its number on its machine. sharing: processes that share its cores."""

    rank: int
    size: int
    local: int
    sharing: int
    address: str

    @property
    def host(self) -> str:
        """The name of rank 0's machine."""
        return urlsplit(self.address).hostname or os.environ["MASTER_ADDR"]


def started_by(environment: Mapping[str, str] = os.environ) -> Process | None:
    """The position in the group, as set by torchrun, srun or `launch`; None for a single process.

    Of Slurm only the variables of srun are read: a batch script that calls the app is not one of the job's tasks.
    """
    env = environment
    if {"RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"} <= env.keys():
        rank, size = int(env["RANK"]), int(env["WORLD_SIZE"])
        local, sharing = int(env.get("LOCAL_RANK", 0)), int(env.get("LOCAL_WORLD_SIZE", 1))
        process = Process(rank, size, local, sharing, "env://")
    elif {"SLURM_STEP_NUM_TASKS", "SLURM_PROCID", "SLURM_LOCALID", "SLURM_STEP_NODELIST"} <= env.keys():
        # gpu[03-05,9] means gpu03, gpu04 ...: rank 0 is on the first
        host = re.sub(r"\[([^],-]+)[^]]*\]", r"\1", env["SLURM_STEP_NODELIST"]).split(",")[0]
        job = int(env.get("SLURM_JOB_ID", 0)) + int(env.get("SLURM_STEP_ID", 0))
        address = env.get("MASTER_ADDR", host), env.get("MASTER_PORT", FIRST_PORT + job % PORTS)
        rank, size, local = (int(env[f"SLURM_{name}"]) for name in ("PROCID", "STEP_NUM_TASKS", "LOCALID"))
        process = Process(rank, size, local, 1, "tcp://{}:{}".format(*address))  # Slurm assigns the cores
    else:
        return None
    return process if process.size > 1 else None


def follows() -> bool:
    """Whether torchrun or srun started this process with a rank above 0; rank 0 does all but training."""
    process = started_by()
    return process is not None and process.rank > 0


def check(devices: int, nodes: int, batch_size: int, device: str) -> None:
    """Raise UserError if the training cannot be distributed as requested on this machine. Changes nothing."""
    process = started_by()
    gpus = torch.cuda.device_count() if device != "cpu" else 0
    check_shares(devices, nodes, batch_size, process and process.size, gpus)


@contextmanager
def process_group(device: str) -> Iterator[None]:
    """Join the process group of `started_by`; does nothing for a single process.

    device: "cuda", the process's own GPU from then on, or "cpu". A signal to stop is handled once, because launchers,
    terminals and clusters send several.
    """
    process = started_by()
    if process is None:
        yield
        return
    backend = "gloo"
    if device == "cuda":
        backend = "cpu:gloo,cuda:nccl"
        # with Slurm each task may see only its own GPU
        torch.cuda.set_device(process.local if torch.cuda.device_count() > 1 else 0)
    if process.rank == 0:
        logger.info("waiting for all %d processes at %s", process.size, process.host)
    try:
        with _signals(signal.SIG_DFL):  # torch waits outside Python, and there is nothing to save yet
            socket.getaddrinfo(process.host, None)  # torch would try an unknown name forever
            dist.init_process_group(
                backend, process.address, timeout=PATIENCE, rank=process.rank, world_size=process.size
            )
    except (RuntimeError, ValueError, OSError) as error:
        raise LostError(
            f"The {process.size} processes could not connect at {process.host} ({error}). Start all at the same "
            "time, with one MASTER_ADDR and MASTER_PORT that all of them can reach."
        ) from error
    with _signals(signal.SIG_IGN):
        yield
        barrier()
        # not after an error: its kernels may wait forever for a lost process
        dist.destroy_process_group()


@contextmanager
def _signals(action: signal.Handlers) -> Iterator[None]:
    """Set the handlers of `interrupt.SIGNALS` for a while; signals that are already ignored stay so (`launch`)."""
    before: dict[signal.Signals, Any] = {}
    if threading.current_thread() is threading.main_thread():
        numbers = [number for number in SIGNALS if signal.getsignal(number) != signal.SIG_IGN]
        before = {number: signal.signal(number, action) for number in numbers}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def leave(code: int) -> NoReturn:
    """End this process at once.

    A normal exit of the interpreter sometimes aborts after gloo (pytorch issues 179291, 190489); a launcher would then
    take the process for a failed one and stop rank 0, too.
    """
    logging.shutdown()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def sharing() -> int:
    """Number of processes that share this one's cores."""
    process = started_by()
    return process.sharing if process else 1


def size() -> int:
    """Number of devices that share a batch."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def is_rank_0() -> bool:
    """Whether this process writes files."""
    return size() == 1 or dist.get_rank() == 0


def rows(batch: Tensor, dim: int = 0) -> Tensor:
    """This device's rows of a tensor that holds the whole batch along `dim`."""
    return batch.chunk(size(), dim)[dist.get_rank()] if size() > 1 else batch


def all_reduce_gradients(parameters: Iterable[Tensor], values: dict[str, Tensor]) -> dict[str, Tensor]:
    """Average the parameters' gradients over the group, in place, and scalars with them, in one message."""
    if size() == 1:
        return values
    gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
    parts = [*gradients, torch.stack(list(values.values()))]
    flat = _sum(torch.cat([part.flatten() for part in parts])).div_(size())
    *averages, scalars = flat.split([part.numel() for part in parts])
    for gradient, average in zip(gradients, averages, strict=True):
        gradient.copy_(average.view(gradient.shape))
    return dict(zip(values, scalars.unbind(), strict=True))


def all_gather(part: Tensor) -> Tensor:
    """The group's tensors of one shape, stacked: (devices, *part.shape); differentiable any number of times."""
    parts = part.new_zeros(size(), *part.shape)
    parts[dist.get_rank()] = part
    return _Sum.apply(parts)


class _Sum(torch.autograd.Function):
    """The sum over the group, which is its own adjoint: the gradient in each process is the sum of all gradients."""

    @staticmethod
    def forward(ctx: Any, values: Tensor) -> Tensor:
        return _sum(values.clone())

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        return _Sum.apply(gradient.contiguous())


def all_reduce_signal(by: signal.Signals | None) -> signal.Signals | None:
    """The signal that any process of the group received, or None. Sent between CPUs, so no GPU is waited for."""
    if size() == 1:
        return by
    number = int(_all_reduce(torch.tensor(by or 0), dist.ReduceOp.MAX))
    return signal.Signals(number) if number else None


def broadcast_decision(decide: Callable[[], bool]) -> bool:
    """The decision of rank 0; `decide` is not called in other processes."""
    return bool(_all_reduce(torch.tensor(int(decide() if is_rank_0() else 0)), dist.ReduceOp.MAX))


def barrier() -> None:
    """Wait for the whole group, for instance until rank 0 has written."""
    _all_reduce(torch.zeros(1), dist.ReduceOp.SUM)


def check_same(facts: Mapping[str, Any], folder: Path) -> None:
    """Raise UserError if the processes of the group have different data or options, or see different files."""
    digest = zlib.crc32(json.dumps(facts, sort_keys=True).encode())
    negative_least, most = _all_reduce(torch.tensor([-digest, digest]), dist.ReduceOp.MAX).tolist()
    if most != -negative_least:
        raise UserError(
            "The processes differ in options, data, software or the checkpoint that they read. Start all with "
            f"the same command, and keep {folder} on a disk that all of them share."
        )


def _sum(values: Tensor) -> Tensor:
    return _all_reduce(values, dist.ReduceOp.SUM)


def _all_reduce(values: Tensor, how: Any) -> Tensor:
    if size() > 1:
        try:
            dist.all_reduce(values, how)
        except RuntimeError as error:
            reason = str(error).splitlines()[0]
            raise LostError(
                f"Training stopped: another of its {size()} processes has ended or does not respond "
                f"({reason}). The same command resumes from the last checkpoint."
            ) from error
    return values
