"""The training loop of the code released with the paper, written again plainly, to compare with.

Layers, losses, order of the updates and the way the scans are read follow the authors' notebook `Train.ipynb`
and its networks (github.com/ShadowTwin41/alpha-WGAN-SigmaRat), in fp32 with torch's own modules: nearest
interpolation before each convolution, one pass for each batch, the gradient penalties by double backward, all
graphs kept, the generator stepped twice, the gradient difference loss as a number without gradient, a new
data loader for each batch. tests/training/test_released.py checks `bids_alphagan.training` against it;
benchmarks/training.py times it.

Where the notebook cannot be followed: Kwon et al.'s baseline and the notebook's architectures are one set of
classes here, chosen by name.
"""

import warnings
from collections.abc import Iterator
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils import spectral_norm as hooked_spectral_norm
from torch.utils.data import DataLoader, Dataset

EPS = 1e-15
GRADIENT_PENALTY = {"adni": 10, "sigmarat1": 10, "sigmarat2": 100}


def spectral_norm(layer: nn.Module) -> nn.Module:
    """The notebook's form: a hook, one power iteration at each call."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        return hooked_spectral_norm(layer)


def same(layer: nn.Module) -> nn.Module:
    return layer


class Generator(nn.Module):
    """Latent vectors (B, L) -> volumes (B, 1, N, N, N)."""

    def __init__(self, model: str, size: int, channels: int, latent: int) -> None:
        super().__init__()
        sn = spectral_norm if model == "sigmarat1" else same
        norm = nn.BatchNorm3d if model == "adni" else nn.InstanceNorm3d
        self.activation = nn.ReLU() if model == "adni" else nn.LeakyReLU()
        widths = [channels * size // 8 // 2**k for k in range(size.bit_length() - 3)]
        self.first = sn(nn.ConvTranspose3d(latent, widths[0], 4, 1, 0, bias=False))
        self.convs = nn.ModuleList(sn(nn.Conv3d(a, b, 3, 1, 1, bias=False)) for a, b in pairwise(widths))
        self.last = sn(nn.Conv3d(widths[-1], 1, 3, 1, 1, bias=False))
        self.norms = nn.ModuleList(norm(width) for width in widths)

    def forward(self, z: Tensor) -> Tensor:
        h = self.activation(self.norms[0](self.first(z.view(*z.shape, 1, 1, 1))))
        for conv, norm in zip(self.convs, list(self.norms)[1:], strict=True):
            h = self.activation(norm(conv(F.interpolate(h, scale_factor=2))))
        return torch.tanh(self.last(F.interpolate(h, scale_factor=2)))


class Discriminator(nn.Module):
    """Volumes (B, 1, N, N, N) -> (B, outputs, 1, 1, 1); with L outputs it is the encoder."""

    def __init__(self, model: str, size: int, channels: int, outputs: int = 1) -> None:
        super().__init__()
        encoder = outputs > 1
        sn = same if model == "adni" or (model == "sigmarat2" and encoder) else spectral_norm
        widths = [channels * 2**k for k in range(size.bit_length() - 3)]
        self.convs = nn.ModuleList(sn(nn.Conv3d(a, b, 4, 2, 1)) for a, b in pairwise([1, *widths]))
        if model == "adni":
            self.norms = nn.ModuleList([nn.Identity(), *(nn.BatchNorm3d(width) for width in widths[1:])])
        elif model == "sigmarat2" and not encoder:
            self.norms = nn.ModuleList(nn.Identity() for _ in widths)
        else:
            self.norms = nn.ModuleList([nn.Identity(), *(nn.InstanceNorm3d(width) for width in widths[1:])])
        self.last = sn(nn.Conv3d(widths[-1], outputs, 4, 1, 0))

    def forward(self, x: Tensor) -> Tensor:
        for conv, norm in zip(self.convs, self.norms, strict=True):
            x = F.leaky_relu(norm(conv(x)), 0.2)
        return self.last(x)


class CodeDiscriminator(nn.Module):
    """Latent vectors (B, L) -> scores (B, 1)."""

    def __init__(self, model: str, channels: int, latent: int) -> None:
        super().__init__()
        sn = same if model == "adni" else spectral_norm
        units = 64 * channels
        norm = nn.Identity if model == "sigmarat2" else nn.BatchNorm1d
        self.l1 = nn.Sequential(sn(nn.Linear(latent, units)), norm(units), nn.LeakyReLU(0.2, inplace=True))
        self.l2 = nn.Sequential(sn(nn.Linear(units, units)), norm(units), nn.LeakyReLU(0.2, inplace=True))
        self.l3 = sn(nn.Linear(units, 1))

    def forward(self, z: Tensor) -> Tensor:
        return self.l3(self.l2(self.l1(z)))


class Scans(Dataset[Tensor]):
    """The scans, each through `transform` when it is read."""

    def __init__(self, scans: Tensor, transform: Any = None) -> None:
        self.scans, self.transform = scans, transform

    def __len__(self) -> int:
        return len(self.scans)

    def __getitem__(self, index: int) -> Tensor:
        scan = self.scans[index]
        return self.transform(scan[None])[0] if self.transform else scan


def new_loader_each_time(scans: Scans, batch_size: int, workers: int = 2) -> Iterator[Tensor]:
    """Batches as the notebook reads them: `next(iter(train_loader))` starts the workers anew for each one."""
    loader = DataLoader(scans, batch_size, shuffle=True, num_workers=workers)
    while True:
        yield next(iter(loader))


def gradient_difference(real: Tensor, fake: Tensor) -> Tensor:
    """Squared difference of absolute differences, summed over axes, voxels and batch."""
    total = torch.zeros((), device=real.device)
    for axis in (3, 2, 4):
        total = total + torch.sum((real.diff(dim=axis).abs() - fake.diff(dim=axis).abs()) ** 2)
    return total


class Released:
    """Four networks, four optimisers, and the notebook's iteration.

    Random numbers come from `normal` and `mix`, so that a test can give those of another implementation.
    as_published: True steps the generator once and gives the gradient difference loss its gradient, as the
    paper's equations have it; False is the notebook.
    """

    def __init__(
        self, model: str, size: int, channels: int, latent: int, lr: float = 2e-4, as_published: bool = False
    ) -> None:
        self.model, self.latent, self.as_published = model, latent, as_published
        self.G = Generator(model, size, channels, latent)
        self.E = Discriminator(model, size, channels, latent)
        self.D = Discriminator(model, size, channels)
        self.CD = CodeDiscriminator(model, channels, latent)
        kind = torch.optim.AdamW if model == "sigmarat2" else torch.optim.Adam
        self.optimisers = {name: kind(network.parameters(), lr=lr) for name, network in self.networks.items()}

    @property
    def networks(self) -> dict[str, nn.Module]:
        return {"G": self.G, "E": self.E, "D": self.D, "CD": self.CD}

    def to(self, device: torch.device | str) -> "Released":
        for network in self.networks.values():
            network.to(device)
        return self

    def train_only(self, *names: str) -> None:
        for name, network in self.networks.items():
            network.requires_grad_(name in names)

    def normal(self, shape: tuple[int, ...], device: torch.device) -> Tensor:
        return torch.randn(shape).to(device)

    def mix(self, n: int, device: torch.device) -> Tensor:
        return torch.rand(n).to(device)

    def penalty(self, critic: nn.Module, x: Tensor, x_gen: Tensor) -> Tensor:
        alpha = self.mix(len(x), x.device).view(-1, *[1] * (x.dim() - 1))
        x_hat = (x.data * alpha + x_gen.data * (1 - alpha)).requires_grad_()
        (slope,) = torch.autograd.grad(critic(x_hat).sum(), x_hat, create_graph=True)
        slope = slope.reshape(len(slope), -1)
        norm = (slope * slope + EPS).sum(-1).sqrt()
        return ((norm - 1) ** 2).mean()

    def iteration(self, loader: Iterator[Tensor]) -> dict[str, Tensor]:
        """One iteration; returns the losses of generator and encoder, discriminator, code discriminator."""
        device = next(self.G.parameters()).device

        self.train_only("E", "G")
        self.G.zero_grad()
        self.E.zero_grad()
        real = next(loader).to(device, non_blocking=True)
        n = len(real)
        z_rand = self.normal((n, self.latent), device)
        z_hat = self.E(real).view(n, -1)
        x_hat = self.G(z_hat)
        x_rand = self.G(z_rand)
        cd_loss = self.CD(z_hat).mean()
        d_loss = self.D(x_hat).mean() + self.D(x_rand).mean()
        loss1 = -cd_loss - d_loss
        if self.model == "sigmarat2":
            mse = F.mse_loss(x_hat, real)
            gd = gradient_difference(real, x_hat)
            if not self.as_published:
                gd = gd.item()
            loss1 = loss1 + mse * 100 + gd / 100
        elif self.model == "sigmarat1":
            loss1 = loss1 + F.l1_loss(x_hat, real) * 10 + F.mse_loss(x_hat, real) * 10
        else:
            loss1 = loss1 + F.l1_loss(x_hat, real) * 10
        loss1.backward(retain_graph=True)
        self.optimisers["E"].step()
        self.optimisers["G"].step()
        if not self.as_published:
            self.optimisers["G"].step()

        weight = GRADIENT_PENALTY[self.model]
        self.train_only("D")
        self.optimisers["D"].zero_grad()
        real = next(loader).to(device, non_blocking=True)
        z_rand = self.normal((n, self.latent), device)
        z_hat = self.E(real).view(n, -1)
        x_hat = self.G(z_hat)
        x_rand = self.G(z_rand)
        x_loss2 = -2 * self.D(real).mean() + self.D(x_hat).mean() + self.D(x_rand).mean()
        penalty_r = self.penalty(self.D, real, x_rand)
        penalty_h = self.penalty(self.D, real, x_hat)
        loss2 = x_loss2 + (penalty_r + penalty_h) * weight
        loss2.backward(retain_graph=True)
        self.optimisers["D"].step()

        self.train_only("CD")
        self.optimisers["CD"].zero_grad()
        z_rand = self.normal((n, self.latent), device)
        penalty = self.penalty(self.CD, z_hat, z_rand)
        x_loss3 = -self.CD(z_rand).mean() + self.CD(z_hat).mean()
        loss3 = x_loss3 + penalty * weight
        loss3.backward(retain_graph=True)
        self.optimisers["CD"].step()
        return {
            "generator": loss1.detach(),
            "discriminator": loss2.detach(),
            "code_discriminator": loss3.detach(),
        }
