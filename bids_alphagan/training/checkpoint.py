"""Checkpoints: one file with everything that a run needs to continue, tensors and JSON in safetensors, no pickles.

Networks (with the buffers of spectral and batch normalisation) and optimisers are tensors. The JSON in the file's
metadata has settings, data hash and versions (`configuration.configuration`), and the step, the sampler's position and
the history of the run (`state.State`). There is no random state: every random number follows from (seed, rollbacks,
step), and training does not use the global generators of Python, NumPy, torch and CUDA.
"""

import json
import logging
import zlib
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from bids_alphagan.common.errors import UserError
from bids_alphagan.common.files import atomic_write, to_disk

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Checkpoint:
    """info: JSON with "step", the number of finished iterations."""

    tensors: dict[str, Tensor]
    info: dict[str, Any]

    @property
    def step(self) -> int:
        return int(self.info["step"])


def save(
    folder: Path,
    networks: Mapping[str, nn.Module],
    optimisers: Mapping[str, torch.optim.Optimizer],
    info: dict[str, Any],
) -> Path:
    """Write folder/step-XXXXXX.safetensors atomically and return its path; a power failure leaves no partial file.

    Raises UserError if the file cannot be written.
    """
    tensors = {
        f"network.{name}.{key}": value
        for name, network in networks.items()
        for key, value in network.state_dict().items()
    } | {
        f"optimiser.{name}.{index}.{key}": value
        for name, optimiser in optimisers.items()
        for index, state in optimiser.state_dict()["state"].items()
        for key, value in state.items()
    }
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    path = _path(folder, info["step"])
    try:
        with atomic_write(path) as temporary:
            save_file(tensors, temporary, metadata={"info": json.dumps(info), "crc32": _checksum(tensors)})
            to_disk(temporary)
        to_disk(folder)  # the new file is on disk before `prune` removes an old one
    except (SafetensorError, OSError) as error:
        raise UserError(
            f"The checkpoint of iteration {info['step']} cannot be written to {folder} ({error}). Free "
            "some space or give fewer --keep-checkpoints; the same command resumes from the previous checkpoint."
        ) from error
    return path


def prune(folder: Path, keep: Collection[int], below: int | None = None) -> None:
    """Remove checkpoints whose step is not in `keep` (and is less than `below`, if given)."""
    for path in _files(folder):
        if _step(path) not in keep and (below is None or _step(path) < below):
            path.unlink()


def newest(folder: Path, steps: Collection[int] | None = None) -> Checkpoint | None:
    """The newest intact checkpoint (among `steps`, if given), or None if there is no file.

    A damaged checkpoint is skipped with a warning. Raises UserError if all are damaged or one cannot be read from disk,
    so that weeks of training are not discarded.
    """
    paths = [path for path in _files(folder) if steps is None or _step(path) in steps]
    for path in paths:
        try:
            return _read(path)
        except OSError as error:  # a temporary disk error must not cost a checkpoint
            raise UserError(f"{path} cannot be read ({error}). Try again, or move it away.") from error
        except (SafetensorError, KeyError, TypeError, ValueError) as error:
            logger.warning("%s is damaged (%s): falling back to the previous checkpoint", path, error)
    if paths:
        raise UserError(f"No checkpoint in {folder} can be read. Start again with --resume never.")
    return None


def restore(
    checkpoint: Checkpoint,
    networks: Mapping[str, nn.Module],
    optimisers: Mapping[str, torch.optim.Optimizer],
) -> None:
    """Load the checkpoint's state into networks and optimisers of the same shapes."""
    for name, network in networks.items():
        network.load_state_dict(_below(checkpoint.tensors, f"network.{name}."))
    for name, optimiser in optimisers.items():
        state: dict[int, dict[str, Tensor]] = {}
        for key, tensor in _below(checkpoint.tensors, f"optimiser.{name}.").items():
            index, _, field = key.partition(".")
            state.setdefault(int(index), {})[field] = tensor
        optimiser.load_state_dict({**optimiser.state_dict(), "state": state})
        # fused optimisers work in memory order: averages need the memory format of their parameter
        for parameter, averages in optimiser.state.items():
            for field, tensor in averages.items():
                if tensor.shape == parameter.shape:
                    averages[field] = torch.empty_like(parameter).copy_(tensor)


def _read(path: Path) -> Checkpoint:
    with safe_open(path, framework="pt") as stream:
        metadata = stream.metadata() or {}
        # copies: tensors of an open file are views of it, and the run changes them
        tensors = {name: stream.get_tensor(name).clone() for name in stream.keys()}  # noqa: SIM118
    if metadata["crc32"] != _checksum(tensors):
        raise ValueError("the checksum does not match")
    return Checkpoint(tensors, json.loads(metadata["info"]))


def _files(folder: Path) -> list[Path]:
    """Checkpoint files, newest first."""
    return sorted(folder.glob("step-*[0-9].safetensors"), key=_step, reverse=True)


def _path(folder: Path, step: int) -> Path:
    return folder / f"step-{step:06d}.safetensors"


def _step(path: Path) -> int:
    return int(path.stem.split("-")[1])


def _below(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}


def _checksum(tensors: Mapping[str, Tensor]) -> str:
    # safetensors checks only header and length; blocks lost in a power failure read as zeros
    total = 0
    for name in sorted(tensors):
        total = zlib.crc32(tensors[name].view(-1).numpy().data, zlib.crc32(name.encode(), total))
    return f"{total:08x}"
