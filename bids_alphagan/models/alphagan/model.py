"""An alpha-GAN as a model of the shared loop: its networks, optimisers, samples and methods text."""

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any, Self, cast

import torch
from torch import Tensor, nn

from bids_alphagan.common.errors import UserError
from bids_alphagan.models.alphagan.generator import (
    GeneratorSampler,
    for_sampling,
    load_generator,
    save_generator,
)
from bids_alphagan.models.alphagan.layers import Critic, FromLatent, ToVector, WholeBatch
from bids_alphagan.models.alphagan.networks import Generator, build_networks
from bids_alphagan.models.alphagan.phases import phases
from bids_alphagan.models.alphagan.spec import SPECS, ModelSpec, from_record, variant
from bids_alphagan.models.alphagan.text import paragraph
from bids_alphagan.models.base import Across, NetworkModel, Networks, Optimisers, Settings

EPSILON = 1e-8  # of Adam and AdamW
MEMORY_FORMAT = torch.channels_last_3d


class AlphaGan(NetworkModel):
    """One of the paper's three models, or another one with its own `ModelSpec`."""

    drawn = "generator"
    drift = "discriminator_wasserstein"

    def __init__(self, spec: ModelSpec) -> None:
        self.spec, self.name = spec, spec.name
        self.phases, self.augmentations = phases(spec), spec.augmentations

    @classmethod
    def named(cls, name: str, variant_name: str = "paper") -> Self:
        """The model of that name in a variant, see `spec.variant`."""
        return cls(variant(SPECS[name], variant_name))

    def record(self) -> dict[str, Any]:
        return asdict(self.spec)

    def latent(self, settings: Settings) -> int:
        """Length of the latent vector."""
        return settings.latent or self.spec.latent

    def networks(self, size: int, settings: Settings, across: Across | None = None) -> Networks:
        try:
            networks = vars(build_networks(self.spec, size, settings.channels, settings.latent))
        except ValueError as error:
            raise UserError(str(error)) from error
        for network in networks.values():
            if isinstance(network, Critic):
                network.by_hand = "slope" in settings.speedups
            for layer in network:
                if isinstance(layer, WholeBatch):
                    layer.across = across
                if hasattr(layer, "plain"):
                    layer.plain = "layers" not in settings.speedups
                # layers computed as a matrix product keep their layout
                if "channels_last" in settings.speedups and not isinstance(layer, (FromLatent, ToVector)):
                    layer.to(memory_format=MEMORY_FORMAT)
        return dict(networks)

    def optimisers(self, networks: Networks, settings: Settings) -> Optimisers:
        kind = {"Adam": torch.optim.Adam, "AdamW": torch.optim.AdamW}[self.spec.optimiser]
        return {
            name: kind(
                network.parameters(),
                settings.learning_rate,
                settings.adam_betas,
                EPSILON,
                self.spec.weight_decay,
                fused="fused" in settings.speedups,
            )
            for name, network in networks.items()
        }

    def sampler(self, network: nn.Module, settings: Settings) -> GeneratorSampler:
        latent = self.latent(settings)
        return GeneratorSampler(for_sampling(cast(Generator, network), latent), latent, {})

    def save(self, network: nn.Module, settings: Settings, folder: Path, info: dict[str, Any]) -> Path:
        latent = self.latent(settings)
        own = {"model": self.name, "latent": latent, "channels": settings.channels}
        own |= {"size": info["size"], "step": info["step"], "variant": self.spec.variant}
        return save_generator(folder, for_sampling(cast(Generator, network), latent), own | info)

    def load(self, folder: Path, device: torch.device | str = "cpu") -> GeneratorSampler:
        return load_generator(folder, device)

    def kept(self, networks: Networks, size: int, scans: int, settings: Settings) -> list[tuple[str, Tensor]]:
        volumes = torch.empty(2 * scans, 1, size, size, size, device="meta")
        latents = torch.empty(2 * scans, self.latent(settings), device="meta")
        return [("encoder", volumes[:scans]), ("discriminator", volumes), ("generator", latents)]

    def methods(self, training: Mapping[str, Any], info: Mapping[str, Any]) -> str:
        return paragraph(from_record(training["model"]), training["settings"], info)
