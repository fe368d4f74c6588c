"""One file holds everything that a run needs to go on: tensors and JSON in safetensors, nothing unpickled.

Networks (with the buffers of spectral and batch normalisation) and optimisers are tensors; step, settings
and the data's hash are JSON in the file's metadata. Random states are not needed: every random number follows
from the seed and the step.
"""

import json
import logging
import os
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from bids_alphagan.files import replacing

KEEP = 2

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Checkpoint:
    """info: JSON content with "step", the number of finished iterations."""

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
    """Write folder/step-XXXXXX.safetensors beside and rename it, then remove all but the last `KEEP`."""
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
    path = folder / f"step-{info['step']:06d}.safetensors"
    with replacing(path) as temporary:
        save_file(tensors, temporary, metadata={"info": json.dumps(info), "crc32": _checksum(tensors)})
        _to_disk(temporary)
    for old in _files(folder)[KEEP:]:
        old.unlink()
    return path


def newest(folder: Path) -> Checkpoint | None:
    """The newest checkpoint that is whole; a damaged one is passed over with a warning."""
    for path in _files(folder):
        try:
            return _read(path)
        except (SafetensorError, OSError, KeyError, TypeError, ValueError) as error:
            logger.warning("%s is damaged (%s): falling back to the checkpoint before it", path, error)
    return None


def restore(
    checkpoint: Checkpoint,
    networks: Mapping[str, nn.Module],
    optimisers: Mapping[str, torch.optim.Optimizer],
) -> None:
    """Put networks and optimisers of the same shapes into the checkpoint's state."""
    for name, network in networks.items():
        network.load_state_dict(_below(checkpoint.tensors, f"network.{name}."))
    for name, optimiser in optimisers.items():
        state: dict[int, dict[str, Tensor]] = {}
        for key, tensor in _below(checkpoint.tensors, f"optimiser.{name}.").items():
            index, _, field = key.partition(".")
            state.setdefault(int(index), {})[field] = tensor
        optimiser.load_state_dict({**optimiser.state_dict(), "state": state})
        # fused optimisers walk through memory: averages must lie in it as their parameter does
        for parameter, averages in optimiser.state.items():
            for field, tensor in averages.items():
                if tensor.shape == parameter.shape:
                    averages[field] = torch.empty_like(parameter).copy_(tensor)


def _read(path: Path) -> Checkpoint:
    with safe_open(path, framework="pt") as stream:
        metadata = stream.metadata() or {}
        # copies: the tensors of an open file are views of it, and the run goes on to change them
        tensors = {name: stream.get_tensor(name).clone() for name in stream.keys()}  # noqa: SIM118
    if metadata["crc32"] != _checksum(tensors):
        raise ValueError("the checksum does not fit")
    return Checkpoint(tensors, json.loads(metadata["info"]))


def _files(folder: Path) -> list[Path]:
    """Checkpoints, the newest first."""
    paths = folder.glob("step-*.safetensors")
    return sorted(paths, key=lambda path: int(path.stem.split("-")[1]), reverse=True)


def _below(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}


def _checksum(tensors: Mapping[str, Tensor]) -> str:
    # safetensors checks the header and the length alone; blocks lost at a power cut read as zeros
    total = 0
    for name in sorted(tensors):
        total = zlib.crc32(tensors[name].view(-1).numpy().data, zlib.crc32(name.encode(), total))
    return f"{total:08x}"


def _to_disk(path: Path) -> None:
    # without it a power cut can leave the new name over a file whose content never arrived
    with path.open("rb") as stream:
        os.fsync(stream.fileno())
