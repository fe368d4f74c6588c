"""The smallest training there is, and how two of its runs are compared."""

from pathlib import Path

import numpy as np
import torch
from safetensors import safe_open
from safetensors.torch import load_file

from bids_alphagan.training.settings import TrainSettings

TINY = TrainSettings(iterations=4, batch_size=2, channels=2, latent=5, log_every=1, checkpoint_every=2)
VOLUMES = np.random.default_rng(0).uniform(-1, 1, (3, 1, 16, 16, 16)).astype(np.float32)


def heads(n: int) -> np.ndarray:
    """Bright balls of unequal size, place and contrast on a dark ground, as scans are: (n, 1, 16, 16, 16)."""
    source, grid = np.random.default_rng(0), np.mgrid[:16, :16, :16] - 7.5
    volumes = []
    for _ in range(n):
        zooms, moves = source.uniform(0.85, 1.15, (3, 1, 1, 1)), source.uniform(-0.5, 0.5, (3, 1, 1, 1))
        radius = np.sqrt(((grid * zooms + moves) ** 2).sum(0))
        signal = (radius < 5.5) * source.uniform(0.8, 1.4) + (radius < 3) * source.uniform(0.2, 0.5)
        volumes.append(signal + abs(source.normal(0, 0.05, radius.shape)))
    return np.clip(np.array(volumes, np.float32)[:, None] - 1, -1, 1)


def settings(**changes: object) -> TrainSettings:
    return TrainSettings(**(vars(TINY) | changes))  # type: ignore[arg-type]


def weights(folder: Path) -> dict[str, torch.Tensor]:
    path = sorted((folder / "checkpoints").glob("*.safetensors"))[-1]
    return {name: tensor.clone() for name, tensor in load_file(path).items()}  # of views of the file


def leaves(folder: Path) -> dict[str, object]:
    """All that a run leaves but TensorBoard's log, which carries times: each file's name and content."""
    files = [path for path in sorted(folder.rglob("*")) if path.is_file()]
    names = {path.relative_to(folder).as_posix(): path for path in files}
    return {name: content(path) for name, path in names.items() if not name.startswith("tensorboard/")}


def content(path: Path) -> object:
    """Bytes; of safetensors, whose header has no fixed order, tensors (as bytes) and metadata."""
    if path.suffix != ".safetensors":
        return path.read_bytes()
    with safe_open(path, framework="pt") as stream:
        tensors = {name: stream.get_tensor(name).numpy().tobytes() for name in stream.keys()}  # noqa: SIM118
        return tensors, stream.metadata()


def same(left: dict[str, torch.Tensor], right: dict[str, torch.Tensor]) -> bool:
    return left.keys() == right.keys() and all(torch.equal(left[name], right[name]) for name in left)
