"""The four networks of an alpha-GAN, built from a `ModelSpec`.

Layers: Figures 5 and 6 of Ferreira et al. 2022 (doi:10.3390/app12104844). At the paper's size (64) and
channels (64) they are the paper's networks; another cube has one stage more or less for each factor of two.
Weights are initialised as torch does by default, as in the paper's code.
"""

from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.parametrizations import spectral_norm

from bids_alphagan.models import ModelSpec, NetworkSpec

CRITIC_SLOPE = 0.2
CODE_UNITS_PER_CHANNEL = 64  # 4096 units at the paper's 64 channels
SMALLEST = 16


class UpsampleConv3d(nn.Conv3d):
    """Nearest x2, then a 3 x 3 x 3 convolution with padding 1: (B, C, N, N, N) -> (B, C', 2N, 2N, 2N).

    Computed at the low resolution, where it is the same but for rounding and takes a third of the operations:
    of the three taps along an axis, two fall on one low-resolution voxel, so each of the two fine voxels
    (phases) within a coarse one sees a 2-tap kernel, (w0, w1 + w2) from one voxel before or (w0 + w1, w2).
    """

    def forward(self, x: Tensor) -> Tensor:
        kernels = self.weight
        for axis in (2, 3, 4):
            w0, w1, w2 = kernels.split(1, dim=axis)
            phases = [torch.cat([w0, w1 + w2], dim=axis), torch.cat([w0 + w1, w2], dim=axis)]
            kernels = torch.cat(phases)
        fine = F.conv3d(x, kernels, padding=1).unflatten(1, (2, 2, 2, self.out_channels))
        # the phases of x lie along dimension 3, of y along 2, of z along 1; phase 1 begins one voxel later
        for dimension in (3, 2, 1):
            phases = [fine.select(dimension, phase).narrow(4, phase, x.shape[-1]) for phase in (0, 1)]
            fine = torch.stack(phases, dim=5).flatten(4, 5)
        return fine


class Generator(nn.Sequential):
    """Latent vectors (B, L) -> volumes (B, 1, N, N, N) in [-1, 1]."""

    def __init__(self, spec: NetworkSpec, slope: float, size: int, channels: int, latent: int) -> None:
        widths = _widths(size, channels)[::-1]
        first = nn.ConvTranspose3d(latent, widths[0], 4, stride=1, padding=0, bias=False)
        layers = [_sn(first, spec), *_norm(spec, widths[0]), _relu(slope)]
        for wide, narrow in pairwise(widths):
            layers += [_up(wide, narrow, spec), *_norm(spec, narrow), _relu(slope)]
        super().__init__(*layers, _up(widths[-1], 1, spec), nn.Tanh())

    def forward(self, z: Tensor) -> Tensor:
        return super().forward(z[:, :, None, None, None])


class Discriminator(nn.Sequential):
    """Volumes (B, 1, N, N, N) -> (B, outputs): scores without bounds, or codes where outputs = L.

    The first and the last convolution carry no normalisation layer.
    """

    def __init__(self, spec: NetworkSpec, size: int, channels: int, outputs: int = 1) -> None:
        widths = _widths(size, channels)
        layers = [_sn(nn.Conv3d(1, widths[0], 4, stride=2, padding=1), spec), nn.LeakyReLU(CRITIC_SLOPE)]
        for narrow, wide in pairwise(widths):
            conv = nn.Conv3d(narrow, wide, 4, stride=2, padding=1)
            layers += [_sn(conv, spec), *_norm(spec, wide), nn.LeakyReLU(CRITIC_SLOPE)]
        last = nn.Conv3d(widths[-1], outputs, 4, stride=1, padding=0)
        super().__init__(*layers, _sn(last, spec), nn.Flatten())


class CodeDiscriminator(nn.Sequential):
    """Latent vectors (B, L) -> scores (B, 1) without bounds."""

    def __init__(self, spec: NetworkSpec, channels: int, latent: int) -> None:
        units = CODE_UNITS_PER_CHANNEL * channels
        layers: list[nn.Module] = []
        for inputs in (latent, units):
            norm = [nn.BatchNorm1d(units)] if spec.normalisation else []
            layers += [_sn(nn.Linear(inputs, units), spec), *norm, nn.LeakyReLU(CRITIC_SLOPE)]
        super().__init__(*layers, _sn(nn.Linear(units, 1), spec))


@dataclass(frozen=True)
class Networks:
    """The four networks; `vars` of it gives them by name."""

    generator: Generator
    encoder: Discriminator
    discriminator: Discriminator
    code_discriminator: CodeDiscriminator

    def to(self, device: torch.device) -> "Networks":
        return Networks(**{name: network.to(device) for name, network in vars(self).items()})


def build_generator(spec: ModelSpec, size: int, channels: int, latent: int) -> Generator:
    """The generator alone, as `build_networks` makes it."""
    return Generator(spec.generator, spec.generator_slope, size, channels, latent)


def build_networks(spec: ModelSpec, size: int, channels: int, latent: int | None = None) -> Networks:
    """Build the networks with weights drawn from torch's global random state.

    size: edge of the cube in voxels, a power of two, at least 16 (64 in the paper).
    channels: width of the layer next to the volume (64 in the paper); the deepest has channels * size / 8.
    latent: L, the model's own if None.
    Raises ValueError on numbers from which no network can be built.
    """
    latent = spec.latent if latent is None else latent
    if latent < 1:
        raise ValueError(f"The latent vector needs at least one element, not {latent}")
    return Networks(
        generator=build_generator(spec, size, channels, latent),
        encoder=Discriminator(spec.encoder, size, channels, latent),
        discriminator=Discriminator(spec.discriminator, size, channels),
        code_discriminator=CodeDiscriminator(spec.code_discriminator, channels, latent),
    )


def _widths(size: int, channels: int) -> list[int]:
    """Channels of each stage from the volume to the 4 x 4 x 4 bottom: 64, 128, 256, 512 in the paper."""
    if size < SMALLEST or size & (size - 1):
        raise ValueError(f"The grid must be a power of two and at least {SMALLEST} voxels, not {size}")
    if channels < 1:
        raise ValueError(f"The networks need at least one channel, not {channels}")
    depth = size.bit_length() - 3
    return [channels * 2**stage for stage in range(depth)]


def _sn(layer: nn.Module, spec: NetworkSpec) -> nn.Module:
    return spectral_norm(layer) if spec.spectral_norm else layer


def _up(inputs: int, outputs: int, spec: NetworkSpec) -> nn.Module:
    return _sn(UpsampleConv3d(inputs, outputs, 3, stride=1, padding=1, bias=False), spec)


def _norm(spec: NetworkSpec, width: int) -> list[nn.Module]:
    match spec.normalisation:
        case "batch":
            return [nn.BatchNorm3d(width)]
        case "instance":
            return [nn.InstanceNorm3d(width)]
        case None:
            return []


def _relu(slope: float) -> nn.Module:
    return nn.LeakyReLU(slope) if slope else nn.ReLU()
