"""A toy model with one network and one phase: a linear layer from latents to volumes, fitted to batches of scans."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import nn

from bids_alphagan.models.base import Batch, NetworkModel, Networks, Phase, Terms

LATENT = 3


class Painter(nn.Module):
    """(B, LATENT) -> (B, 1, N, N, N) in [-1, 1]."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.size = size
        self.layer = nn.Linear(LATENT, size**3)

    def forward(self, z: torch.Tensor) -> torch.Tensor:
        return torch.tanh(self.layer(z)).view(-1, 1, *[self.size] * 3)


class Sampler(NamedTuple):
    network: Painter
    info: dict[str, Any]

    @torch.inference_mode()
    def draw(self, seeds: Sequence[int]) -> np.ndarray:
        latents = [torch.randn(LATENT, generator=torch.Generator().manual_seed(seed)) for seed in seeds]
        return self.network(torch.stack(latents)).numpy()


def paint(networks: Networks, batch: Batch) -> Terms:
    fakes = networks["painter"](batch.normal(LATENT))
    return {"mse": (fakes - batch.real).square().mean()}


class ToyNetwork(NetworkModel):
    phases = (Phase("paint", networks=("painter",), uses=("painter",), terms=paint),)
    drawn = "painter"
    augmentations = ("flip",)

    def __init__(self, name: str, variant: str) -> None:
        self.name = name

    def record(self):
        return {"name": self.name, "latent": LATENT}

    def networks(self, size, settings, across=None):
        return {"painter": Painter(size)}

    def optimisers(self, networks, settings):
        return {"painter": torch.optim.Adam(networks["painter"].parameters(), settings.learning_rate)}

    def sampler(self, network, settings):
        return Sampler(network, {})

    def save(self, network, settings, folder: Path, info):
        path = folder / "generator.safetensors"
        save_file(network.state_dict(), path, metadata={"info": json.dumps({"model": self.name, **info})})
        return path

    def load(self, folder: Path, device="cpu"):
        with safe_open(folder / "generator.safetensors", framework="pt") as stream:
            info = json.loads(stream.metadata()["info"])
            network = Painter(info["size"])
            network.load_state_dict({key: stream.get_tensor(key) for key in stream.keys()})  # noqa: SIM118
        return Sampler(network, info)
