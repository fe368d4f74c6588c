"""The gate: sound heads pass, damaged ones fail."""

import json

import numpy as np
import pytest
from scipy import ndimage

from bids_alphagan import quality

ZOOMS = (0.75, 0.8, 1.0)
INTENSITY = np.array([0.1, 0.7, 0.5, 1.0])


def head(seed: int, size: float = 1.0) -> tuple[np.ndarray, np.ndarray]:
    """An ellipsoid of GM with a WM core beside two ventricles and a rim of CSF, and its noisy image."""
    rng = np.random.default_rng(seed)
    x, y, z = (
        np.linspace(-1, 1, n)[shape]
        for n, shape in zip((23, 26, 20), np.ix_(*[range(n) for n in (23, 26, 20)]), strict=True)
    )
    radius = np.sqrt(x**2 + y**2 + z**2) / size
    dseg = np.zeros(radius.shape, np.uint8)
    dseg[radius < 0.85] = 3
    dseg[radius < 0.75] = 1
    dseg[(radius > 0.35) & (radius < 0.5)] = 2
    dseg[(np.abs(np.abs(x) - 0.2) < 0.1) & (radius < 0.3)] = 3
    image = ndimage.gaussian_filter(INTENSITY[dseg], 0.4) + 0.03 * rng.normal(size=dseg.shape)
    return image, dseg


def measures(image: np.ndarray, dseg: np.ndarray) -> dict[str, float]:
    soft = [ndimage.gaussian_filter((dseg == k).astype(float), 0.5) for k in (1, 2, 3)]
    return quality.measure(image, ZOOMS, soft, dseg, prior_dseg=dseg, template=INTENSITY[head(0)[1]])


@pytest.fixture(scope="module")
def limits() -> dict[str, tuple[float | None, float | None]]:
    return quality.thresholds(
        [measures(*head(seed, size)) for seed, size in enumerate((0.98, 1, 1.01, 1.02))], width=5
    )


def test_values() -> None:
    image, dseg = head(0)
    m = measures(image, dseg)
    assert m["brain_volume"] == pytest.approx((dseg > 0).sum() * 0.75 * 0.8 / 1000)
    assert m["gm_fraction"] == pytest.approx((dseg == 1).sum() / (dseg > 0).sum())
    assert m["gm_fraction"] + m["wm_fraction"] + m["csf_fraction"] == pytest.approx(1)
    assert m["prior_dice"] == 1
    assert m["largest_component"] == 1
    assert list(m) == list(quality.MEASURES) == list(quality.DESCRIPTIONS)


def test_white_noise_is_all_roughness_and_no_contrast() -> None:
    dseg = head(0)[1]
    m = measures(np.random.default_rng(1).normal(size=dseg.shape), dseg)
    assert m["roughness"] == pytest.approx(1, abs=0.1)
    assert m["tissue_contrast"] < 0.01
    assert m["template_correlation"] < 0.05


def test_entropy_of_certain_and_of_undecided_maps() -> None:
    image, dseg = head(0)
    hard = [(dseg == k).astype(float) for k in (1, 2, 3)]
    flat = [np.full(dseg.shape, 1 / 3)] * 3
    template = INTENSITY[dseg]
    assert quality.measure(image, ZOOMS, hard, dseg, dseg, template)["entropy"] == pytest.approx(0, abs=1e-3)
    assert quality.measure(image, ZOOMS, flat, dseg, dseg, template)["entropy"] == pytest.approx(np.log2(3))


@pytest.mark.parametrize(("seed", "size"), [(10, 1.0), (11, 1.04), (12, 0.96)])
def test_sound_heads_pass(limits: dict, seed: int, size: float) -> None:
    assert quality.check(measures(*head(seed, size)), limits) == []


def noise(image: np.ndarray) -> np.ndarray:
    return np.abs(np.random.default_rng(5).normal(size=image.shape))


def blurred(image: np.ndarray) -> np.ndarray:
    return ndimage.gaussian_filter(image, 2)


def with_hole(image: np.ndarray) -> np.ndarray:
    image = image.copy()
    image[8:12, 9:13, 7:11] = 0
    return image


@pytest.mark.parametrize(
    ("damage", "reason"),
    [(noise, "rank correlation"), (blurred, "scale of a voxel"), (with_hole, "without signal")],
)
def test_damaged_heads_fail(limits: dict, damage, reason: str) -> None:
    image, dseg = head(10)
    assert any(reason in told for told in quality.check(measures(damage(image), dseg), limits))


def test_a_brain_in_two_halves_or_of_twice_the_volume_fails(limits: dict) -> None:
    image, dseg = head(10)
    cut = dseg.copy()
    cut[11:13] = 0
    assert any("largest part" in told for told in quality.check(measures(image, cut), limits))
    twice = {**measures(image, dseg), "brain_volume": 2 * measures(image, dseg)["brain_volume"]}
    assert quality.check(twice, limits)[0].startswith("volume of the brain mask is high")


def test_not_a_number_fails(limits: dict) -> None:
    assert quality.check({**measures(*head(1)), "entropy": float("nan")}, limits)


def test_thresholds_are_median_and_mad_with_a_floor() -> None:
    base = measures(*head(0))
    rows = [{**base, "entropy": value} for value in (0.1, 0.4, 0.5, 0.6, 5.0)]
    low, high = quality.thresholds(rows, 5)["entropy"]
    assert low is None
    assert high == pytest.approx(0.5 + 5 * 1.4826 * 0.1)
    low, high = quality.thresholds([base], 5)["brain_volume"]
    assert (high - low) / 2 == pytest.approx(5 * 0.06 * base["brain_volume"])
    assert quality.thresholds([], 5) == {}
    json.dumps(quality.thresholds(rows, 5), allow_nan=False)
