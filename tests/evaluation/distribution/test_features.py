"""Features of hand-made heads with known answers, and the common scale of a feature space."""

import numpy as np
import pytest
from scipy import ndimage

from bids_alphagan.common.errors import UserError
from bids_alphagan.evaluation.distribution.features import (
    ANATOMY,
    Appearance,
    anatomy_features,
    feature_space,
)
from bids_alphagan.evaluation.distribution.measures import kernel_mmd

ZOOMS = (0.5, 0.4, 0.8)


def head(
    seed: int = 0, size: float = 1.0, noise: float = 0.02, csf: float = 2.0
) -> tuple[np.ndarray, np.ndarray]:
    """An ellipsoid brain of GM (1.0) around WM (0.7), with CSF behind; air 0.1. (24, 30, 16) voxels."""
    x, y, z = ((np.arange(n) - (n - 1) / 2) * zoom for n, zoom in zip((24, 30, 16), ZOOMS, strict=True))
    radius = np.sqrt((x[:, None, None] / 4) ** 2 + (y[None, :, None] / 5) ** 2 + (z[None, None, :] / 4) ** 2)
    dseg = np.select([radius < 0.6 * size, radius < size], [2, 1], 0).astype(np.uint8)
    dseg[(dseg > 0) & (np.broadcast_to(y[None, :, None], dseg.shape) < -3.5 * size)] = 3
    scan = np.choose(dseg, [0.1, 1.0, 0.7, csf])
    return scan + noise * np.random.default_rng(seed).normal(size=scan.shape), dseg


def features(*args: np.ndarray) -> dict[str, float]:
    return dict(zip(ANATOMY, anatomy_features(*args, ZOOMS), strict=True))


def test_every_feature_has_unit_and_description_and_is_finite() -> None:
    found = anatomy_features(*head(), ZOOMS)
    assert found.shape == (len(ANATOMY),)
    assert np.isfinite(found).all()
    assert all(unit and description for unit, description in ANATOMY.values())


def test_known_values() -> None:
    scan, dseg = head(noise=0)
    found = features(scan, dseg)
    brain = scan[dseg > 0].mean()
    assert found["brain_volume"] == pytest.approx((dseg > 0).sum() * 0.16 / 1000)
    assert found["wm_volume"] == pytest.approx((dseg == 2).sum() * 0.16 / 1000)
    assert found["gm_intensity"] == pytest.approx(1.0 / brain)
    assert found["csf_intensity"] == pytest.approx(2.0 / brain)
    assert found["gm_spread"] == pytest.approx(0, abs=1e-9)
    assert found["surround_intensity"] == pytest.approx(0.1 / brain)
    assert found["asymmetry"] == pytest.approx(0, abs=1e-9)
    assert found["brain_width"] == pytest.approx((np.argwhere(dseg > 0)[:, 0] * 0.5).std())
    for slab in ("posterior", "middle", "anterior"):
        parts = [found[f"{tissue}_fraction_{slab}"] for tissue in ("gm", "wm", "csf")]
        assert sum(parts) == pytest.approx(1)
    assert found["csf_fraction_posterior"] > 0.1
    assert found["csf_fraction_anterior"] == 0


def test_gain_and_place_change_nothing() -> None:
    scan, dseg = head(size=0.75)  # its surround fits into the field of view
    expected = anatomy_features(scan, dseg, ZOOMS)
    np.testing.assert_allclose(anatomy_features(500 * scan, dseg, ZOOMS), expected, rtol=1e-6, atol=1e-9)
    moved = [np.roll(part, (2, -1, 1), axis=(0, 1, 2)) for part in (scan, dseg)]
    np.testing.assert_allclose(anatomy_features(*moved, ZOOMS), expected, rtol=1e-6, atol=1e-9)


def test_each_change_moves_its_own_feature() -> None:
    scan, dseg = head(noise=0.1)
    plain, blurred = features(scan, dseg), features(ndimage.gaussian_filter(scan, 1.0), dseg)
    assert blurred["roughness"] < 0.8 * plain["roughness"]
    assert blurred["gradient"] < 0.8 * plain["gradient"]
    plain, noisy = features(*head()), features(*head(noise=0.2))
    assert noisy["roughness"] > 1.2 * plain["roughness"]
    assert abs(noisy["gm_wm_contrast"]) < 0.3 * abs(plain["gm_wm_contrast"])
    assert features(*head(size=1.1))["brain_volume"] == pytest.approx(
        1.1**3 * plain["brain_volume"], rel=0.05
    )
    assert features(*head(csf=3.0))["csf_intensity"] > 1.2 * plain["csf_intensity"]
    scan, dseg = head()
    dseg[13:, :, :8] = 0
    assert abs(features(scan, dseg)["asymmetry"]) > 0.1


def test_the_spectral_slope_of_white_and_smooth_noise() -> None:
    """White noise has 0, on average over draws: a brain holds few waves of 8 mm."""
    dseg, rng = head()[1], np.random.default_rng(0)
    noise = [rng.normal(size=(24, 30, 16)) for _ in range(20)]
    white = [features(3 + n, dseg)["spectral_slope"] for n in noise]
    smooth = [features(3 + ndimage.gaussian_filter(n, 1), dseg)["spectral_slope"] for n in noise]
    assert np.mean(white) == pytest.approx(0, abs=0.5)
    assert np.mean(smooth) < -1
    assert features(*head())["spectral_slope"] < np.mean(smooth) - 1


def test_a_missing_tissue_is_undefined_and_then_the_median() -> None:
    scan, dseg = head()
    without = np.where(dseg == 3, 1, dseg)
    found = features(scan, without)
    assert found["csf_volume"] == 0
    assert np.isnan(found["csf_intensity"])
    real = np.stack([anatomy_features(*head(s, 1 + 0.02 * s), ZOOMS) for s in range(5)])
    space = feature_space("anatomy", real, {"m": anatomy_features(scan, without, ZOOMS)[None]}, list(ANATOMY))
    assert space.synthetic["m"][0, space.names.index("csf_intensity")] == 0
    assert abs(space.synthetic["m"][0, space.names.index("csf_volume")]) > 2


def test_scan_and_masks_must_fit() -> None:
    scan, dseg = head()
    for bad in (dseg[:-1], np.zeros_like(dseg)):
        with pytest.raises(UserError, match="one grid"):
            anatomy_features(scan, bad, ZOOMS)


def test_feature_space_scales_by_median_and_mad() -> None:
    real = np.array([[1.0, 10, 5], [2, 20, 5], [3, 30, 5], [4, 40, 5], [500, 50, 5]])
    space = feature_space("f", real, {"m": real[:2] + 1}, ["a", "b", "c"])
    assert space.names == ("a", "b")
    assert space.dropped == ("c",)
    np.testing.assert_allclose(space.real[:4, 0], (np.arange(1, 5) - 3) / 1.4826)  # the outlier has no say
    np.testing.assert_allclose(space.synthetic["m"][:, 1], (np.array([11, 21]) - 30) / 14.826)
    other = feature_space("f", real[:2], {}, scale_by=real)
    np.testing.assert_allclose(other.real, space.real[:2])
    assert other.names == ("f 1", "f 2")


def test_feature_space_refuses_what_it_cannot_compare() -> None:
    with pytest.raises(UserError, match="No feature of 'f' varies"):
        feature_space("f", np.ones((3, 2)), {})
    with pytest.raises(UserError, match="same features"):
        feature_space("f", np.eye(3), {"m": np.ones((2, 2))})
    with pytest.raises(UserError, match="scan 0 of set 2"):
        feature_space("f", np.eye(3), {"m": np.full((2, 3), np.inf)})


def test_appearance_keeps_what_is_coarse() -> None:
    rng = np.random.default_rng(0)
    training = ndimage.gaussian_filter(rng.normal(size=(12, 15, 16, 17)), (0, 3, 3, 3))
    look = Appearance.fit(training, components=11, frequencies=(15, 16, 17))
    found = look(training)
    assert found.shape == (12, 11)
    distances = ((found[:, None] - found[None]) ** 2).sum(axis=2)  # all frequencies and components: exact
    expected = ((training[:, None] - training[None]) ** 2).mean(axis=(2, 3, 4))
    np.testing.assert_allclose(distances, expected, atol=1e-12)
    coarse = Appearance.fit(training)
    assert coarse(training).shape == (12, 4)
    assert (np.diff(coarse.explained) <= 0).all()
    noisy = training + 0.01 * rng.normal(size=training.shape)  # fine noise hardly moves coarse features
    moved, apart = coarse(noisy) - coarse(training), coarse(training) - coarse(training[::-1])
    assert np.abs(moved).max() < 0.05 * np.abs(apart).max()


def test_appearance_tells_sets_apart() -> None:
    rng = np.random.default_rng(1)
    scans = ndimage.gaussian_filter(rng.normal(size=(60, 10, 11, 12)), (0, 2, 2, 2))
    look = Appearance.fit(scans[:20])
    held, new = look(scans[20:40]), look(scans[40:])
    brighter = look(scans[40:] + np.linspace(0, 0.15, 10)[:, None, None])
    space = feature_space("look", held, {"new": new, "brighter": brighter})
    found = {
        model: kernel_mmd(space.real, values, permutations=200) for model, values in space.synthetic.items()
    }
    assert found["new"].p > 0.05
    assert found["brighter"].p < 0.01


def test_appearance_needs_scans_that_differ() -> None:
    with pytest.raises(UserError, match="2 training scans are too few"):
        Appearance.fit(np.zeros((2, 5, 5, 5)))
    with pytest.raises(UserError, match="all equal"):
        Appearance.fit(np.ones((5, 5, 5, 5)))
