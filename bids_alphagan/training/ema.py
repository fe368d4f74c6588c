"""The exponential moving average (EMA) of a generator's weights, from which scans may be drawn.

The weights of a GAN circle around where they are going; their average over the last iterations lies nearer to
it (Karras et al. 2018, arXiv:1710.10196; Yazici et al. 2019, arXiv:1806.04498). torch's own AveragedModel
would make the host wait for the device in each iteration, and begins with the first, untrained weights.
"""

import copy
from typing import cast

import torch
from torch import nn

from bids_alphagan.models.alphagan.networks import Generator, Networks

AVERAGE = "average"  # its name among the networks of a checkpoint


def with_average(networks: Networks, decay: float) -> dict[str, nn.Module]:
    """What a checkpoint holds: the four networks, and the generator's average where `decay` is not 0."""
    found = dict(vars(networks))
    if decay:
        found[AVERAGE] = copy.deepcopy(networks.generator).requires_grad_(False)
    return found


def drawn_from(networks: dict[str, nn.Module]) -> Generator:
    """The generator whose scans are shown and kept."""
    return cast(Generator, networks.get(AVERAGE, networks["generator"]))


@torch.no_grad()
def advance(networks: dict[str, nn.Module], decay: float, step: int) -> None:
    """Move the average, where there is one, towards the generator's weights after `step` iterations.

    average = keep * average + (1 - keep) * weights, with keep = min(decay, (1 + step) / (10 + step)), so that
    the first, untrained weights are soon forgotten. Statistics and singular vectors are the generator's own.
    """
    if AVERAGE not in networks:
        return
    mean, now = networks[AVERAGE], networks["generator"]
    keep = min(decay, (1 + step) / (10 + step))
    torch._foreach_lerp_(list(mean.parameters()), list(now.parameters()), 1 - keep)
    for theirs, ours in zip(mean.buffers(), now.buffers(), strict=True):
        theirs.copy_(ours)
