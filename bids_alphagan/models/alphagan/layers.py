"""Layers that give the results of torch's own, to rounding, with fewer operations or in a better order.

`plain` selects torch's own form; the tests compare the two, and benchmarks/training.py speed times them.
Volumes are (B, C, N, N, N).
"""

from itertools import product
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from bids_alphagan.models.base import Across

AXES = (2, 3, 4)


class UpsampleConv3d(nn.Conv3d):
    """Nearest x2, then a 3 x 3 x 3 convolution with padding 1: (B, C, N, N, N) -> (B, C', 2N, 2N, 2N).

    Computed as one transposed convolution of stride 2, with 8/27 of the operations: of the three taps
    w0, w1, w2 along an axis, two fall on one low-resolution voxel, so a coarse voxel spreads to four fine
    ones with the weights w2, w1 + w2, w0 + w1, w0.
    """

    plain = False

    def forward(self, x: Tensor) -> Tensor:
        if self.plain:
            return super().forward(F.interpolate(x, scale_factor=2.0, mode="nearest"))
        # volumes use the memory format of the weights
        last = self.weight.is_contiguous(memory_format=torch.channels_last_3d)
        layout = torch.channels_last_3d if last else torch.contiguous_format
        kernel = self.weight
        for axis in AXES:
            w0, w1, w2 = kernel.split(1, dim=axis)
            kernel = torch.cat([w2, w1 + w2, w0 + w1, w0], dim=axis)
        kernel = kernel.transpose(0, 1).contiguous(memory_format=layout)
        return spread(x.contiguous(memory_format=layout), kernel)


class FromLatent(nn.ConvTranspose3d):
    """Transposed convolution of one voxel, (B, L, 1, 1, 1) -> (B, C, k, k, k): a matrix product."""

    plain = False

    def forward(self, x: Tensor, output_size: list[int] | None = None) -> Tensor:
        if self.plain:
            return super().forward(x)
        return (x.flatten(1) @ self.weight.flatten(1)).unflatten(1, self.weight.shape[1:])


class ToVector(nn.Conv3d):
    """Convolution whose kernel covers its input, (B, C, k, k, k) -> (B, C', 1, 1, 1): a matrix product.

    Always in fp32: the codes of two scans may differ only in the fourth digit, which bf16 lacks, and batch
    normalisation would amplify the rounding error.
    """

    plain = False

    def forward(self, x: Tensor) -> Tensor:
        if self.plain:
            return super().forward(x)
        with torch.autocast(x.device.type, enabled=False):
            y = F.linear(x.flatten(1).float(), self.weight.flatten(1), self.bias)
        return y[..., None, None, None]


class InstanceNorm3d(nn.InstanceNorm3d):
    """Instance normalisation without parameters, as group normalisation with one channel per group.

    torch's instance normalisation reorders channels-last volumes; its group normalisation does not.
    """

    plain = False

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) if self.plain else F.group_norm(x, x.shape[1], eps=self.eps)


class WholeBatch(nn.modules.batchnorm._BatchNorm):
    """Batch normalisation with the statistics of a whole batch that several devices share equally.

    across: None normalises this device's share alone, which is torch's own form. torch's SyncBatchNorm cannot be
    differentiated twice, as a gradient penalty requires, and does not run on a CPU.
    """

    across: Across | None = None

    def forward(self, x: Tensor) -> Tensor:
        if self.across is None or not self.training:
            return super().forward(x)
        mean, variance = moments(x.float(), _all_but_channels(x), self.across)
        with torch.no_grad():
            n = x.numel() // x.shape[1] * len(self.across(mean))
            self.get_buffer("num_batches_tracked").add_(1)
            for name, now in (("running_mean", mean), ("running_var", variance * (n / (n - 1)))):
                self.get_buffer(name).lerp_(now.flatten(), self.momentum or 0.0)
        shape = mean.shape
        scale = (variance + self.eps).rsqrt() * self.weight.view(shape)
        return ((x - mean) * scale + self.bias.view(shape)).to(x.dtype)


class BatchNorm1d(WholeBatch, nn.BatchNorm1d):
    """Batch normalisation of codes (B, C)."""


class BatchNorm3d(WholeBatch, nn.BatchNorm3d):
    """Batch normalisation of volumes."""


def moments(x: Tensor, axes: tuple[int, ...], across: Across | None = None) -> tuple[Tensor, Tensor]:
    """Mean and variance (without Bessel's correction) over `axes`; both keep x's dimensions."""
    variance, mean = torch.var_mean(x, axes, correction=0, keepdim=True)
    if across is None:
        return mean, variance
    means, variances = across(torch.stack([mean, variance])).unbind(1)
    mean = means.mean(0)
    return mean, variances.mean(0) + (means - mean).square().mean(0)


def spread(x: Tensor, kernel: Tensor) -> Tensor:
    """Transposed convolution with stride 2 and padding 1: (B, C, N, N, N) -> (B, C', 2N, 2N, 2N).

    kernel: (C, C', 4, 4, 4).
    """
    if kernel.shape[1] == 1:
        return _SpreadToOne.apply(x, kernel.to(x.dtype))
    return F.conv_transpose3d(x, kernel, stride=2, padding=1)


class _SpreadToOne(torch.autograd.Function):
    """`spread` to one channel, whose forward pass is slow in torch's libraries and whose backward pass is fast.

    The forward pass is a convolution to eight channels at the low resolution, one for each fine voxel in a
    coarse one (sub-pixel convolution).
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, kernel: Tensor) -> Tensor:
        ctx.save_for_backward(x, kernel)
        n = x.shape[2:]
        # fine voxel 2i sees taps 3, 1 on coarse voxels i-1, i; fine voxel 2i+1 sees taps 2, 0 on i, i+1
        taps = kernel.flip(AXES).reshape(len(kernel), 2, 2, 2, 2, 2, 2)  # C, then (tap, phase) of each axis
        with torch.autocast(x.device.type, enabled=False):
            phases = F.conv3d(x, taps.permute(2, 4, 6, 0, 1, 3, 5).flatten(0, 2), padding=1)
        fine = x.new_empty(len(x), 1, *(2 * size for size in n))
        for phase, (i, j, k) in enumerate(product((0, 1), repeat=3)):
            fine[:, 0, i::2, j::2, k::2] = phases[:, phase, i : i + n[0], j : j + n[1], k : k + n[2]]
        return fine

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor]:
        x, kernel = ctx.saved_tensors
        settings = [2] * 3, [1] * 3, [1] * 3, True, [0] * 3, 1
        output_mask = [*ctx.needs_input_grad, False]
        of_x, of_kernel, _ = torch.ops.aten.convolution_backward(
            gradient, x, kernel, None, *settings, output_mask
        )
        return of_x, of_kernel


class Critic(nn.Sequential):
    """Layers in sequence that give scores (B, 1), with the gradient of a score with respect to its input.

    by_hand: True computes `input_gradient` layer by layer; False by double backward, torch's own form.
    """

    by_hand = True

    def input_gradient(self, x: Tensor) -> Tensor:
        """Gradient of each sample's score with respect to that sample: the shape of x, differentiable.

        By hand it costs two thirds of a double backward, or less: without normalisation layers the network is piecewise
        linear, its input gradient depends on x only through the signs at the activations, and no gradient flows through
        them. If torch caches parametrised weights, they must be computed before.
        """
        if not self.by_hand:
            x = x.detach().requires_grad_()
            return torch.autograd.grad(self(x).sum(), x, create_graph=True)[0]
        curved = any(isinstance(layer, NORMS) for layer in self)
        seen: dict[nn.Module, Tensor] = {}
        with torch.set_grad_enabled(curved and torch.is_grad_enabled()):
            for layer in self:
                after = layer(x)
                # activations work in place; their output has the sign of their input
                if isinstance(layer, (nn.LeakyReLU, *NORMS)):
                    seen[layer] = x if isinstance(layer, NORMS) else after.detach()
                x = after
        gradient = torch.ones_like(x)
        for layer in reversed(self):
            gradient = _pull(layer, gradient, seen.get(layer, gradient))
        return gradient


NORMS = (WholeBatch, nn.InstanceNorm3d)


def _pull(layer: nn.Module, gradient: Tensor, seen: Tensor) -> Tensor:
    """The gradient with respect to a layer's input, from that with respect to its output.

    seen: the output of an activation, the input of a normalisation; not used for other layers.
    """
    match layer:
        case nn.LeakyReLU():
            return torch.ops.aten.leaky_relu_backward(gradient, seen, layer.negative_slope, True)
        case nn.Linear():
            return gradient @ layer.weight
        case ToVector():
            return (gradient.flatten(1) @ layer.weight.flatten(1)).unflatten(1, layer.weight.shape[1:])
        case nn.Conv3d():
            return spread(gradient, layer.weight)
        case nn.Flatten():
            return gradient[..., None, None, None]
        case nn.InstanceNorm3d():
            return _pull_norm(gradient, seen, AXES, layer.eps)
        case WholeBatch():
            scale = layer.weight.view(1, -1, *[1] * (gradient.dim() - 2))
            return _pull_norm(gradient * scale, seen, _all_but_channels(seen), layer.eps, layer.across)
        case _:
            raise TypeError(f"There is no input gradient through {type(layer).__name__}")


def _pull_norm(
    gradient: Tensor, x: Tensor, axes: tuple[int, ...], eps: float, across: Across | None = None
) -> Tensor:
    def average(values: Tensor) -> Tensor:
        mean = values.mean(axes, keepdim=True)
        return mean if across is None else across(mean).mean(0)

    mean, variance = moments(x, axes, across)
    scale = (variance + eps).rsqrt()
    normal = (x - mean) * scale
    return scale * (gradient - average(gradient) - normal * average(gradient * normal))


def _all_but_channels(x: Tensor) -> tuple[int, ...]:
    return (0, *range(2, x.dim()))
