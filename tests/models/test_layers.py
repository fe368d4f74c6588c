"""Layers and spectral normalisation against torch's own forms of them, input gradients against double backward."""

import copy

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrizations, parametrize

from bids_alphagan.models.alphagan.layers import Critic, FromLatent, InstanceNorm3d, ToVector, UpsampleConv3d
from bids_alphagan.models.alphagan.networks import build_networks
from bids_alphagan.models.alphagan.spec import SPECS
from bids_alphagan.models.alphagan.spectral import spectral_norm
from bids_alphagan.training.phases import make_weights

LAYER_FORMS = {
    "upsample": (UpsampleConv3d(3, 2, 3, stride=1, padding=1, bias=False), (2, 3, 4, 5, 6)),
    "upsample to one channel": (UpsampleConv3d(3, 1, 3, stride=1, padding=1, bias=False), (2, 3, 4, 5, 6)),
    "from latent": (FromLatent(5, 3, 4, bias=False), (2, 5, 1, 1, 1)),
    "to vector": (ToVector(3, 5, 4), (2, 3, 4, 4, 4)),
    "instance norm": (InstanceNorm3d(3), (2, 3, 4, 5, 6)),
}


@pytest.mark.parametrize("name", LAYER_FORMS)
def test_each_layer_equals_its_plain_form(name):
    layer, shape = LAYER_FORMS[name]
    # Processors round sums of floats in their own ways; codes are always floats.
    dtype, near = (torch.float32, 1e-5) if name == "to vector" else (torch.float64, 1e-10)
    layer = copy.deepcopy(layer).to(dtype)
    results = []
    for plain in (True, False):
        layer.plain = plain
        torch.manual_seed(0)
        x = torch.randn(shape, requires_grad=True, dtype=dtype)
        y = layer(x)
        seen = torch.autograd.grad((y * torch.randn_like(y)).sum(), [x, *layer.parameters()])
        results.append([y, *seen])
    layer.plain = False
    for plain, quick in zip(*results, strict=True):
        torch.testing.assert_close(quick, plain, atol=near, rtol=near)
    if "upsample" in name:  # the axes differ, so they must not be mixed up
        layer.weight.data = layer.weight.data.transpose(2, 4)
        assert not torch.allclose(layer(x), results[0][0], atol=1e-2)


SPECTRAL = {
    "linear": nn.Linear(7, 6),
    "convolution": nn.Conv3d(4, 5, 4),
    "transposed": nn.ConvTranspose3d(4, 5, 3),
}


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last_3d])
@pytest.mark.parametrize("name", SPECTRAL)
def test_spectral_normalisation_equals_torchs(name, layout):
    ours, torchs = copy.deepcopy(SPECTRAL[name]), copy.deepcopy(SPECTRAL[name])
    spectral_norm(ours)
    parametrizations.spectral_norm(torchs)
    ours.to(memory_format=layout)
    mine, its = ours.parametrizations.weight, torchs.parametrizations.weight
    mine[0]._u.copy_(its[0]._u)  # after this, both make the same power iterations
    its[0]._v.copy_(mine[0]._v)
    pull = torch.randn(mine.original.shape)
    for _ in range(3):
        torchs.weight  # noqa: B018 - torch iterates u before v: it is half a step ahead
        mine[0]._u.copy_(its[0]._u)
        its[0]._v.copy_(nn.functional.normalize(as_matrix(its).T @ its[0]._u, dim=0))
        expected_v = its[0]._v.clone()
        weight = ours.weight
        torch.testing.assert_close(mine[0]._v, expected_v, rtol=1e-5, atol=1e-6)
        its.eval()
        its[0]._u.copy_(mine[0]._u)
        torch.testing.assert_close(weight, torchs.weight, rtol=1e-5, atol=1e-6)
        for layer, product in ((ours, weight), (torchs, torchs.weight)):
            layer.zero_grad()
            product.backward(pull)
        torch.testing.assert_close(mine.original.grad, its.original.grad, rtol=1e-4, atol=1e-5)
        its.train()
    ours.eval()
    torch.testing.assert_close(ours.weight, weight, rtol=1e-5, atol=1e-6)


def as_matrix(torchs: nn.Module) -> torch.Tensor:
    return torchs.original.detach().movedim(torchs[0].dim, 0).flatten(1)


@pytest.mark.parametrize("size", [16, 24])
@pytest.mark.parametrize("critic", ["discriminator", "code_discriminator"])
@pytest.mark.parametrize("model", SPECS)
def test_the_input_gradient_by_hand_equals_double_backward(model, critic, size):
    torch.manual_seed(0)
    network: Critic = getattr(build_networks(SPECS[model], size, 3, 7), critic)
    x = torch.randn(4, 7) if critic == "code_discriminator" else torch.randn(4, 1, size, size, size)
    results = []
    for by_hand in (True, False):
        network.by_hand = by_hand
        with parametrize.cached():
            make_weights(network)
            of_input = network.input_gradient(x)
            loss = (of_input.flatten(1).square().sum(1).sqrt() - 1).square().mean()
            loss.backward()
        results.append((of_input.detach(), {k: p.grad for k, p in network.named_parameters()}))
        network.zero_grad()
        for layer in network:  # the same singular vectors for both
            if parametrize.is_parametrized(layer):
                layer.eval()
    (of_input, grads), (expected, expected_grads) = results
    torch.testing.assert_close(of_input, expected, atol=1e-6, rtol=1e-5)
    for name, gradient in expected_grads.items():
        zero = torch.zeros(()) if gradient is None else gradient
        mine = torch.zeros_like(zero) if grads[name] is None else grads[name]
        torch.testing.assert_close(mine, zero, atol=1e-5, rtol=1e-4, msg=name)
    assert any(gradient is not None and gradient.abs().max() > 1e-3 for gradient in grads.values())


def test_an_input_gradient_through_an_unknown_layer_is_refused():
    with pytest.raises(TypeError, match="Sigmoid"):
        Critic(nn.Linear(3, 1), nn.Sigmoid()).input_gradient(torch.randn(2, 3))
