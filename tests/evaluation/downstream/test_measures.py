"""Dice and surface distance: known answers."""

import numpy as np
import pytest
import torch
from monai.metrics.meandice import DiceMetric
from toy_scans import REAL, SHAPE

from bids_alphagan.evaluation.downstream.measures import dice, measure, surface_distance


def test_dice_by_hand_and_against_monai() -> None:
    a, b = (np.random.default_rng(seed).random((3, *SHAPE)) > 0.6 for seed in (1, 2))
    pairs = list(zip(a, b, strict=True))
    expected = [2 * (x & y).sum() / (x.sum() + y.sum()) for x, y in pairs]
    theirs = DiceMetric()(torch.from_numpy(a)[None].float(), torch.from_numpy(b)[None].float())
    np.testing.assert_allclose(theirs[0].numpy(), expected, rtol=1e-6)
    assert [dice(x, y) for x, y in pairs] == pytest.approx(expected)
    assert dice(a, b) == pytest.approx(2 * (a & b).sum() / (a.sum() + b.sum()))
    assert dice(a, a) == 1
    assert dice(np.zeros_like(a), b) == 0
    assert dice(a, np.zeros_like(b)) is None


@pytest.mark.parametrize(("axis", "mm"), [(0, 0.5), (1, 0.75), (2, 1.25)])
def test_two_planes_are_as_far_apart_as_their_voxels_are_long(axis: int, mm: float) -> None:
    a, b = np.zeros((2, *SHAPE), bool)
    a[(slice(None),) * axis + (2,)] = True
    b[(slice(None),) * axis + (5,)] = True
    assert surface_distance(a, b, (0.5, 0.75, 1.25)) == pytest.approx(3 * mm)
    assert surface_distance(a, a, (0.5, 0.75, 1.25)) == 0


def test_a_point_beside_a_plane_counts_both_directions() -> None:
    a, b = np.zeros((2, *SHAPE), bool)
    a[1], b[1], b[4, 3, 3] = True, True, True
    # of 72 + 73 surface voxels, one lies 3 voxels of 0.5 mm from the other's surface
    assert surface_distance(a, b, (0.5, 0.75, 1.25)) == pytest.approx(1.5 / 145)
    assert surface_distance(b, a, (0.5, 0.75, 1.25)) == pytest.approx(1.5 / 145)


def test_nothing_found_is_the_worst_and_nothing_to_find_is_no_number() -> None:
    empty, some = np.zeros(SHAPE, bool), np.ones(SHAPE, bool)
    assert surface_distance(empty, some, (1, 1, 2)) == pytest.approx(np.sqrt(7**2 + 8**2 + 18**2))
    assert surface_distance(some, empty, (1, 1, 2)) is None
    scan = REAL[0]
    rows = measure(np.where(scan.labels == 2, 0, scan.labels), scan.labels, scan.spacing, {"arm": "r1"})
    found = {row["tissue"]: row for row in rows}
    assert [found[t]["dice"] for t in ("GM", "WM", "CSF")] == [1, 0, 1]
    assert found["global"]["dice"] == pytest.approx(2 * 2 / 5)  # two blocks of three, all of one size
    assert found["global"]["surface_distance"] is None
