"""The training engine against a plain, slow statement of the same iteration (tests/oracles/released.py)."""

from dataclasses import replace

import pytest
import torch
from oracles.released import Released
from torch import Tensor, nn
from torch.nn.utils import parametrize

from bids_alphagan.models import MODELS, VARIANTS
from bids_alphagan.models.alphagan.model import AlphaGan
from bids_alphagan.models.alphagan.spec import SPECS, variant
from bids_alphagan.models.base import Networks
from bids_alphagan.training.data import Batches, batch_indices, random_source
from bids_alphagan.training.phases import ITERATION_STREAM, initial_networks, iteration
from bids_alphagan.training.settings import SPEEDUPS, TrainSettings

SIZE, CHANNELS, LATENT, BATCH, SEED = 16, 3, 7, 4, 5
SCANS = torch.rand(6, 1, SIZE, SIZE, SIZE, generator=torch.Generator().manual_seed(0)) * 2 - 1
BATCHES = Batches(SCANS, BATCH, SEED)
NAMES = {"generator": "G", "encoder": "E", "discriminator": "D", "code_discriminator": "CD"}


def settings(*speedups: str) -> TrainSettings:
    return TrainSettings(
        batch_size=BATCH, channels=CHANNELS, latent=LATENT, seed=SEED, speedups=tuple(speedups)
    )


def weighted(network: nn.Module) -> list[nn.Module]:
    """Layers with weights from the input to the output; a normalisation comes after its convolution."""
    if not hasattr(network, "convs"):  # ours, and the plain code discriminator
        return [layer for layer in network.modules() if isinstance(layer, KINDS)]
    layers = [network.first] if hasattr(network, "first") else []
    norms = list(network.norms)
    if layers:
        layers.append(norms.pop(0))
    for conv, norm in zip(network.convs, norms, strict=True):
        layers += [conv, norm]
    return [layer for layer in [*layers, network.last] if isinstance(layer, KINDS)]


KINDS = (nn.Conv3d, nn.ConvTranspose3d, nn.Linear, nn.BatchNorm1d, nn.BatchNorm3d)


def settle(layer: nn.Module) -> None:
    """Give a spectral norm its exact singular vectors, so that one more power iteration moves nothing.

    The plain form makes one at each call, ours one in each phase; after some training both have converged.
    """
    if parametrize.is_parametrized(layer, "weight"):
        norm = layer.parametrizations.weight
        matrix = norm.original.movedim(norm[0].rows, 0).flatten(1)
        left, _, right = torch.linalg.svd(matrix.detach().double(), full_matrices=False)
        norm[0]._u.copy_(left[:, 0])
        norm[0]._v.copy_(right[0])


def give(ours: nn.Module, plain: nn.Module) -> None:
    """Give a layer's state to the plain form of it."""
    if parametrize.is_parametrized(ours, "weight"):
        norm = ours.parametrizations.weight
        plain.weight_orig.data.copy_(norm.original.data)
        plain.weight_u.copy_(norm[0]._u)
        plain.weight_v.copy_(norm[0]._v)
    else:
        plain.weight.data.copy_(ours.weight.data)
    if ours.bias is not None:
        plain.bias.data.copy_(ours.bias.data)


def pairs(networks: Networks, released: Released) -> list[tuple[str, nn.Module, nn.Module]]:
    layers = []
    for name, short in NAMES.items():
        ours, plain = weighted(networks[name]), weighted(released.networks[short])
        layers += [(f"{name} {i}", *pair) for i, pair in enumerate(zip(ours, plain, strict=True))]
    return layers


class Same(Released):
    """The plain form with the engine's random numbers for iterations 0, 1, ..."""

    step = -1

    def normal(self, shape: tuple[int, ...], device: torch.device) -> Tensor:
        self.phase = (self.phase + 1) % 3
        normal = torch.randn(shape, generator=self.source)
        self.mixes = list(torch.rand((2, len(normal)), generator=self.source))
        return normal

    def mix(self, n: int, device: torch.device) -> Tensor:
        return self.mixes.pop(0)

    def run(self, step: int) -> dict[str, Tensor]:
        self.source, self.phase = random_source(SEED, ITERATION_STREAM, step), -1
        numbers = [2 * step, 2 * step + 1]
        return self.iteration(iter([SCANS[batch_indices(len(SCANS), BATCH, SEED, n)] for n in numbers]))


def parameters(layer: nn.Module) -> dict[str, Tensor]:
    """Weight and bias by plain names: the raw weight where it is normalised spectrally."""
    names = {"parametrizations.weight.original": "weight", "weight_orig": "weight"}
    return {names.get(name, name): value for name, value in layer.named_parameters()}


def above_rounding(parameter: Tensor, optimiser: torch.optim.Optimizer) -> Tensor:
    """Which elements have a gradient above rounding.

    Adam divides a gradient by its own size, so that of an element whose gradient should be zero (a bias that
    a normalisation takes away again, or a unit that acts alike on real and generated codes) it makes a whole
    step in a random direction.
    """
    largest = max(state["exp_avg"].abs().max() for state in optimiser.state.values())
    return optimiser.state[parameter]["exp_avg"].abs() > 1e-5 * largest


@pytest.mark.parametrize("speedups", [(), SPEEDUPS, *((name,) for name in SPEEDUPS)], ids="+".join)
@pytest.mark.parametrize("which", VARIANTS)
@pytest.mark.parametrize("name", MODELS)
def test_an_iteration_equals_the_plain_one(name, which, speedups):
    model = AlphaGan(replace(variant(SPECS[name], which), augmentations=()))
    networks = initial_networks(model, settings(*speedups), SIZE)
    optimisers = model.optimisers(networks, settings(*speedups))
    plain = Same(name, SIZE, CHANNELS, LATENT, as_published=which == "paper")
    for _, ours, theirs in pairs(networks, plain):
        settle(ours)
        give(ours, theirs)
    before = {
        f"{layer} {key}": value.clone()
        for layer, ours, _ in pairs(networks, plain)
        for key, value in parameters(ours).items()
    }

    losses, expected = iteration(networks, optimisers, BATCHES, model, settings(*speedups), 0), plain.run(0)

    for phase in model.phases:
        torch.testing.assert_close(
            losses[f"{phase.name}_loss"], expected[phase.name], rtol=1e-5, atol=1e-5, msg=phase.name
        )
    compared = everything = 0
    for layer, ours, theirs in pairs(networks, plain):
        left, right = parameters(ours), parameters(theirs)
        assert left.keys() == right.keys()
        for key in left:
            sound = above_rounding(left[key], optimisers[layer.split()[0]])
            difference = ((left[key] - right[key]).abs() * sound).max()
            assert difference < 1e-5, f"{layer} {key}: {difference:.2g}"
            if key == "weight":
                assert (left[key] - before[f"{layer} {key}"]).abs().max() > 1e-5, f"{layer} has not moved"
            compared, everything = compared + sound.sum(), everything + sound.numel()
    assert compared > 0.9 * everything
