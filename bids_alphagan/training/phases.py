"""One iteration of a model: its phases in order. Networks that a phase does not train are frozen."""

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from bids_alphagan.models import check_batch
from bids_alphagan.models.base import Batch, NetworkModel, Networks, Optimisers, Phase, Terms
from bids_alphagan.training import distributed
from bids_alphagan.training.augment import augment
from bids_alphagan.training.data import Batches, random_source, send
from bids_alphagan.training.settings import TrainSettings, check_division

ITERATION_STREAM = 1  # key of the iterations' random numbers; key 0 is the order of the scans


def iteration(
    networks: Networks,
    optimisers: Optimisers,
    batches: Batches,
    model: NetworkModel,
    settings: TrainSettings,
    step: int,
) -> Terms:
    """Iteration number `step` (from 0): one update per phase. Returns losses and unweighted terms.

    Every random number follows from settings.seed and `step`; with several devices, each draws the numbers of the whole
    batch and keeps those of its rows. Nothing here waits for the device.
    """
    device = batches.device
    source = random_source(settings.seed, ITERATION_STREAM, step)
    results: Terms = {}
    number = batches_in(model) * step

    def normal(length: int) -> Tensor:
        numbers = torch.randn((settings.batch_size, length), generator=source)
        return send(distributed.rows(numbers), device)

    def uniform(n: int) -> Tensor:
        numbers = torch.rand((n, settings.batch_size), generator=source)
        return send(distributed.rows(numbers, dim=1), device)

    batch = Batch(torch.empty(0), "one_pass" in settings.speedups, normal, uniform)
    for phase in model.phases:
        if phase.new_scans:  # outside autocast: in bf16 sampling positions would be a tenth of a voxel off
            batch.real = distributed.rows(augment(batches[number], model.augmentations, source))
            batch.handed = {}
            number += 1
        for name, network in networks.items():
            network.requires_grad_(name in phase.networks)
        # a network's spectral norms are estimated once in a phase (Miyato et al. 2018, algorithm 1)
        with parametrize.cached():
            for name in phase.uses:
                make_weights(networks[name])
            half = phase.in_bf16 and settings.precision == "bf16"
            with torch.autocast(device.type, torch.bfloat16, enabled=half):
                terms = phase.terms(networks, batch)
                for name in phase.sums & terms.keys():  # gradients are averaged over devices
                    terms[name] = terms[name] * distributed.size()
            loss = total(terms, phase)
            loss.backward()
        values = {f"{phase.name}_loss": loss.detach()}
        values |= {f"{phase.name}_{name}": term.detach() for name, term in terms.items()}
        learning = (weight for name in phase.networks for weight in networks[name].parameters())
        results |= distributed.all_reduce_gradients(learning, values)
        for name in phase.networks:
            for _ in range(phase.updates.get(name, 1)):
                optimisers[name].step()
            optimisers[name].zero_grad()
        batch.handed = {name: tensor.detach() for name, tensor in batch.handed.items()}
    return results


def batches_in(model: NetworkModel) -> int:
    """Number of batches of scans that an iteration draws."""
    return sum(phase.new_scans for phase in model.phases)


def total(terms: Terms, phase: Phase) -> Tensor:
    """The weighted sum of a phase's terms."""
    return torch.stack(
        [
            phase.weights.get(name, 1) * (term.detach() if name in phase.without_gradient else term)
            for name, term in terms.items()
        ]
    ).sum()


def make_weights(network: nn.Module) -> None:
    """Compute spectrally normalised weights now, to be cached, in full precision and as part of the graph."""
    for layer in network.modules():
        if parametrize.is_parametrized(layer, "weight"):
            _ = layer.weight


def initial_networks(model: NetworkModel, settings: TrainSettings, size: int) -> Networks:
    """New networks for volumes with N = `size`, from settings.seed.

    Raises UserError if no network can be built from these settings.
    """
    check_batch(model.name, settings.batch_size)
    check_division(settings.batch_size, distributed.size())
    # drawn on the CPU, so that every device starts from the same weights
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(settings.seed)
        return model.networks(size, settings, distributed.all_gather if distributed.size() > 1 else None)
