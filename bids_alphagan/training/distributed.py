"""Several devices, a process each, that share every batch: what one process of the group does.

A batch keeps its size, and its random numbers follow from the seed and the step, whatever the number of
devices: each process draws those of the whole batch and takes its rows. Terms that are means are averaged
over the process group, sums are multiplied by its size first, batch normalisation sees the statistics of all: the
result is that of one device, to rounding. Rank 0 alone writes files; all read the
checkpoint, so the folder must be on a disk that all see.

By torch.distributed itself, not by Lightning Fabric 2.6, which was tried. The phases call networks several
times and take slopes by hand, so that Fabric's wrapped modules (DistributedDataParallel) fit nothing here.
Its all-reduce waits at a barrier first. Its launchers run the whole command in every process, which dies
without a word where that of rank 0 is killed, or end in a traceback; signals and log messages are not passed
on. It brings nine packages more. What is left of it is the reading of variables that torchrun and Slurm set:
`started_by`.
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

PATIENCE = timedelta(minutes=10)  # with a process that neither answers nor ends
FIRST_PORT, PORTS = 20_000, 10_000  # of rank 0, under Slurm


logger = logging.getLogger(__name__)


class LostError(UserError):
    """Another process of the group has ended, or does not answer."""


class Process(NamedTuple):
    """One process in its group. local: its number on its machine. sharing: processes that share its cores."""

    rank: int
    size: int
    local: int
    sharing: int
    address: str

    @property
    def host(self) -> str:
        """The name of the machine of rank 0."""
        return urlsplit(self.address).hostname or os.environ["MASTER_ADDR"]


def started_by(environment: Mapping[str, str] = os.environ) -> Process | None:
    """Where torchrun, srun or `launch` put this process; None where it stands alone.

    Of Slurm only what srun sets is read: a batch script that calls the app is not one of the job's tasks.
    """
    env = environment
    if {"RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"} <= env.keys():
        rank, size = int(env["RANK"]), int(env["WORLD_SIZE"])
        local, sharing = int(env.get("LOCAL_RANK", 0)), int(env.get("LOCAL_WORLD_SIZE", 1))
        process = Process(rank, size, local, sharing, "env://")
    elif {"SLURM_STEP_NUM_TASKS", "SLURM_PROCID", "SLURM_LOCALID", "SLURM_STEP_NODELIST"} <= env.keys():
        # gpu[03-05,9] stands for gpu03, gpu04 ...: rank 0 is on the first
        host = re.sub(r"\[([^],-]+)[^]]*\]", r"\1", env["SLURM_STEP_NODELIST"]).split(",")[0]
        job = int(env.get("SLURM_JOB_ID", 0)) + int(env.get("SLURM_STEP_ID", 0))
        address = env.get("MASTER_ADDR", host), env.get("MASTER_PORT", FIRST_PORT + job % PORTS)
        rank, size, local = (int(env[f"SLURM_{name}"]) for name in ("PROCID", "STEP_NUM_TASKS", "LOCALID"))
        process = Process(rank, size, local, 1, "tcp://{}:{}".format(*address))  # Slurm deals out the cores
    else:
        return None
    return process if process.size > 1 else None


def follows() -> bool:
    """Whether torchrun or srun started this process beside rank 0, which does all that is not training."""
    process = started_by()
    return process is not None and process.rank > 0


def check(devices: int, nodes: int, batch_size: int, device: str) -> None:
    """UserError where training cannot be spread as asked for, here and now. Touches nothing."""
    process = started_by()
    gpus = torch.cuda.device_count() if device != "cpu" else 0
    check_shares(devices, nodes, batch_size, process and process.size, gpus)


@contextmanager
def process_group(device: str) -> Iterator[None]:
    """Join the process group that `started_by` describes, for a while; a process alone does nothing.

    device: "cuda", the process's own GPU from then on, or "cpu". A signal that asks to stop is taken once:
    launchers, terminals and clusters send several.
    """
    process = started_by()
    if process is None:
        yield
        return
    backend = "gloo"
    if device == "cuda":
        backend = "cpu:gloo,cuda:nccl"
        # Slurm may show each task its own GPU alone
        torch.cuda.set_device(process.local if torch.cuda.device_count() > 1 else 0)
    if process.rank == 0:
        logger.info("waiting for all %d processes at %s", process.size, process.host)
    try:
        with _signals(signal.SIG_DFL):  # torch waits beyond Python, and there is nothing to save yet
            socket.getaddrinfo(process.host, None)  # torch would try an unknown name for ever
            dist.init_process_group(
                backend, process.address, timeout=PATIENCE, rank=process.rank, world_size=process.size
            )
    except (RuntimeError, ValueError, OSError) as error:
        raise LostError(
            f"The {process.size} processes did not meet at {process.host} ({error}). Start all at once, with "
            "one MASTER_ADDR and MASTER_PORT that each of them can reach."
        ) from error
    with _signals(signal.SIG_IGN):
        yield
        barrier()
        # not after an error: its kernels may wait for the lost for ever
        dist.destroy_process_group()


@contextmanager
def _signals(action: signal.Handlers) -> Iterator[None]:
    """Meet `interrupt.SIGNALS` so for a while; those that are ignored already stay so (`launch`)."""
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
    """End this process, which has nothing left to do, at once.

    The interpreter's own end now and then aborts after gloo (pytorch issues 179291, 190489), and a launcher
    then takes the process for a failed one and ends rank 0, too.
    """
    logging.shutdown()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def sharing() -> int:
    """How many processes share this one's cores."""
    process = started_by()
    return process.sharing if process else 1


def size() -> int:
    """How many devices share a batch."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def is_rank_0() -> bool:
    """Whether this process writes files."""
    return size() == 1 or dist.get_rank() == 0


def rows(batch: Tensor, dim: int = 0) -> Tensor:
    """This device's rows of a tensor that holds the whole batch along `dim`."""
    return batch.chunk(size(), dim)[dist.get_rank()] if size() > 1 else batch


def all_reduce_gradients(parameters: Iterable[Tensor], values: dict[str, Tensor]) -> dict[str, Tensor]:
    """Average the parameters' gradients over the group, in place, and scalars with them: one message."""
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
    """The group's tensors of one shape, stacked: (devices, *part.shape); differentiable without end."""
    places = part.new_zeros(size(), *part.shape)
    places[dist.get_rank()] = part
    return _Sum.apply(places)


class _Sum(torch.autograd.Function):
    """The sum over the group, which is its own adjoint: each one's gradient is the sum of all."""

    @staticmethod
    def forward(ctx: Any, values: Tensor) -> Tensor:
        return _sum(values.clone())

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        return _Sum.apply(gradient.contiguous())


def all_reduce_signal(by: signal.Signals | None) -> signal.Signals | None:
    """The signal that any process of the group was asked to stop by. It goes from CPU to CPU: no GPU is waited for."""
    if size() == 1:
        return by
    number = int(_all_reduce(torch.tensor(by or 0), dist.ReduceOp.MAX))
    return signal.Signals(number) if number else None


def broadcast_decision(decide: Callable[[], bool]) -> bool:
    """What rank 0 decides; the others do not look."""
    return bool(_all_reduce(torch.tensor(int(decide() if is_rank_0() else 0)), dist.ReduceOp.MAX))


def barrier() -> None:
    """Wait for all of the group, for instance until rank 0 has written."""
    _all_reduce(torch.zeros(1), dist.ReduceOp.SUM)


def check_same(facts: Mapping[str, Any], folder: Path) -> None:
    """UserError where the group's processes have different data or options, or see different files."""
    digest = zlib.crc32(json.dumps(facts, sort_keys=True).encode())
    negative_least, most = _all_reduce(torch.tensor([-digest, digest]), dist.ReduceOp.MAX).tolist()
    if most != -negative_least:
        raise UserError(
            "The processes differ in options, data, software or the checkpoint that they read: give all the "
            f"same command, and have {folder} on a disk that all see."
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
                f"Training stopped: another of its {size()} processes has ended or is silent ({reason}). The "
                "same command goes on from the last checkpoint."
            ) from error
    return values
