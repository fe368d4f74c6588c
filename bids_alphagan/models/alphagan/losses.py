"""The losses of Ferreira et al. 2022 (doi:10.3390/app12104844), equations (1) to (6), as pure functions.

Scores are the outputs of a discriminator, (B, 1), unbounded; volumes are (B, 1, N, N, N) in [-1, 1]; codes
are (B, L). E[.] is the mean over the batch, z_e = E(x_real) the encoder's code, z_r ~ N(0, I) a random one.
Every function returns a differentiable scalar tensor.

| equation | minimised by | terms |
|---|---|---|
| (2), (5), (6) | encoder and generator | `adversarial`, `code_adversarial`, `RECONSTRUCTION` |
| (4) | discriminator | `discriminator`, two `gradient_penalty` |
| (3) | code discriminator | `code_discriminator`, `gradient_penalty` |
"""

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

PENALTY_EPSILON = 1e-15


def adversarial(score_encoded: Tensor, score_random: Tensor) -> Tensor:
    """Equation (1): L_GD = -E[D(G(z_e))] - E[D(G(z_r))]."""
    return -_mean(score_encoded) - _mean(score_random)


def code_adversarial(score_encoded: Tensor) -> Tensor:
    """The code's term of equations (2), (5) and (6): -E[C(z_e)]."""
    return -_mean(score_encoded)


def discriminator(score_real: Tensor, score_encoded: Tensor, score_random: Tensor) -> Tensor:
    """Equation (4) without its penalty: -L_GD - 2 E[D(x_real)]."""
    return -adversarial(score_encoded, score_random) - 2 * _mean(score_real)


def code_discriminator(score_encoded: Tensor, score_random: Tensor) -> Tensor:
    """Equation (3) without its penalty: E[C(z_e)] - E[C(z_r)]."""
    return _mean(score_encoded) - _mean(score_random)


def l1(real: Tensor, reconstruction: Tensor) -> Tensor:
    """||x_real - G(z_e)||_L1 of equations (2) and (5): mean over voxels and batch of |x - y|."""
    return F.l1_loss(reconstruction, real)


def mse(real: Tensor, reconstruction: Tensor) -> Tensor:
    """||x_real - G(z_e)||_MSE of equations (5) and (6): mean over voxels and batch of (x - y)^2."""
    return F.mse_loss(reconstruction, real)


def gdl(real: Tensor, reconstruction: Tensor) -> Tensor:
    """Gradient difference loss of equation (6): sum over axes a of (|D_a x| - |D_a y|)^2.

    D_a is the forward difference between neighbours along a (Mathieu et al. 2016, arXiv:1511.05440).

    Reduction: the sum over voxels and batch, as in the authors' code, for which the weight 0.01 was chosen. It grows
    with the batch and with the number of voxels; L1 and MSE are means.
    """
    total = torch.zeros((), dtype=real.dtype, device=real.device)
    for axis in (2, 3, 4):
        total = total + (real.diff(dim=axis).abs() - reconstruction.diff(dim=axis).abs()).square().sum()
    return total


RECONSTRUCTION: dict[str, Callable[[Tensor, Tensor], Tensor]] = {"l1": l1, "mse": mse, "gdl": gdl}
SUMS = frozenset({"gdl"})  # terms that are a sum over the batch; all others are a mean over it


def interpolate(real: Tensor, fake: Tensor, mix: Tensor) -> Tensor:
    """mix * real + (1 - mix) * fake, the point of the gradient penalty, without a gradient to either.

    real, fake: (B, ...). mix: (B,), uniform in [0, 1), one number per sample.
    """
    weight = mix.view(-1, *[1] * (real.dim() - 1))
    return weight * real.detach() + (1 - weight) * fake.detach()


def gradient_penalty(gradient: Tensor) -> Tensor:
    """WGAN-GP penalty: E[(||gradient||_2 - 1)^2] (Gulrajani et al. 2017, arXiv:1704.00028).

    gradient: (B, ...), the gradient of a critic's score with respect to each sample, at a point interpolated
    between a real and a generated one. The norm is sqrt(sum of squares + 1e-15), whose gradient is finite at zero.
    """
    norm = (_full(gradient).flatten(1).square().sum(1) + PENALTY_EPSILON).sqrt()
    return (norm - 1).square().mean()


def _mean(scores: Tensor) -> Tensor:
    return _full(scores).mean()


def _full(tensor: Tensor) -> Tensor:
    """The tensor in at least single precision: half precision is too coarse for sums."""
    return tensor.to(torch.promote_types(tensor.dtype, torch.float32))
