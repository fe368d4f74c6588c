"""The exponential moving average (EMA) of a network's weights, from which samples may be drawn.

The weights of a GAN oscillate around their limit; their average over the last iterations is nearer to
it (Karras et al. 2018, arXiv:1710.10196; Yazici et al. 2019, arXiv:1806.04498). torch's own AveragedModel
would make the host wait for the device in each iteration, and starts from the first, untrained weights.
"""

import copy

import torch
from torch import nn

from bids_alphagan.models.base import Networks

EMA = "average"  # its name among the networks of a checkpoint


def with_ema(networks: Networks, drawn: str, decay: float) -> Networks:
    """The networks of a checkpoint: `networks`, and the EMA of `drawn` if `decay` is not 0."""
    held = dict(networks)
    if decay:
        held[EMA] = copy.deepcopy(networks[drawn]).requires_grad_(False)
    return held


def drawn_from(networks: Networks, drawn: str) -> nn.Module:
    """The network that draws samples: the EMA of `drawn` if there is one, else `drawn` itself."""
    return networks.get(EMA, networks[drawn])


@torch.no_grad()
def update(networks: Networks, drawn: str, decay: float, step: int) -> None:
    """Update the EMA, if there is one, with the weights of `drawn` after `step` iterations.

    ema = keep * ema + (1 - keep) * weights, with keep = min(decay, (1 + step) / (10 + step)), so that the first,
    untrained weights are soon forgotten. Buffers (batch statistics, singular vectors) are copied from the network.
    """
    if EMA not in networks:
        return
    average, now = networks[EMA], networks[drawn]
    keep = min(decay, (1 + step) / (10 + step))
    torch._foreach_lerp_(list(average.parameters()), list(now.parameters()), 1 - keep)
    for kept, current in zip(average.buffers(), now.buffers(), strict=True):
        kept.copy_(current)
