"""A trained generator as a file, and scans from it. Needs only torch and NumPy."""

import copy
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from bids_alphagan.common.errors import UserError
from bids_alphagan.common.files import atomic_write, to_disk
from bids_alphagan.models.alphagan.layers import BatchNorm3d
from bids_alphagan.models.alphagan.networks import Generator, build_generator
from bids_alphagan.models.alphagan.spec import SPECS

GENERATOR_FILE = "generator.safetensors"
SETTLING = (16, 8)  # number and size of the batches of random latents


class GeneratorSampler(NamedTuple):
    """A trained generator. network: in evaluation mode, frozen. info: model, size, channels, latent, step etc."""

    network: Generator
    latent: int
    info: dict[str, Any]

    def draw(self, seeds: Sequence[int]) -> np.ndarray:
        """A volume for each seed, (n, 1, N, N, N) float32 in [-1, 1]: see `draw_latent` and `generate`."""
        return generate(self, np.stack([draw_latent(seed, self.latent) for seed in seeds]))[:, None]


@torch.no_grad()
def for_sampling(network: Generator, latent: int) -> Generator:
    """A frozen copy in evaluation mode whose batch normalisation has the statistics of random latents.

    In training, the generator also sees the encoder's codes, which may be many times longer than random ones.
    Running statistics mix the two and fit neither: all random latents would then give the same black scan.
    (The authors' code samples in training mode instead, where a scan depends on its batch.)
    """
    network = copy.deepcopy(network).eval().requires_grad_(False)
    norms = [module for module in network.modules() if isinstance(module, BatchNorm3d)]
    if norms:
        for norm in norms:
            norm.across = None  # each device makes the same copy
            norm.reset_running_stats()
            norm.momentum = None  # the plain mean over batches
            norm.train()
        device, source = next(network.parameters()).device, torch.Generator().manual_seed(0)
        batches, size = SETTLING
        for _ in range(batches):
            network(torch.randn(size, latent, generator=source).to(device))
    return network.eval()


def save_generator(folder: Path, network: Generator, info: dict[str, Any]) -> Path:
    """Write weights and `info` (JSON: model, size, channels, latent etc.) to folder/`GENERATOR_FILE`."""
    path = folder / GENERATOR_FILE
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in network.state_dict().items()}
    with atomic_write(path) as temporary:
        save_file(tensors, temporary, metadata={"info": json.dumps(info)})
        to_disk(temporary)
    return path


def load_generator(folder: Path, device: torch.device | str = "cpu") -> GeneratorSampler:
    """Read the file of `save_generator`. Raises UserError if there is no usable generator."""
    path = Path(folder) / GENERATOR_FILE
    if not path.is_file():
        raise UserError(f"There is no trained generator at {path}. Train one first (--steps train).")
    try:
        with safe_open(path, framework="pt") as stream:
            info = json.loads(stream.metadata()["info"])
            tensors = {name: stream.get_tensor(name) for name in stream.keys()}  # noqa: SIM118
        network = build_generator(SPECS[info["model"]], info["size"], info["channels"], info["latent"])
        network.load_state_dict(tensors)
    except (SafetensorError, KeyError, TypeError, ValueError, RuntimeError) as error:
        raise UserError(
            f"This version cannot read the generator {path} ({error}). Retrain the model."
        ) from error
    return GeneratorSampler(network.to(device).eval().requires_grad_(False), info["latent"], info)


def draw_latent(seed: int, latent: int) -> np.ndarray:
    """The latent vector of a seed: (latent,) float32 from N(0, I), the same on every device."""
    source = torch.Generator().manual_seed(seed)
    return torch.randn(latent, generator=source).numpy()


@torch.inference_mode()
def generate(generator: GeneratorSampler, latents: np.ndarray, batch_size: int = 8) -> np.ndarray:
    """Latent vectors (n, latent) -> volumes (n, N, N, N), float32 in [-1, 1], on the training grid."""
    device = next(generator.network.buffers(), next(generator.network.parameters())).device
    codes: Tensor = torch.as_tensor(latents, dtype=torch.float32)
    volumes = [generator.network(part.to(device)).squeeze(1).cpu() for part in codes.split(batch_size)]
    return torch.cat(volumes).numpy()
