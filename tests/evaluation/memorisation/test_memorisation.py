"""Planted copies are caught in every disguise, sound cohorts are not accused; and the parts by themselves."""

import evaluation as benchmark
import numpy as np
import pytest
import torch
from scipy import ndimage, stats
from scipy.spatial.transform import Rotation

from bids_alphagan.common.errors import UserError
from bids_alphagan.evaluation.memorisation import alignment
from bids_alphagan.evaluation.memorisation.cohort import find_copies
from bids_alphagan.evaluation.memorisation.measures import Match, Null, RealScans, holm
from bids_alphagan.phantom import acquisition

TRAINING, HELD_OUT, OTHERS = 13, 5, 7
ZOOMS = benchmark.ZOOMS


@pytest.fixture(scope="module")
def heads() -> tuple[np.ndarray, np.ndarray]:
    """25 phantom animals, coarsely sampled: scans and labels."""
    with pytest.MonkeyPatch.context() as patch:
        for name in ("FINEST", "LEAST"):
            patch.setattr(acquisition, name, getattr(acquisition, name))  # put back what the benchmark sets
        patch.setattr(benchmark, "FINEST", 0.75)
        return benchmark.animals(range(TRAINING + HELD_OUT + OTHERS))


@pytest.fixture(scope="module")
def scans(heads: tuple[np.ndarray, np.ndarray]) -> np.ndarray:
    return heads[0]


@pytest.fixture(scope="module")
def others(scans: np.ndarray) -> np.ndarray:
    return scans[TRAINING + HELD_OUT :]


@pytest.fixture(scope="module")
def real(heads: tuple[np.ndarray, np.ndarray]) -> RealScans:
    scans, labels = heads
    held = scans[TRAINING : TRAINING + HELD_OUT]
    brain = benchmark.brain_of(labels[:TRAINING])
    return RealScans.prepare(scans[:TRAINING], None, held, None, zooms=ZOOMS, brain=brain)


def test_sound_cohorts_are_not_accused(real: RealScans, scans: np.ndarray, others: np.ndarray) -> None:
    cohorts = benchmark.sound_cohorts(others, scans[:TRAINING], np.random.default_rng(0))
    for name in ("other animals", "blurred, sigma 1.2", "0.7 of the variety"):
        found = find_copies(np.asarray(cohorts[name], np.float32), real)
        assert (found.copies, found.repetitions, found.distinct) == (0, [], OTHERS), name
        assert found.p is not None
        assert found.p > 0.05


def test_copies_are_caught_in_every_disguise(real: RealScans, scans: np.ndarray, others: np.ndarray) -> None:
    rng = np.random.default_rng(1)
    copies = [change(scans[i], rng) for i, change in enumerate(benchmark.COPIES.values())]
    found = find_copies(np.stack([*others, *copies]).astype(np.float32), real)
    verdicts = [(match.synthetic, match.copy, match.training) for match in found.matches]
    n = len(copies)
    assert verdicts[OTHERS:] == [(OTHERS + i, True, i) for i in range(n)]
    assert not any(copy for _, copy, _ in verdicts[:OTHERS])
    assert found.copies == n
    assert all(match.synthetic >= OTHERS for match in found.worst(n))
    assert found.repetitions == []
    mirrored = [name.startswith("mirrored") for name in benchmark.COPIES]
    assert [match.mirrored for match in found.matches[OTHERS:]] == mirrored
    assert all(0 < match.p <= match.p_adjusted <= 1 for match in found.matches)
    adjusted = holm(np.array([match.p for match in found.matches]))
    np.testing.assert_allclose([match.p_adjusted for match in found.matches], adjusted)
    assert [match.copy for match in found.matches] == list(adjusted < 0.05)


def rotation(match: Match) -> np.ndarray:
    """About the three axes, degrees."""
    return Rotation.from_matrix(match.move[:, :3]).as_rotvec(degrees=True)


def test_the_movement_is_found(real: RealScans, scans: np.ndarray) -> None:
    shifted = ndimage.shift(scans[0], (2, -1, 1), order=1, mode="nearest")
    turned = benchmark.turned(scans[1], 4)
    larger = benchmark.enlarged(scans[3], 1.1)
    found = find_copies(np.stack([shifted, turned, scans[2, ::-1], larger]), real)
    by_shift, by_turn, mirror, by_size = found.matches
    # A scan moved by 2 voxels is sampled 2 voxels further; rotation is about the brain's centre.
    np.testing.assert_allclose(by_shift.move[:, 3], (1.5, -0.75, 1.0), atol=0.2)
    np.testing.assert_allclose(rotation(by_shift), 0, atol=0.6)
    assert abs(rotation(by_turn)[2]) == pytest.approx(4, abs=0.5)
    np.testing.assert_allclose(rotation(by_turn)[:2], 0, atol=0.6)
    sizes = [np.cbrt(np.linalg.det(match.move[:, :3])) for match in (by_shift, by_turn, by_size)]
    np.testing.assert_allclose(sizes, [1, 1, 1.1], atol=0.01)
    whole = ((shifted, by_shift), (turned, by_turn), (scans[2, ::-1], mirror), (larger, by_size))
    for scan, match in whole:
        laid = real.moved(scan, match)
        target = scans[match.training]
        inside = np.zeros(target.shape, bool)
        inside[real.box] = real.region.mask
        a, b = (ndimage.gaussian_filter(x, 0.7)[inside] for x in (laid, target))  # interpolation blurs, too
        assert np.corrcoef(a, b)[0, 1] > 0.99
    assert mirror.mirrored
    assert np.corrcoef(scans[2, ::-1][inside], scans[2][inside])[0, 1] < 0.98


def test_a_cohort_made_from_the_training_set_lies_closer_to_it(real: RealScans, scans: np.ndarray) -> None:
    """Half-and-half mixtures are no copies, but know the training animals and no others."""
    mixed = (scans[:TRAINING] + np.roll(scans[:TRAINING], 1, axis=0)) / 2
    found = find_copies(mixed, real)
    assert found.closer == 1
    assert found.expected == pytest.approx(TRAINING / (TRAINING + HELD_OUT))
    assert found.p is not None
    assert found.p < 0.05


def test_repetitions_are_counted(real: RealScans, others: np.ndarray) -> None:
    rng = np.random.default_rng(2)
    one = np.stack([benchmark.noisy(others[0], 0.03, rng) for _ in range(6)]).astype(np.float32)
    assert find_copies(one, real).distinct == 1
    twice = np.stack([*others, benchmark.turned(others[0], 3)])
    found = find_copies(twice, real)
    assert found.distinct == OTHERS
    assert {(r.first, r.second) for r in found.repetitions} == {(0, OTHERS), (OTHERS, 0)}
    assert find_copies(others[:1], real).distinct == 1


def test_sessions_of_one_animal_are_no_second_animal(scans: np.ndarray) -> None:
    """A copy of an animal with two sessions: its second nearest animal is another one, so it is caught."""
    rng = np.random.default_rng(3)
    again = np.stack([benchmark.noisy(benchmark.turned(x, 2), 0.02, rng) for x in scans[:3]])
    training = np.concatenate([scans[:TRAINING], again]).astype(np.float32)
    animals = [*range(TRAINING), 0, 1, 2]
    real = RealScans.prepare(training, animals, zooms=ZOOMS)
    assert find_copies(scans[:1], real).copies == 1
    blind = RealScans.prepare(training, None, zooms=ZOOMS)  # each session taken for an animal
    assert find_copies(benchmark.turned(scans[0], 1)[None], blind).copies == 0


def test_without_held_out_animals_it_says_what_is_missing(scans: np.ndarray, others: np.ndarray) -> None:
    real = RealScans.prepare(scans[:6], zooms=ZOOMS)
    found = find_copies(others, real)
    assert (found.closer, found.expected, found.p) == (None, None, None)
    assert "No animals were held out" in found.notes[0]


def test_the_exponential_tail_is_calibrated_for_few_animals() -> None:
    """p of exponential ratios is uniform though the mean is estimated from few; real copies hardly matter."""
    rng = np.random.default_rng(0)
    p = np.concatenate(
        [Null.of(rng.exponential(0.07, 20), np.arange(20)).p(rng.exponential(0.07, 20)) for _ in range(400)]
    )
    assert stats.kstest(p, "uniform").statistic < 0.04
    assert np.mean(p < 0.01) == pytest.approx(0.01, abs=0.006)
    clean = rng.exponential(0.07, 40)
    doubtful = np.concatenate([clean[:-2], [3.0, 3.0]])  # one animal under two names
    assert Null.of(doubtful, np.arange(40)).mean == pytest.approx(
        Null.of(clean, np.arange(40)).mean, rel=0.25
    )


def test_counting_weighs_animals_and_not_scans() -> None:
    null = Null.of(np.array([0.3, 0.3, 0.3, 0.1, 0.2]), np.array([0, 0, 0, 1, 2]))
    assert (null.animals, null.events) == (3, 2)


def test_how_much_nearer_a_copy_must_be_is_what_the_test_asks() -> None:
    null = Null.of(np.random.default_rng(0).exponential(0.07, 15), np.arange(15))
    nearer = null.nearer(0.05 / 20)
    assert null.p(np.array([np.log(nearer)]))[0] == pytest.approx(0.05 / 20)


def test_holm_by_hand() -> None:
    np.testing.assert_allclose(holm(np.array([0.04, 0.01, 0.03, 0.005])), [0.06, 0.03, 0.06, 0.02])


def test_alignment_recovers_a_known_movement(scans: np.ndarray) -> None:
    """A smooth scan sampled at a known movement is brought back to a tenth of a voxel and 0.3 degrees."""
    whole = alignment.Region.of(np.ones(scans[0].shape, bool), ZOOMS)
    smooth = alignment.blur(scans[:1], whole)
    true = alignment.movement(torch.tensor([[1.0, -0.8, 0.6, 0.05, -0.04, 0.06, 0.05]]))
    moved = alignment.sample(smooth, true, whole).reshape(smooth.shape)
    inner = np.zeros(scans[0].shape, bool)
    inner[6:-6, 6:-6, 4:-4] = True
    region = alignment.Region.of(inner, ZOOMS, whole.centre)
    found = alignment.align(smooth, moved, alignment.identity(1), region, steps=12)
    np.testing.assert_allclose(found[0].numpy(), true[0].numpy(), atol=0.08)
    back = alignment.compose(found, alignment.inverse(found))
    np.testing.assert_allclose(back[0].numpy(), np.eye(3, 4), atol=1e-5)


def test_bad_input_is_refused(scans: np.ndarray, real: RealScans) -> None:
    with pytest.raises(UserError, match="with 4 or more training animals, not with 2"):
        RealScans.prepare(scans[:4], ["a", "a", "b", "b"], zooms=ZOOMS)
    with pytest.raises(UserError, match="b is both in the training set and held out"):
        RealScans.prepare(scans[:4], list("abcd"), scans[4:6], ["b", "e"], zooms=ZOOMS)
    with pytest.raises(UserError, match="must have one grid"):
        RealScans.prepare(scans[:4], None, scans[4:6, :-1], None, zooms=ZOOMS)
    with pytest.raises(UserError, match="cannot be compared"):
        find_copies(scans[:2, :-1], real)
    with pytest.raises(UserError, match="cannot be compared"):
        find_copies(scans[:0], real)
