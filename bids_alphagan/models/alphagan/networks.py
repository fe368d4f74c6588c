"""The four networks of an alpha-GAN, built from a `ModelSpec`.

Layers: Figures 5 and 6 of Ferreira et al. 2022 (doi:10.3390/app12104844). With the paper's size (64) and
channels (64) they are the paper's networks; other cubes have one stage more or less per factor of two,
and a bottleneck of 4 to 7 voxels (4 in the paper).
Weights have torch's default initialisation, as in the paper's code.
"""

from dataclasses import dataclass
from itertools import pairwise

from torch import Tensor, nn

from bids_alphagan.models.alphagan.layers import (
    BatchNorm1d,
    BatchNorm3d,
    Critic,
    FromLatent,
    InstanceNorm3d,
    ToVector,
    UpsampleConv3d,
)
from bids_alphagan.models.alphagan.spec import ModelSpec, NetworkSpec
from bids_alphagan.models.alphagan.spectral import spectral_norm

CRITIC_SLOPE = 0.2
CODE_UNITS_PER_CHANNEL = 64  # 4096 units at the paper's 64 channels
SMALLEST, LARGEST = 16, 256


class Generator(nn.Sequential):
    """Latent vectors (B, L) -> volumes (B, 1, N, N, N) in [-1, 1]."""

    def __init__(self, spec: NetworkSpec, slope: float, size: int, channels: int, latent: int) -> None:
        widths, bottleneck = _widths(size, channels)
        widths = widths[::-1]
        first = FromLatent(latent, widths[0], bottleneck, stride=1, padding=0, bias=False)
        layers = [_sn(first, spec), *_norm(spec, widths[0]), _relu(slope)]
        for wide, narrow in pairwise(widths):
            layers += [_up(wide, narrow, spec), *_norm(spec, narrow), _relu(slope)]
        super().__init__(*layers, _up(widths[-1], 1, spec), nn.Tanh())

    def forward(self, z: Tensor) -> Tensor:
        return super().forward(z[:, :, None, None, None])


class Discriminator(Critic):
    """Volumes (B, 1, N, N, N) -> (B, outputs): unbounded scores, or codes with outputs = L.

    The first and the last convolution have no normalisation layer.
    """

    def __init__(self, spec: NetworkSpec, size: int, channels: int, outputs: int = 1) -> None:
        widths, bottleneck = _widths(size, channels)
        layers = [_sn(nn.Conv3d(1, widths[0], 4, stride=2, padding=1), spec), _relu(CRITIC_SLOPE)]
        for narrow, wide in pairwise(widths):
            conv = nn.Conv3d(narrow, wide, 4, stride=2, padding=1)
            layers += [_sn(conv, spec), *_norm(spec, wide), _relu(CRITIC_SLOPE)]
        last = ToVector(widths[-1], outputs, bottleneck, stride=1, padding=0)
        super().__init__(*layers, _sn(last, spec), nn.Flatten())


class CodeDiscriminator(Critic):
    """Latent vectors (B, L) -> unbounded scores (B, 1)."""

    def __init__(self, spec: NetworkSpec, channels: int, latent: int) -> None:
        units = CODE_UNITS_PER_CHANNEL * channels
        layers: list[nn.Module] = []
        for inputs in (latent, units):
            norm = [BatchNorm1d(units)] if spec.normalisation else []
            layers += [_sn(nn.Linear(inputs, units), spec), *norm, _relu(CRITIC_SLOPE)]
        super().__init__(*layers, _sn(nn.Linear(units, 1), spec))


@dataclass(frozen=True)
class Networks:
    """The four networks; `vars` gives them by name."""

    generator: Generator
    encoder: Discriminator
    discriminator: Discriminator
    code_discriminator: CodeDiscriminator


def build_generator(spec: ModelSpec, size: int, channels: int, latent: int) -> Generator:
    """The generator alone, as in `build_networks`."""
    return Generator(spec.generator, spec.generator_slope, size, channels, latent)


def build_networks(spec: ModelSpec, size: int, channels: int, latent: int | None = None) -> Networks:
    """Build the networks with weights drawn from torch's global random state.

    size: edge of the cube in voxels, 4, 5, 6 or 7 times a power of two, 16 to 256 (64 in the paper).
    channels: width of the layer next to the volume (64 in the paper); the deepest has channels * size / 8.
    latent: L, the model's own if None.
    Raises ValueError if no network can be built from these numbers.
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


def _widths(size: int, channels: int) -> tuple[list[int], int]:
    """Channels of each stage from the volume to the bottleneck, and the bottleneck's edge, 4 to 7 voxels.

    In the paper: 64, 128, 256, 512, and 4.
    """
    depth = size.bit_length() - 3
    if not SMALLEST <= size <= LARGEST or size % 2**depth:
        raise ValueError(
            f"The grid must be 4, 5, 6 or 7 times a power of two, from {SMALLEST} to {LARGEST}, not {size}"
        )
    if channels < 1:
        raise ValueError(f"The networks need at least one channel, not {channels}")
    return [channels * 2**stage for stage in range(depth)], size >> depth


def _sn(layer: nn.Module, spec: NetworkSpec) -> nn.Module:
    return spectral_norm(layer) if spec.spectral_norm else layer


def _up(inputs: int, outputs: int, spec: NetworkSpec) -> nn.Module:
    return _sn(UpsampleConv3d(inputs, outputs, 3, stride=1, padding=1, bias=False), spec)


def _norm(spec: NetworkSpec, width: int) -> list[nn.Module]:
    match spec.normalisation:
        case "batch":
            return [BatchNorm3d(width)]
        case "instance":
            return [InstanceNorm3d(width)]
        case None:
            return []


def _relu(slope: float) -> nn.Module:
    # in place: the backward pass needs only an activation's output, which the next layer keeps anyway
    return nn.LeakyReLU(slope, inplace=True) if slope else nn.ReLU(inplace=True)
