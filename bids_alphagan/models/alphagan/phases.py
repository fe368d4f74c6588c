"""The phases of an alpha-GAN's iteration: encoder and generator, discriminator, code discriminator.

Ferreira et al. 2022 (doi:10.3390/app12104844), equations (1) to (6). `training.phases.iteration` runs them.
"""

from collections.abc import Callable, Mapping
from functools import partial

import torch
from torch import Tensor, nn

from bids_alphagan.models.alphagan import losses
from bids_alphagan.models.alphagan.layers import Critic
from bids_alphagan.models.alphagan.networks import Networks
from bids_alphagan.models.alphagan.spec import ModelSpec
from bids_alphagan.models.base import Batch, Phase, Terms

CODES = "codes"  # E(scans), shared by the discriminators' phases


def phases(spec: ModelSpec) -> tuple[Phase, ...]:
    """The phases of a model, in order, with the weights of its losses."""
    silent = frozenset(spec.without_gradient)
    penalty = {"penalty": spec.gradient_penalty}
    return (
        Phase(
            "generator",
            networks=("generator", "encoder"),
            uses=("generator", "encoder", "discriminator", "code_discriminator"),
            terms=partial(_terms, generator_terms, spec),
            weights=spec.reconstruction,
            sums=losses.SUMS,
            without_gradient=silent,
            updates={"generator": spec.generator_updates},
        ),
        Phase(
            "discriminator",
            networks=("discriminator",),
            uses=("generator", "encoder", "discriminator"),
            terms=partial(_terms, discriminator_terms, spec),
            weights=penalty,
        ),
        Phase(
            "code_discriminator",
            networks=("code_discriminator",),
            uses=("code_discriminator",),
            terms=partial(_terms, code_discriminator_terms, spec),
            weights=penalty,
            new_scans=False,
            in_bf16=False,
        ),
    )


class Codes:
    """The inputs of the terms.

    real: scans (B, C, N, N, N). encoded: their codes E(scans) (B, L). random: random codes (B, L). mix: (2, B),
    uniform in [0, 1), the interpolation of the gradient penalties. one_pass: whether several batches may go
    through a network at once.
    """

    def __init__(self, networks: Networks, batch: Batch) -> None:
        if CODES not in batch.handed:
            batch.handed[CODES] = networks.encoder(batch.real)
        self.real, self.encoded, self.one_pass = batch.real, batch.handed[CODES], batch.one_pass
        self.random = batch.normal(self.encoded.shape[1])
        self.mix = batch.uniform(2)


_Function = Callable[[Networks, Codes, ModelSpec], Terms]


def _terms(function: _Function, spec: ModelSpec, networks: Mapping[str, nn.Module], batch: Batch) -> Terms:
    named = Networks(**networks)  # type: ignore[arg-type]
    return function(named, Codes(named, batch), spec)


def generator_terms(networks: Networks, codes: Codes, spec: ModelSpec) -> Terms:
    """The terms of equations (2), (5) and (6), scalars by name."""
    fakes = through(networks.generator, codes.one_pass, codes.encoded, codes.random)
    reconstruction = fakes[0].float()
    scores = through(networks.discriminator, codes.one_pass, *fakes)
    return {
        "adversarial": losses.adversarial(*scores),
        "code_adversarial": losses.code_adversarial(networks.code_discriminator(codes.encoded)),
    } | {name: losses.RECONSTRUCTION[name](codes.real, reconstruction) for name in spec.reconstruction}


def discriminator_terms(networks: Networks, codes: Codes, spec: ModelSpec) -> Terms:
    """The terms of equation (4); the penalty is the sum of two."""
    encoded, random = (
        fake.float() for fake in through(networks.generator, codes.one_pass, codes.encoded, codes.random)
    )
    scores = through(networks.discriminator, codes.one_pass, codes.real, encoded, random)
    points = [
        losses.interpolate(codes.real, fake, mix)
        for fake, mix in zip((random, encoded), codes.mix, strict=True)
    ]
    gradients = through(networks.discriminator, codes.one_pass, *points, function=Critic.input_gradient)
    return {
        "wasserstein": losses.discriminator(*scores),
        "penalty": losses.gradient_penalty(gradients[0]) + losses.gradient_penalty(gradients[1]),
    }


def code_discriminator_terms(networks: Networks, codes: Codes, spec: ModelSpec) -> Terms:
    """The terms of equation (3), in which the random codes are the real ones."""
    encoded = codes.encoded.float()
    scores = through(networks.code_discriminator, codes.one_pass, encoded, codes.random)
    point = losses.interpolate(encoded, codes.random, codes.mix[0])
    return {
        "wasserstein": losses.code_discriminator(*scores),
        "penalty": losses.gradient_penalty(networks.code_discriminator.input_gradient(point)),
    }


def through(
    network: nn.Module,
    one_pass: bool,
    *inputs: Tensor,
    function: Callable[..., Tensor] | None = None,
) -> list[Tensor]:
    """Apply the network (or `function` of it) to each input, in one pass unless it normalises over the batch."""
    function = function or type(network).__call__
    apart = any(isinstance(layer, (nn.BatchNorm1d, nn.BatchNorm3d)) for layer in network.modules())
    if apart or not one_pass:
        return [function(network, each) for each in inputs]
    return list(function(network, torch.cat(inputs)).chunk(len(inputs)))
