"""Quality measures and their limits, on analytic heads: sound ones pass, damaged ones fail."""

import json
from pathlib import Path

import numpy as np
import pytest
from scipy import ndimage

from bids_alphagan.common.errors import UserError
from bids_alphagan.qc import limits as qc
from bids_alphagan.qc import measures as quality

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
    return quality.measure(image, ZOOMS, soft, dseg, prior_dseg=dseg, template=INTENSITY[dseg])


@pytest.fixture(scope="module")
def limits() -> qc.Limits:
    return qc.thresholds(
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
    assert list(m) == list(quality.MEASURES)
    assert all(what.described for what in quality.MEASURES.values())
    assert quality.MEASURES["entropy"].described == "mean entropy of the tissue probabilities, in bits"


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
    assert qc.reasons(measures(*head(seed, size)), limits) == []


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
    assert any(reason in text for text in qc.reasons(measures(damage(image), dseg), limits))


def test_a_brain_in_two_halves_or_of_twice_the_volume_fails(limits: dict) -> None:
    image, dseg = head(10)
    cut = dseg.copy()
    cut[11:13] = 0
    assert any("largest part" in text for text in qc.reasons(measures(image, cut), limits))
    apart = (dseg > 0) | (np.arange(dseg.shape[0]) == 0)[:, None, None]  # a slab beside the brain
    soft = [(dseg == k).astype(float) for k in (1, 2, 3)]
    m = quality.measure(image, ZOOMS, soft, dseg, dseg, INTENSITY[dseg], foreground=apart)
    assert m["largest_component"] == pytest.approx((dseg > 0).sum() / apart.sum())
    twice = {**measures(image, dseg), "brain_volume": 2 * measures(image, dseg)["brain_volume"]}
    assert qc.reasons(twice, limits)[0].startswith("volume of the brain mask is high")


def test_not_a_number_fails(limits: dict) -> None:
    assert qc.reasons({**measures(*head(1)), "entropy": float("nan")}, limits)


def test_thresholds_are_median_and_mad_with_a_floor() -> None:
    base = measures(*head(0))
    rows = [{**base, "entropy": value} for value in (0.1, 0.4, 0.5, 0.6, 5.0)]
    limit = qc.thresholds(rows, 5)["entropy"]
    assert limit.low is None
    assert limit.high == pytest.approx(0.5 + 5 * 1.4826 * 0.1)
    assert (limit.median, limit.origin) == (0.5, "spread")
    limit = qc.thresholds([base], 5)["brain_volume"]
    assert limit.high / limit.median == pytest.approx(np.exp(5 * 0.1))  # a size: by its logarithm
    assert limit.median / limit.low == pytest.approx(np.exp(5 * 0.1))
    assert limit.origin == "floor"
    assert qc.thresholds([], 5) == {}
    json.dumps({name: one.record() for name, one in qc.thresholds(rows, 1e12).items()}, allow_nan=False)


def test_scans_of_an_older_version_give_limits_for_what_they_have() -> None:
    old = {name: value for name, value in measures(*head(0)).items() if name != "rim_contrast"}
    limits = qc.thresholds([old, old], 5)
    assert set(limits) == set(quality.MEASURES) - {"rim_contrast"}
    assert qc.reasons(measures(*head(1)), limits) == qc.reasons(old, limits) == []


def test_reasons_come_with_the_worst_first(limits: qc.Limits) -> None:
    sound = {name: limit.median for name, limit in limits.items()}
    bad = sound | {"entropy": limits["entropy"].high + 0.1, "void_fraction": 0.5}
    assert qc.failures(bad, limits) == ["void_fraction", "entropy"]
    assert qc.kind(qc.reasons(bad, limits)[0]) == "share of the inner brain without signal is high"
    assert limits["entropy"].deviation(limits["entropy"].high) == pytest.approx(5)
    assert limits["brain_volume"].deviation(limits["brain_volume"].low) == pytest.approx(-5)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("a.json", '{"entropy": [0, 1.5], "brain_volume": null, "roughness": [null, 0.25]}'),
        ("a.toml", "entropy = [0, 1.5]\nbrain_volume = [-inf, inf]\nroughness = [-inf, 0.25]\n"),
    ],
)
def test_limits_of_a_file_replace_single_ones(tmp_path: Path, name: str, text: str) -> None:
    (tmp_path / name).write_text(text)
    own = qc.read_limits(tmp_path / name)
    assert own == {"entropy": (0, 1.5), "brain_volume": (None, None), "roughness": (None, 0.25)}
    rows = [measures(*head(seed)) for seed in range(3)]
    free, set_by_hand = qc.thresholds(rows, 5), qc.thresholds(rows, 5, own)
    assert {name for name in free if free[name] != set_by_hand[name]} == set(own)
    assert set_by_hand["entropy"].bounds == (0, 1.5)
    failed_by = qc.reasons({**rows[0], "entropy": 1.6, "brain_volume": 100.0}, set_by_hand)
    assert failed_by == [
        "mean entropy of the tissue probabilities is high: 1.6 bits, at most 1.5 by --qc-limits"
    ]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"entropi": [0, 1]}', "unknown measure 'entropi'. Known measures: brain_volume, gm_fraction"),
        ('{"entropy": [1, 0]}', "'entropy' must be .low, high., two numbers in order"),
        ('{"entropy": [0, "1"]}', "'entropy' must be"),
        ('{"entropy": [0, true]}', "'entropy' must be"),
        ('{"entropy": [0, NaN]}', "'entropy' must be"),
        ('{"entropy": 1}', "'entropy' must be"),
        ("[1]", "must hold measures and their limits"),
        ("{", "cannot be read as JSON or TOML"),
    ],
)
def test_limits_that_cannot_be_used_are_refused(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "limits.json"
    path.write_text(text)
    with pytest.raises(UserError, match=f"--qc-limits {path}: {message}"):
        qc.read_limits(path)
    with pytest.raises(UserError, match="cannot be read"):
        qc.read_limits(tmp_path / "absent.toml")


def test_few_scans_give_a_warning(limits: qc.Limits) -> None:
    on_floors = sum(limit.origin == "floor" for limit in limits.values())
    assert (
        f"only 4 training scans, too few to estimate their spread: {on_floors} of {len(limits)}"
        in qc.few_note(4, limits)
    )
    assert qc.few_note(qc.FEW, limits) is None
    assert qc.few_note(0, {}) is None


def test_a_constant_image_has_measures() -> None:
    dseg = head(0)[1]
    assert all(np.isfinite(value) for value in measures(np.full(dseg.shape, 7.0), dseg).values())
    assert all(np.isfinite(value) for value in measures(np.zeros(dseg.shape), dseg).values())


def test_detail_sees_missing_ventricles_and_is_blind_to_contrast() -> None:
    """Analytic ventricles filled with the signal of grey matter; an image turned to its negative."""
    image, dseg = head(10)
    sound = measures(image, dseg)["detail_correlation"]
    inner = (dseg == 3) & (ndimage.distance_transform_edt(dseg > 0) > 5)
    filled = np.where(inner, INTENSITY[1], image)
    assert inner.any()
    assert measures(filled, dseg)["detail_correlation"] < sound - 0.1
    assert measures(3 - 2 * image, dseg)["detail_correlation"] == pytest.approx(sound)


def test_rim_contrast_is_that_of_inside_and_outside() -> None:
    dseg = head(0)[1]
    image = np.where(dseg > 0, 3.0, 1.0)
    assert measures(image, dseg)["rim_contrast"] == pytest.approx(0.5)
    assert measures(np.where(dseg > 0, 3.0, 0.0), dseg)["rim_contrast"] == pytest.approx(1)
