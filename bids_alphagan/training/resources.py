"""Time and memory that a run needs, logged before it starts and after its first iterations."""

import copy
import logging
import resource
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from bids_alphagan.common.errors import UserError
from bids_alphagan.models.base import NetworkModel, Networks
from bids_alphagan.training import distributed
from bids_alphagan.training.settings import TrainSettings

WARM_UP, MEASURED = 1, 5  # iterations
PROGRAM = 0.4e9  # bytes: Python and torch themselves
SMALLER = "a smaller --batch-size, --channels or --grid needs less (this is another run: add --resume never)"

logger = logging.getLogger(__name__)


class Forecast:
    """Times the first iterations of a run and logs an estimate of the rest."""

    def __init__(self, name: str, device: torch.device) -> None:
        self._name, self._device, self._done, self._began = name, device, 0, 0.0

    def advance(self, left: int) -> None:
        """Count one iteration; `left` remain. Waits for the device twice per run."""
        self._done += 1
        if self._done == WARM_UP:
            self._began = self._now()
        elif self._done == WARM_UP + MEASURED and left:
            seconds = (self._now() - self._began) / MEASURED
            self._log(left, seconds)

    def _now(self) -> float:
        if self._device.type == "cuda":
            torch.cuda.synchronize(self._device)
        return time.perf_counter()

    def _log(self, left: int, seconds: float) -> None:
        used, available = memory(self._device)
        total = timedelta(seconds=left * seconds)
        logger.info(
            "%s: the next %d iterations will take about %s at %.2g s each, and %.1f GB of memory; "
            "finished about %s, checkpoints not counted",
            *(self._name, left, duration(total), seconds, used / 1e9),
            (datetime.now() + total).strftime("%a %d %b %H:%M"),
        )
        if used > 0.9 * available:
            logger.warning("That is nearly all of the %.1f GB available: %s.", available / 1e9, SMALLER)


def duration(time: timedelta) -> str:
    """A duration in its two largest units: "3 h 20 min"."""
    seconds = round(time.total_seconds())
    for unit, size, small, part in (("d", 86400, "h", 3600), ("h", 3600, "min", 60), ("min", 60, "s", 1)):
        if seconds >= size:
            return f"{seconds // size} {unit} {seconds % size // part} {small}"
    return f"{seconds} s"


def memory(device: torch.device) -> tuple[int, float]:
    """Peak memory of this process, and the most that it can have, in bytes."""
    if device.type == "cuda":
        available = torch.cuda.get_device_properties(device).total_memory
        return torch.cuda.max_memory_reserved(device), available
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit, min(_limits(), default=float("inf"))


def _limits() -> Iterator[float]:
    """The machine's memory, and the limits of its control groups (of a container or a cluster job), in bytes."""
    info = Path("/proc/meminfo")
    if info.is_file():
        yield 1024 * int(info.read_text().split(maxsplit=2)[1])
    groups, own = Path("/sys/fs/cgroup"), Path("/proc/self/cgroup")
    path = own.read_text().rpartition("::")[2].strip() if own.is_file() else "/"
    for folder in (groups / path.lstrip("/"), *(groups / path.lstrip("/")).parents):
        limit = folder / "memory.max"
        if groups in (folder, *folder.parents) and limit.is_file() and limit.read_text().strip() != "max":
            yield int(limit.read_text())


def log_memory(
    model: NetworkModel, networks: Networks, size: int, settings: TrainSettings, device: torch.device
) -> None:
    """Log how much memory a run needs, and what to change if there is less."""
    _, available = memory(device)
    needed = estimate(model, networks, size, settings)
    if needed > available:
        logger.warning(
            "%s needs about %.1f GB of memory, but only %.1f GB are available: %s.",
            *(model.name, needed / 1e9, available / 1e9, SMALLER),
        )
    else:
        logger.info("%s needs about %.1f GB of memory", model.name, needed / 1e9)


def estimate(model: NetworkModel, networks: Networks, size: int, settings: TrainSettings) -> float:
    """Rough estimate of the peak memory of the training, in bytes, without any computation.

    Weights, gradients and two averages of each; the outputs kept for the backward pass; the program itself.
    """
    scans = settings.batch_size // distributed.size()
    weights = sum(p.numel() for network in networks.values() for p in network.parameters())
    averaged = sum(p.numel() for p in networks[model.drawn].parameters()) if settings.ema_decay else 0
    kept = sum(_outputs(networks[name], x) for name, x in model.kept(networks, size, scans, settings))
    return 4 * (4 * weights + averaged) + (2 if settings.precision == "bf16" else 4) * kept + PROGRAM


def _outputs(network: nn.Module, inputs: Tensor) -> int:
    """Number of elements in the outputs of a network's layers, for inputs on the device "meta"."""
    shadow, total = copy.deepcopy(network).to("meta"), 0

    def count(layer: nn.Module, given: Any, output: Tensor) -> None:
        nonlocal total
        total += output.numel()

    for layer in shadow.children():
        layer.register_forward_hook(count)
        if hasattr(layer, "plain"):  # the fast form needs a real device
            setattr(layer, "plain", True)  # noqa: B010
    with torch.no_grad():
        shadow(inputs)
    return total


@contextmanager
def explain_memory_errors() -> Iterator[None]:
    """Turn out-of-memory errors into UserError with advice."""
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        text = str(error)
        out = isinstance(error, (torch.OutOfMemoryError, MemoryError)) or "can't allocate memory" in text
        if not out:
            raise
        first = text.splitlines()[0] if text else "MemoryError"
        raise UserError(f"There is not enough memory ({first}): {SMALLER}.") from error
