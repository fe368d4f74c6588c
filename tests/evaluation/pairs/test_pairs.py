"""Metrics with known answers, against NumPy by hand, MONAI and (where installed) TorchMetrics."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from monai.metrics import MultiScaleSSIMMetric
from oracles.similarity import DEFINITIONS, PERFECT, ms_ssim
from torch import Tensor

from bids_alphagan.evaluation.pairs import pairwise
from bids_alphagan.evaluation.pairs.metrics import METRICS
from bids_alphagan.evaluation.pairs.pairwise import MS_SSIM_WEIGHTS
from bids_alphagan.evaluation.pairs.table import (
    RealScans,
    columns_sidecar,
    draw_pairs,
    evaluate,
    notes,
    paper_columns,
    paper_table,
)

SHAPE = (7, 8, 9)


def smooth(n: int, seed: int, shape: tuple[int, int, int] = SHAPE) -> np.ndarray:
    """Blurred noise in [0, 1]: scans that resemble each other a little."""
    volumes = torch.rand((n, 1, *shape), generator=torch.Generator().manual_seed(seed))
    volumes = torch.nn.functional.avg_pool3d(volumes, 3, 1, 1)[:, 0]
    low, high = volumes.amin(dim=(1, 2, 3), keepdim=True), volumes.amax(dim=(1, 2, 3), keepdim=True)
    return ((volumes - low) / (high - low)).numpy()


def table(rows: list[dict]) -> dict[tuple[str, str], dict]:
    return {(row["model"], row["metric"]): row for row in rows}


Compute = Callable[[str, Tensor, Tensor], Tensor]


def by_pairs(name: str, first: Tensor, second: Tensor) -> Tensor:
    """The package's way: the first scan of one set with the first of the other, and so on."""
    pairs = torch.arange(len(first)).repeat(2, 1).T
    return METRICS[name].on_pairs(first, second, pairs).float()


def by_definition(name: str, first: Tensor, second: Tensor) -> Tensor:
    return DEFINITIONS[name](first, second)


@pytest.fixture(params=[by_pairs, by_definition])
def compute(request: pytest.FixtureRequest) -> Compute:
    """A metric by its name; what is known of it holds for the package and for the plain statement."""
    return request.param


def test_every_metric_has_a_plain_statement() -> None:
    assert list(METRICS) == list(DEFINITIONS) == list(PERFECT)


@pytest.mark.parametrize("name", METRICS)
def test_every_metric_keeps_the_contract(compute: Compute, name: str) -> None:
    metric = METRICS[name]
    assert metric.name == name
    assert metric.direction in {"higher", "lower", "closer to real"}
    assert "doi:10." in metric.reference
    assert ("Ferreira" in metric.reference) == (name in {"NCC", "MAE"})  # the paper's; others have their own
    first, second = torch.from_numpy(smooth(3, 1)), torch.from_numpy(smooth(3, 2))
    forward = compute(name, first, second)
    assert forward.shape == (3,)
    torch.testing.assert_close(forward, compute(name, second, first))
    one_by_one = torch.cat([compute(name, a[None], b[None]) for a, b in zip(first, second, strict=True)])
    torch.testing.assert_close(forward, one_by_one)
    torch.testing.assert_close(compute(name, first, first), torch.full((3,), PERFECT[name]))


@pytest.mark.parametrize("shape", [SHAPE, (26, 24, 23), (12, 9, 1)])
@pytest.mark.parametrize("name", METRICS)
def test_many_pairs_at_once_give_what_the_definition_gives(
    name: str, shape: tuple[int, int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pairwise, "VOXELS", 3 * int(np.prod(shape)))  # so that it takes several turns
    metric = METRICS[name]
    deep = (*shape[:2], max(shape[2], 3))
    first, second = (torch.from_numpy(smooth(n, n, deep)[..., : shape[2]]) for n in (4, 5))
    second[0], second[1] = first[2], 0.4  # a copy, and a scan without any contrast
    for a, b in ((first, second), (first, first)):
        pairs = torch.from_numpy(np.indices((len(a), len(b))).reshape(2, -1).T.copy())
        together = metric.on_pairs(a, b, pairs)
        one_by_one = DEFINITIONS[name](a[pairs[:, 0]].double(), b[pairs[:, 1]].double())
        assert together.dtype == torch.float64
        torch.testing.assert_close(together, one_by_one, rtol=5e-4, atol=1e-5)  # float32 and float64
        assert metric.on_pairs(a, b, pairs[:0]).shape == (0,)


def test_hand_written_values(compute: Compute) -> None:
    a = np.array([0.1, 0.4, 0.3, 0.9, 0.2, 0.7, 0.5, 0.8])
    b = np.array([0.2, 0.3, 0.5, 0.6, 0.1, 0.9, 0.4, 0.7])
    first, second = (torch.from_numpy(v.astype(np.float32).reshape(1, 2, 2, 2)) for v in (a, b))
    assert compute("MAE", first, second).item() == pytest.approx(1.2 / 8)
    assert compute("MMD", first, second).item() == pytest.approx(0.22)
    assert compute("NCC", first, second).item() == pytest.approx(np.corrcoef(a, b)[0, 1])
    assert compute("RMSE", first, second).item() == pytest.approx(np.sqrt(0.22 / 8))
    assert compute("PSNR", first, second).item() == pytest.approx(-10 * np.log10(0.22 / 8))


def test_constant_offset_is_seen_by_distances_and_not_by_correlation(compute: Compute) -> None:
    first = torch.from_numpy(smooth(2, 1) * 0.5)
    second = first + 0.25
    torch.testing.assert_close(compute("MAE", first, second), torch.full((2,), 0.25))
    torch.testing.assert_close(compute("MMD", first, second), torch.full((2,), 0.0625 * np.prod(SHAPE)))
    torch.testing.assert_close(compute("NCC", first, second), torch.ones(2))
    assert (compute("MS-SSIM", first, second) < 0.999).all()


def test_correlation_of_negated_and_constant_scans(compute: Compute) -> None:
    scans = torch.from_numpy(smooth(2, 1))
    torch.testing.assert_close(compute("NCC", scans, 1 - scans), -torch.ones(2))
    assert compute("NCC", scans, torch.full_like(scans, 0.3)).tolist() == [0, 0]
    assert compute("MS-SSIM", scans, 1 - scans).tolist() == [0, 0]


def test_linear_kernel_mmd_is_the_kernel_sum(compute: Compute) -> None:
    x, y = smooth(1, 1).reshape(1, -1).astype(np.float64), smooth(1, 2).reshape(1, -1).astype(np.float64)
    expected = (x @ x.T + y @ y.T - 2 * x @ y.T).item()
    got = compute("MMD", torch.from_numpy(smooth(1, 1)), torch.from_numpy(smooth(1, 2)))
    assert got.item() == pytest.approx(expected, rel=1e-5)


def test_one_scale_of_ms_ssim_against_numpy() -> None:
    """A scan no longer than the window on any axis: one window position, SSIM from weighted moments."""
    a, b = (v[0].astype(np.float64) for v in (smooth(1, 1), smooth(1, 2)))
    weight = np.ones(SHAPE)
    for axis, n in enumerate(SHAPE):
        profile = np.exp(-((np.arange(n) - (n - 1) / 2) ** 2) / (2 * 1.5**2))
        weight = weight * (profile / profile.sum()).reshape([-1 if i == axis else 1 for i in range(3)])
    mean_a, mean_b = (weight * a).sum(), (weight * b).sum()
    variance_a, variance_b = (weight * (a - mean_a) ** 2).sum(), (weight * (b - mean_b) ** 2).sum()
    covariance = (weight * (a - mean_a) * (b - mean_b)).sum()
    luminance = (2 * mean_a * mean_b + 1e-4) / (mean_a**2 + mean_b**2 + 1e-4)
    structure = (2 * covariance + 9e-4) / (variance_a + variance_b + 9e-4)
    got = ms_ssim(torch.from_numpy(a[None]), torch.from_numpy(b[None]), weights=(1.0,))
    assert got.item() == pytest.approx(luminance * structure, rel=1e-9)


@pytest.mark.parametrize(("shape", "scales"), [((22, 24, 27), 2), ((44, 46, 49), 3)])
def test_ms_ssim_equals_monai_where_the_window_fits(shape: tuple, scales: int) -> None:
    weights = MS_SSIM_WEIGHTS[:scales]
    first = torch.from_numpy(smooth(2, 1, shape))
    second = 0.6 * first + 0.4 * torch.from_numpy(smooth(2, 2, shape))
    monai = MultiScaleSSIMMetric(
        spatial_dims=3, data_range=1.0, kernel_size=11, kernel_sigma=1.5, weights=weights
    )
    theirs = monai(first[:, None], second[:, None]).flatten()
    torch.testing.assert_close(ms_ssim(first, second, weights), theirs, rtol=1e-4, atol=1e-5)


def test_ms_ssim_equals_torchmetrics_but_for_its_mirrored_border() -> None:
    """TorchMetrics mirrors the scan for the coarsest SSIM only, which the weight 0 leaves out."""
    functional = pytest.importorskip("torchmetrics.functional.image")
    first = torch.from_numpy(smooth(2, 1, (44, 46, 49)))
    second = 0.6 * first + 0.4 * torch.from_numpy(smooth(2, 2, (44, 46, 49)))
    weights = (0.3, 0.7, 0.0)
    theirs = functional.multiscale_structural_similarity_index_measure(
        first[:, None], second[:, None], kernel_size=11, data_range=1.0, betas=weights, reduction="none"
    )
    torch.testing.assert_close(ms_ssim(first, second, weights), theirs.flatten(), rtol=1e-4, atol=1e-5)


def test_ms_ssim_falls_as_noise_grows_also_on_thin_scans() -> None:
    clean = torch.from_numpy(smooth(2, 1, (30, 28, 6)))
    noise = torch.randn(clean.shape, generator=torch.Generator().manual_seed(3))
    values = torch.stack([ms_ssim(clean, (clean + sd * noise).clamp(0, 1)) for sd in (0.0, 0.05, 0.1, 0.3)])
    assert (values[:-1] > values[1:]).all()
    assert ((values > 0) & (values <= 1 + 1e-6)).all()


def animals(n: int, scans_of_each: int = 1, name: str = "animal") -> list[str]:
    return [f"{name} {i // scans_of_each}" for i in range(n)]


def test_pairs_are_distinct_seeded_and_complete_where_few() -> None:
    a, b = animals(5), animals(7, name="other")
    drawn = draw_pairs(a, b, 20, seed=1)
    assert len(np.unique(drawn, axis=0)) == 20
    assert drawn[:, 0].max() < 5
    assert drawn[:, 1].max() < 7
    assert np.array_equal(drawn, draw_pairs(a, b, 20, seed=1))
    assert not np.array_equal(drawn, draw_pairs(a, b, 20, seed=2))
    within = draw_pairs(a, None, 1000, seed=1)
    assert len(within) == 10
    assert (within[:, 0] < within[:, 1]).all()
    assert draw_pairs(a[:1], None, 10, seed=1).shape == (0, 2)


def test_no_pair_of_one_animal() -> None:
    labels = animals(6, scans_of_each=2)
    assert len(draw_pairs(labels, None, 1000, seed=1)) == 15 - 3
    assert len(draw_pairs(labels, None, 1000, seed=1, apart=False)) == 15
    assert len(draw_pairs(labels, labels, 1000, seed=1)) == 36 - 12


def paper(real: np.ndarray, synthetic: dict[str, np.ndarray], pairs: int, msssim_pairs: int) -> list[dict]:
    return evaluate(
        RealScans(real, animals(len(real))),
        None,
        synthetic,
        protocol="paper",
        pairs_per_scan=pairs,
        msssim_pairs_per_scan=msssim_pairs,
        seed=0,
    )


def held_out(
    training: np.ndarray, held: np.ndarray, synthetic: dict[str, np.ndarray], pairs: int = 100
) -> dict[tuple[str, str], dict]:
    return table(
        evaluate(
            RealScans(training, animals(len(training))),
            RealScans(held, animals(len(held), name="held")),
            synthetic,
            protocol="held-out",
            pairs_per_scan=pairs,
            msssim_pairs_per_scan=pairs,
            seed=0,
        )
    )


def test_evaluate_means_over_pairs() -> None:
    real, fake = smooth(3, 1), smooth(2, 2)
    rows = paper(real, {"m": fake}, 100, 100)
    assert [set(row) for row in rows] == [set(columns_sidecar())] * len(rows)
    assert [(r["model"], r["metric"]) for r in rows] == [(s, m) for m in METRICS for s in ("real", "m")]
    found = table(rows)
    between = np.array([np.abs(f - r).mean() for f in fake for r in real])
    assert found["m", "MAE"]["n"] == 6
    assert found["m", "MAE"]["value"] == pytest.approx(between.mean(), rel=1e-5)
    assert found["m", "MAE"]["sd"] == pytest.approx(between.std(ddof=1), rel=1e-4)
    own = [np.abs(real[i] - real[j]).mean() for i, j in ((0, 1), (0, 2), (1, 2))]
    assert found["real", "MAE"]["value"] == pytest.approx(np.mean(own), rel=1e-5)
    single = ms_ssim(torch.from_numpy(fake[:1]), torch.from_numpy(fake[1:])).item()
    assert found["m", "MS-SSIM"]["value"] == pytest.approx(single, rel=1e-4)
    assert found["m", "MS-SSIM"]["n"] == 1
    assert found["m", "MS-SSIM"]["sd"] is None
    assert found["m", "MS-SSIM"]["against"] == "itself"
    assert found["m", "NCC"]["against"] == "training"


def test_table_2_has_the_means_and_the_spread_of_passes() -> None:
    real, fake = smooth(4, 1), smooth(4, 2)
    rows = paper(real, {"m": fake}, 3, 1)  # 12 pairs in three passes
    lines = paper_table(rows)
    assert [line["model"] for line in lines] == ["real", "m"]
    assert list(lines[1]) == ["model", *METRICS] == list(paper_columns())
    assert paper_columns()["PSNR"]["Units"] == "dB"
    pairs = draw_pairs(animals(4, name="m"), animals(4), 12, seed=0, apart=False)
    errors = np.array([np.abs(fake[i] - real[j]).mean() for i, j in pairs]).reshape(3, 4)
    spread = errors.mean(axis=1).std(ddof=1)
    assert lines[1]["MAE"] == f"{errors.mean():.4g} ± {spread:.4g}"
    assert "±" not in lines[1]["MS-SSIM"]  # one pass has no spread


def test_held_out_animals_are_what_synthetic_scans_are_compared_with() -> None:
    training, held, fake = smooth(4, 1), smooth(3, 2), smooth(2, 3)
    found = held_out(training, held, {"m": fake})
    errors = [np.abs(a - b).mean() for a in fake for b in held]
    assert found["m", "MAE"]["value"] == pytest.approx(np.mean(errors), rel=1e-5)
    assert found["m", "MAE"]["against"] == "held-out"
    ceiling = [np.abs(a - b).mean() for a in training for b in held]
    assert found["real", "MAE"]["value"] == pytest.approx(np.mean(ceiling), rel=1e-5)
    assert {model for model, _ in found} == {"real", "real+noise", "m"}


def test_a_copy_gains_nothing_from_held_out_animals_and_noise_is_the_floor() -> None:
    scans = smooth(12, 1, (16, 17, 18))
    found = held_out(scans[:8], scans[8:], {"copies": scans[:8]})
    for name, metric in METRICS.items():
        ceiling, floor, copies = (found[m, name]["value"] for m in ("real", "real+noise", "copies"))
        assert copies == pytest.approx(ceiling, rel=1e-6)
        if not metric.within:
            assert floor < ceiling if metric.direction == "higher" else floor > ceiling


def test_evaluate_reacts_in_the_right_direction() -> None:
    """A collapsed set has MS-SSIM 1; a blurred copy of the data beats noise on every metric between sets."""
    real = smooth(6, 1, (16, 17, 18))
    noise = np.random.default_rng(0).random(real.shape, dtype=np.float32)
    sets = {
        "collapsed": np.repeat(real[:1], 4, axis=0),
        "near": 0.9 * real + 0.1 * real.mean(0),
        "noise": noise,
    }
    found = table(paper(real, sets, 3, 2))
    assert found["collapsed", "MS-SSIM"]["value"] == pytest.approx(1)
    target = found["real", "MS-SSIM"]["value"]
    near, far = (abs(found[m, "MS-SSIM"]["value"] - target) for m in ("near", "noise"))
    assert near < far
    assert found["near", "MMD"]["n"] == 18
    for name, metric in METRICS.items():
        if not metric.within:
            near, far = found["near", name]["value"], found["noise", name]["value"]
            assert near > far if metric.direction == "higher" else near < far


def test_a_set_of_one_scan_has_no_pairs_within() -> None:
    found = table(paper(smooth(2, 1), {"m": smooth(1, 2)}, 1, 1))
    assert (found["m", "MS-SSIM"]["value"], found["m", "MS-SSIM"]["n"]) == (None, 0)
    assert found["m", "NCC"]["n"] == 2
    assert found["m", "NCC"]["low"] is None  # one scan says nothing of the others


def test_two_animals_give_no_interval_and_a_note() -> None:
    """On either side of the pairs: two held-out animals, or two synthetic scans."""
    training, held, fake = smooth(4, 1), smooth(4, 2), smooth(4, 3)
    enough = held_out(training, held[:3], {"m": fake[:3]})
    for key in (("real", "NCC"), ("m", "NCC"), ("m", "MS-SSIM")):
        assert enough[key]["low"] < enough[key]["value"] < enough[key]["high"]
    few = held_out(training, held[:2], {"m": fake})
    assert few["m", "NCC"]["value"] is not None
    assert [few[key][end] for key in (("real", "NCC"), ("m", "NCC")) for end in ("low", "high")] == [None] * 4
    assert held_out(training, held, {"m": fake[:2]})["m", "NCC"]["low"] is None
    sides = {n: RealScans(held, animals(n)) for n in (2, 3, 30)}
    assert "number of held-out animals is only 2" in notes(sides[30], sides[2])[0]
    assert "only 3 held-out animals" in notes(sides[30], sides[3])[0]
    assert "only 3 training animals" in notes(sides[3], None)[0]
    assert notes(sides[30], sides[30]) == []
