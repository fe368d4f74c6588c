"""Spectral normalisation that reads and writes large weights as few times as possible."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils import parametrize

FIRST_ITERATIONS = 15  # as in torch


def spectral_norm(layer: nn.Module) -> nn.Module:
    """Divide a layer's weight by its largest singular value (Miyato et al. 2018, arXiv:1802.05957).

    Equal to `torch.nn.utils.parametrizations.spectral_norm`, to rounding: one power iteration each time the weight is
    computed in training mode; its vectors are constants in the gradient.
    """
    rows = 1 if isinstance(layer, nn.ConvTranspose3d) else 0
    weight = layer.get_parameter("weight")
    parametrize.register_parametrization(layer, "weight", SpectralNorm(weight, rows))
    return layer


class SpectralNorm(nn.Module):
    """The parametrisation. rows: the weight's dimension of outputs.

    _u, _v: the singular vectors, (outputs,) and (all other dimensions,), in the order of the weight's dimensions.
    """

    _u: Tensor
    _v: Tensor

    def __init__(self, weight: Tensor, rows: int) -> None:
        super().__init__()
        self.rows = rows
        outputs = weight.shape[rows]
        self.register_buffer("_u", F.normalize(torch.randn(outputs), dim=0))
        self.register_buffer("_v", F.normalize(torch.randn(weight.numel() // outputs), dim=0))
        with torch.no_grad():
            for _ in range(FIRST_ITERATIONS):
                self(weight)

    def forward(self, weight: Tensor) -> Tensor:
        layout = _Layout(weight, self.rows)
        matrix = layout.matrix(weight.detach())
        if self.training:
            with torch.no_grad():
                v = F.normalize(matrix.T @ self._u, dim=0)
                product = matrix @ v
                self._u.copy_(F.normalize(product, dim=0))
                self._v.copy_(layout.listed(v))
        else:
            v = layout.stored(self._v)
            product = matrix @ v
        return _Divided.apply(weight, self._u.clone(), v, self._u @ product, layout)


class _Divided(torch.autograd.Function):
    """weight / sigma with sigma = u^T weight v, where u and v do not depend on the weight."""

    @staticmethod
    def forward(ctx: Any, weight: Tensor, u: Tensor, v: Tensor, sigma: Tensor, layout: "_Layout") -> Tensor:
        divided = weight / sigma
        ctx.save_for_backward(divided, u, v, sigma)
        ctx.layout = layout
        return divided

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None, None, None]:
        divided, u, v, sigma = ctx.saved_tensors
        matrix = ctx.layout.matrix(gradient)
        along = torch.dot(matrix.reshape(-1), ctx.layout.matrix(divided).reshape(-1))
        result = torch.addr(matrix, u * -along, v).div_(sigma)
        return ctx.layout.weight(result), None, None, None, None


class _Layout:
    """A weight as a matrix (outputs, other dimensions) in memory order, without a copy."""

    def __init__(self, weight: Tensor, rows: int) -> None:
        self.rows = rows
        columns = weight.movedim(rows, 0)[0]
        self.shape = columns.shape
        self.order = sorted(range(columns.dim()), key=lambda axis: -columns.stride()[axis])
        self.back = [self.order.index(axis) for axis in range(columns.dim())]

    def matrix(self, weight: Tensor) -> Tensor:
        return weight.movedim(self.rows, 0).permute(0, *(axis + 1 for axis in self.order)).flatten(1)

    def weight(self, matrix: Tensor) -> Tensor:
        apart = matrix.unflatten(1, [self.shape[axis] for axis in self.order])
        return apart.permute(0, *(axis + 1 for axis in self.back)).movedim(0, self.rows)

    def listed(self, v: Tensor) -> Tensor:
        """A vector over `matrix`'s columns, in the order of the weight's dimensions."""
        return v.unflatten(0, [self.shape[axis] for axis in self.order]).permute(self.back).flatten()

    def stored(self, v: Tensor) -> Tensor:
        """The inverse of `listed`."""
        return v.unflatten(0, self.shape).permute(self.order).flatten()
