"""Limits through real segmentation: damaged phantom heads fail, sound ones of unusual size pass."""

from pathlib import Path

import masks as benchmark
import pytest

from bids_alphagan.qc.limits import Limits, thresholds
from bids_alphagan.segmenters import resolve_segmenter
from bids_alphagan.segmenters.base import Segmenter
from bids_alphagan.segmenters.options import MaskOptions
from bids_alphagan.templates import find_template

pytestmark = pytest.mark.slow
# Heads that the limits come from, and one that is damaged; benchmarks/masks.py quality takes more of everything.
REAL, HEAD = 8, 201


@pytest.fixture(scope="module")
def segmenter(template: Path) -> Segmenter:
    return resolve_segmenter("ants", find_template(str(template)), MaskOptions(quick=True))


@pytest.fixture(scope="module")
def limits(segmenter: Segmenter) -> Limits:
    heads = [benchmark.measures(benchmark.scan(number), segmenter) for number in range(REAL)]
    return thresholds([one for one in heads if not isinstance(one, str)], width=5)


@pytest.mark.parametrize(
    ("damage", "strength", "by"),
    [
        (benchmark.blurred, 1.0, "roughness"),
        (benchmark.ghosted, 1.0, "detail_correlation"),
        (benchmark.beside, 1.0, "rim_contrast"),
        (benchmark.without_ventricles, 10.0, "ventricle_contrast"),
        (benchmark.with_hole, 2.0, "void_fraction"),
        (benchmark.noisy, 1.0, "roughness"),
    ],
)
def test_damaged_heads_fail(
    segmenter: Segmenter, limits: Limits, damage: benchmark.Damage, strength: float, by: str
) -> None:
    failed = benchmark.judge(benchmark.measures(damage(HEAD, strength), segmenter), limits)
    assert by in failed or failed == ["no masks"]


@pytest.mark.parametrize("size", [0.88, 1.12])
def test_sound_heads_of_unusual_size_pass(segmenter: Segmenter, limits: Limits, size: float) -> None:
    assert benchmark.judge(benchmark.measures(benchmark.scan(300, size), segmenter), limits) == []
