"""Each loss against a value written by hand in NumPy, on small arrays with unequal axes."""

import numpy as np
import pytest
import torch

from bids_alphagan.models.alphagan import losses

RNG = np.random.default_rng(0)
SCORES = [RNG.normal(size=(n, 1)) for n in (3, 3, 3)]
REAL, FAKE = RNG.uniform(-1, 1, (2, 2, 1, 7, 8, 9))


def _t(array: np.ndarray) -> torch.Tensor:
    return torch.tensor(array, dtype=torch.float64)


def test_equation_1_adversarial():
    encoded, random, _ = SCORES
    assert losses.adversarial(_t(encoded), _t(random)).item() == pytest.approx(
        -encoded.sum() / 3 - random.sum() / 3
    )


def test_code_term_of_equations_2_5_6():
    assert losses.code_adversarial(_t(SCORES[0])).item() == pytest.approx(-SCORES[0].sum() / 3)


def test_equation_4_discriminator():
    real, encoded, random = SCORES
    expected = encoded.sum() / 3 + random.sum() / 3 - 2 * real.sum() / 3
    assert losses.discriminator(_t(real), _t(encoded), _t(random)).item() == pytest.approx(expected)


def test_equation_3_code_discriminator():
    encoded, random, _ = SCORES
    expected = encoded.sum() / 3 - random.sum() / 3
    assert losses.code_discriminator(_t(encoded), _t(random)).item() == pytest.approx(expected)


def test_l1_is_a_mean_over_voxels_and_batch():
    assert losses.l1(_t(REAL), _t(FAKE)).item() == pytest.approx(np.abs(REAL - FAKE).sum() / (2 * 7 * 8 * 9))


def test_mse_is_a_mean_over_voxels_and_batch():
    assert losses.mse(_t(REAL), _t(FAKE)).item() == pytest.approx(
        ((REAL - FAKE) ** 2).sum() / (2 * 7 * 8 * 9)
    )


def test_gdl_is_a_sum_over_voxels_and_batch():
    expected = 0.0
    for x, y in zip(REAL[:, 0], FAKE[:, 0], strict=True):
        for i in range(7):
            for j in range(8):
                for k in range(9):
                    for p, q, r in ((i + 1, j, k), (i, j + 1, k), (i, j, k + 1)):
                        if p < 7 and q < 8 and r < 9:
                            expected += (abs(x[p, q, r] - x[i, j, k]) - abs(y[p, q, r] - y[i, j, k])) ** 2
    assert losses.gdl(_t(REAL), _t(FAKE)).item() == pytest.approx(expected)


def test_points_of_the_penalty_lie_between_real_and_fake_and_train_neither():
    mix = np.array([0.25, 0.8])
    real, fake = _t(REAL).requires_grad_(), _t(FAKE).requires_grad_()
    point = losses.interpolate(real, fake, _t(mix))
    weight = mix.reshape(2, 1, 1, 1, 1)
    np.testing.assert_allclose(point.numpy(), weight * REAL + (1 - weight) * FAKE)
    assert not point.requires_grad


def test_gradient_penalty_is_the_mean_squared_distance_of_the_gradients_norm_from_one():
    norms = np.sqrt((REAL**2).sum((1, 2, 3, 4)) + 1e-15)
    assert losses.gradient_penalty(_t(REAL)).item() == pytest.approx(((norms - 1) ** 2).mean())


def test_gradient_penalty_trains_the_critic():
    weight = torch.tensor(3.0, dtype=torch.float64, requires_grad=True)
    # the gradient of weight * sum(u) is weight everywhere, its norm weight * sqrt(504)
    losses.gradient_penalty(weight * torch.ones(2, 1, 7, 8, 9)).backward()
    norm = 3 * np.sqrt(504)
    assert weight.grad.item() == pytest.approx(2 * (norm - 1) * np.sqrt(504))


def test_gradient_penalty_is_finite_where_the_critic_is_flat():
    weight = torch.zeros((), requires_grad=True)
    penalty = losses.gradient_penalty(weight * torch.ones(2, 1, 7, 8, 9))
    penalty.backward()
    assert penalty.item() == pytest.approx(1)
    assert torch.isfinite(weight.grad)


def test_sums_are_made_in_full_precision():
    gradient = torch.full((1, 100_000), 1e-2, dtype=torch.bfloat16)
    norm = (gradient.double() ** 2).sum().sqrt().item()
    assert losses.gradient_penalty(gradient).item() == pytest.approx((norm - 1) ** 2, rel=1e-4)


@pytest.mark.parametrize("name", losses.RECONSTRUCTION)
def test_reconstruction_losses_reach_the_reconstruction(name):
    fake = _t(FAKE).requires_grad_()
    losses.RECONSTRUCTION[name](_t(REAL), fake).backward()
    assert fake.grad.abs().min() > 0
    assert losses.RECONSTRUCTION[name](_t(REAL), _t(REAL)).item() == 0
