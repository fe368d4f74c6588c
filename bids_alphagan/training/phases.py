"""One iteration of an alpha-GAN: `PHASES` in order, encoder and generator, discriminator, code discriminator.

Ferreira et al. 2022 (doi:10.3390/app12104844), equations (1) to (6). All outside a phase is frozen.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from bids_alphagan.common.errors import UserError
from bids_alphagan.config.training import check_batch
from bids_alphagan.models import ModelSpec
from bids_alphagan.models.alphagan import losses
from bids_alphagan.models.alphagan.layers import Critic, FromLatent, ToVector, WholeBatch
from bids_alphagan.models.alphagan.networks import Networks, build_networks
from bids_alphagan.training import distributed
from bids_alphagan.training.augment import augment, random_source, send
from bids_alphagan.training.data import Batches
from bids_alphagan.training.settings import TrainSettings

EPSILON = 1e-8  # of Adam and AdamW
ITERATION_STREAM = 1  # key of the iterations' random numbers; 0 is the order of the scans


class Batch(NamedTuple):
    """What a phase sees: scans (B, 1, N, N, N), their codes E(scans) (B, L), random codes (B, L).

    mix: (2, B), uniform in [0, 1), where the gradient penalties are measured. one_pass: whether several
    batches may go through a network at once.
    """

    real: Tensor
    encoded: Tensor
    random: Tensor
    mix: Tensor
    one_pass: bool


Terms = dict[str, Tensor]


def generator_terms(networks: Networks, batch: Batch, spec: ModelSpec) -> Terms:
    """The terms of equations (2), (5) and (6)."""
    fakes = through(networks.generator, batch, batch.encoded, batch.random)
    reconstruction = fakes[0].float()
    return {
        "adversarial": losses.adversarial(*through(networks.discriminator, batch, *fakes)),
        "code_adversarial": losses.code_adversarial(networks.code_discriminator(batch.encoded)),
    } | {name: losses.RECONSTRUCTION[name](batch.real, reconstruction) for name in spec.reconstruction}


def discriminator_terms(networks: Networks, batch: Batch, spec: ModelSpec) -> Terms:
    """The terms of equation (4); the penalty is the sum of two."""
    encoded, random = (
        fake.float() for fake in through(networks.generator, batch, batch.encoded, batch.random)
    )
    scores = through(networks.discriminator, batch, batch.real, encoded, random)
    points = [
        losses.between(batch.real, fake, mix) for fake, mix in zip((random, encoded), batch.mix, strict=True)
    ]
    slopes = through(networks.discriminator, batch, *points, function=Critic.slope)
    return {
        "wasserstein": losses.discriminator(*scores),
        "penalty": losses.gradient_penalty(slopes[0]) + losses.gradient_penalty(slopes[1]),
    }


def code_discriminator_terms(networks: Networks, batch: Batch, spec: ModelSpec) -> Terms:
    """The terms of equation (3); the random codes are the real ones."""
    encoded = batch.encoded.float()
    scores = through(networks.code_discriminator, batch, encoded, batch.random)
    point = losses.between(encoded, batch.random, batch.mix[0])
    return {
        "wasserstein": losses.code_discriminator(*scores),
        "penalty": losses.gradient_penalty(networks.code_discriminator.slope(point)),
    }


@dataclass(frozen=True)
class Phase:
    """One update: the networks that learn, and the terms whose weighted sum they minimise.

    uses: the networks that take part. new_scans: True draws a batch of scans; False goes on with the codes
    of the phase before. in_bf16: False where that would save nothing and cost exactness.
    """

    name: str
    networks: tuple[str, ...]
    uses: tuple[str, ...]
    terms: Callable[[Networks, Batch, ModelSpec], Terms]
    new_scans: bool = True
    in_bf16: bool = True


PHASES = (
    Phase(
        "generator",
        networks=("generator", "encoder"),
        uses=("generator", "encoder", "discriminator", "code_discriminator"),
        terms=generator_terms,
    ),
    Phase(
        "discriminator",
        networks=("discriminator",),
        uses=("generator", "encoder", "discriminator"),
        terms=discriminator_terms,
    ),
    Phase(
        "code_discriminator",
        networks=("code_discriminator",),
        uses=("code_discriminator",),
        terms=code_discriminator_terms,
        new_scans=False,
        in_bf16=False,
    ),
)
Optimisers = dict[str, torch.optim.Optimizer]


def iteration(
    networks: Networks,
    optimisers: Optimisers,
    batches: Batches,
    spec: ModelSpec,
    settings: TrainSettings,
    step: int,
) -> Terms:
    """Iteration number `step` (from 0): one update of each phase. Returns losses and unweighted terms.

    Every random number follows from settings.seed and `step`; each of several devices draws those of the
    whole batch and keeps its own rows'. Nothing here waits for the device.
    """
    device = batches.device
    source = random_source(settings.seed, ITERATION_STREAM, step)
    one_pass = "one_pass" in settings.speedups
    results: Terms = {}
    drawn = 0
    for phase in PHASES:
        if phase.new_scans:  # outside of autocast: bf16 would sample a tenth of a voxel off
            real = distributed.rows(augment(batches[2 * step + drawn], spec.augmentations, source))
            drawn += 1
        for name, network in vars(networks).items():
            network.requires_grad_(name in phase.networks)
        # a network's spectral norms are estimated once in a phase (Miyato et al. 2018, algorithm 1)
        with parametrize.cached():
            for name in phase.uses:
                make_weights(getattr(networks, name))
            half = phase.in_bf16 and settings.precision == "bf16"
            with torch.autocast(device.type, torch.bfloat16, enabled=half):
                if phase.new_scans:
                    encoded = networks.encoder(real)
                size = (settings.batch_size, encoded.shape[1])
                random = send(distributed.rows(torch.randn(size, generator=source)), device)
                mix = send(distributed.rows(torch.rand((2, size[0]), generator=source), dim=1), device)
                terms = phase.terms(networks, Batch(real, encoded, random, mix, one_pass), spec)
                for name in losses.SUMS & terms.keys():  # devices are averaged
                    terms[name] = terms[name] * distributed.size()
            loss = total(terms, spec)
            loss.backward()
        values = {f"{phase.name}_loss": loss.detach()}
        values |= {f"{phase.name}_{name}": term.detach() for name, term in terms.items()}
        learning = (weight for name in phase.networks for weight in getattr(networks, name).parameters())
        results |= distributed.averaged(learning, values)
        for name in phase.networks:
            for _ in range(spec.generator_updates if name == "generator" else 1):
                optimisers[name].step()
            optimisers[name].zero_grad()
        encoded = encoded.detach()
    return results


def total(terms: Terms, spec: ModelSpec) -> Tensor:
    """The weighted sum of a phase's terms; one that the model gives no weight counts once. Terms in
    `spec.without_gradient` count as numbers and train nothing.
    """
    weights = {"penalty": spec.gradient_penalty, **spec.reconstruction}
    return torch.stack(
        [
            weights.get(name, 1) * (term.detach() if name in spec.without_gradient else term)
            for name, term in terms.items()
        ]
    ).sum()


def through(
    network: nn.Module,
    batch: Batch,
    *inputs: Tensor,
    function: Callable[..., Tensor] | None = None,
) -> list[Tensor]:
    """The network (or `function` of it) of each input; in one pass unless it normalises over the batch."""
    function = function or type(network).__call__
    apart = any(isinstance(layer, (nn.BatchNorm1d, nn.BatchNorm3d)) for layer in network.modules())
    if apart or not batch.one_pass:
        return [function(network, each) for each in inputs]
    return list(function(network, torch.cat(inputs)).chunk(len(inputs)))


def make_weights(network: nn.Module) -> None:
    """Compute spectrally normalised weights now, to be cached: in full precision and as part of the graph."""
    for layer in network.modules():
        if parametrize.is_parametrized(layer, "weight"):
            _ = layer.weight


def initial_networks(spec: ModelSpec, settings: TrainSettings, size: int) -> Networks:
    """New networks for volumes with an edge of `size`, from settings.seed.

    Raises UserError where the numbers make none.
    """
    spec.check_batch(settings.batch_size)
    check_batch(settings.batch_size, distributed.size())
    # drawn on the CPU, so that every device starts from the same weights
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(settings.seed)
        try:
            networks = build_networks(spec, size, settings.channels, settings.latent)
        except ValueError as error:
            raise UserError(str(error)) from error
    for network in vars(networks).values():
        if isinstance(network, Critic):
            network.by_hand = "slope" in settings.speedups
        for layer in network:
            if isinstance(layer, WholeBatch) and distributed.size() > 1:
                layer.across = distributed.gathered
            if hasattr(layer, "plain"):
                layer.plain = "layers" not in settings.speedups
            # what multiplies as a matrix stays in one piece
            if "channels_last" in settings.speedups and not isinstance(layer, (FromLatent, ToVector)):
                layer.to(memory_format=torch.channels_last_3d)
    return networks


def new_optimisers(networks: Networks, spec: ModelSpec, settings: TrainSettings) -> Optimisers:
    """An optimiser for each network."""
    kind = {"Adam": torch.optim.Adam, "AdamW": torch.optim.AdamW}[spec.optimiser]
    fused = "fused" in settings.speedups
    return {
        name: kind(
            network.parameters(),
            settings.learning_rate,
            settings.adam_betas,
            EPSILON,
            spec.weight_decay,
            fused=fused,
        )
        for name, network in vars(networks).items()
    }
