"""The downstream experiment: known answers, who trains on what, resuming; does it tell gain from noise?"""

import json
import logging
import signal
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import tiny
import torch
from monai.metrics.meandice import DiceMetric
from scipy import stats

from bids_alphagan.bids.derivatives import real_uri, write_masks, write_prepared
from bids_alphagan.bids.names import ScanName, sidecar
from bids_alphagan.bids.prepared import subject_scans
from bids_alphagan.cli import main as cli
from bids_alphagan.common.errors import UserError
from bids_alphagan.common.files import write_json
from bids_alphagan.common.process.interrupt import Interrupted
from bids_alphagan.common.process.lock import lock
from bids_alphagan.common.volume import conform, load, read_reference, save
from bids_alphagan.evaluation import volumes
from bids_alphagan.evaluation.downstream import experiment, network
from bids_alphagan.evaluation.downstream.arms import (
    ARMS,
    PAPER_TESTS,
    Arm,
    check_split,
    choose,
    possible,
    read_arm,
    references,
)
from bids_alphagan.evaluation.downstream.experiment import run
from bids_alphagan.evaluation.downstream.measures import dice, measure, surface_distance
from bids_alphagan.evaluation.downstream.network import Settings
from bids_alphagan.evaluation.downstream.scans import Scan, real_scans, synthetic_scans
from bids_alphagan.evaluation.downstream.summary import (
    hardly_learned,
    headline,
    over_animals,
    over_seeds,
    scan_columns,
    sentence,
    sentences,
    summarise,
    summary_columns,
)
from bids_alphagan.evaluation.downstream.table import Gain, settings_of, tables_of

SHAPE = (7, 8, 9)
QUICK = Settings(
    (Arm(1), Arm(1, 1), Arm(0.5, 1), Arm(1, augment=True)),
    *(3, 2, 2),  # steps, seeds, batch size
    channels=(2, 2, 2),
    residual_units=0,
    learning_rate=1e-2,
)


def toys(animals: str, seed: int = 0) -> list[Scan]:
    """A scan for each letter: blocks of three tissues in noise, unequal axes."""
    source, found = np.random.default_rng(seed), []
    for number, animal in enumerate(animals):
        labels = np.zeros(SHAPE, np.uint8)
        for tissue in (1, 2, 3):
            labels[1:6, 1:7, 2 * tissue : 2 * tissue + 2] = tissue
        image = (labels / 4 + 0.1 * source.random(SHAPE)).astype(np.float32)
        found.append(Scan(f"sub-{animal}_run-{number}", animal, image, labels, (0.5, 0.75, 1.25)))
    return found


REAL, SYNTHETIC = toys("abcdefg"), toys("stuv", seed=1)


def try_out(folder: Path, settings: Settings = QUICK, **other: object) -> experiment.Result:
    arguments = {"held_out": "efg", "trained_on": "abcd", **other}
    return run(REAL, SYNTHETIC, settings=settings, folder=folder, **arguments)


# What is measured


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


# Intervals and what they say


def test_intervals_of_few_values() -> None:
    assert over_animals([0.3, 0.4]) == (None, None)
    assert over_animals([0.1, 0.2, 0.6]) == pytest.approx((0.1, 0.6))
    assert over_animals([0.25] * 5) == (0.25, 0.25)
    assert over_seeds([0.3]) == (None, None)
    values = [0.1, 0.4, 0.3, 0.2]
    low, high = stats.t.interval(0.95, 3, np.mean(values), stats.sem(values))
    assert over_seeds(values) == pytest.approx((low, high))


def test_intervals_of_many_values_are_the_normal_ones() -> None:
    values = np.random.default_rng(1).normal(3, 2, 400)
    expected = stats.t.interval(0.95, 399, values.mean(), stats.sem(values))
    assert over_animals(values.tolist()) == pytest.approx(expected, abs=0.02)
    assert over_animals(values.tolist()) == over_animals(values.tolist())


def test_intervals_over_eight_animals_cover_the_mean_as_often_as_they_say() -> None:
    drawn = np.random.default_rng(1).normal(0, 1, (200, 8))
    covered = np.mean([not over_animals(values.tolist()).excludes_0 for values in drawn])
    assert 0.91 <= covered <= 0.98


def rows_of(gains: Sequence[Sequence[float]], distance: float = 0.0) -> list[dict]:
    """Rows of r1 and r1+s1 for gains (animals, seeds) in Dice; `distance` is gained in mm."""
    return [
        {
            **{"arm": arm, "seed": seed, "animal": str(animal), "scan": f"s{n}", "tissue": "GM"},
            **{"dice": 0.8 + animal / 100 + n / 50 + extra, "surface_distance": 1 - (arm != "r1") * distance},
        }
        for animal, of_animal in enumerate(gains)
        for seed, gain in enumerate(of_animal)
        for arm, extra in (("r1", 0.0), ("r1+s1", gain))
        for n in range(1 + animal % 2)  # some animals have two scans and count as much as the others
    ]


def gained(rows: list[dict], measured: str = "dice") -> dict:
    summary = summarise(rows, (Arm(1), Arm(1, 1)))
    return next(row for row in summary if row["gain"] is not None and row["measure"] == measured)


def test_summary_by_hand() -> None:
    gains = [[0.02, 0.04], [0.05, 0.03], [0.01, 0.05], [0.06, 0.04], [0.03, 0.03], [0.02, 0.02]]
    rows = rows_of(gains, distance=0.25)
    row = gained(rows)
    means = np.mean(gains, axis=1)
    assert (row["arm"], row["compared_with"], row["n_animals"], row["n_seeds"]) == ("r1+s1", "r1", 6, 2)
    assert row["gain"] == pytest.approx(np.mean(gains))
    assert (row["gain_low"], row["gain_high"]) == pytest.approx(over_animals(means))
    seeds = np.mean(gains, axis=0)
    assert (row["gain_low_seeds"], row["gain_high_seeds"]) == pytest.approx(over_seeds(seeds))
    animals = [0.8 + i / 100 + (i % 2) / 100 + means[i] for i in range(6)]
    assert row["mean"] == pytest.approx(np.mean(animals))
    assert (row["low"], row["high"]) == pytest.approx(over_animals(animals))
    assert gained(rows, "surface_distance")["gain"] == pytest.approx(0.25)  # smaller is better
    real = next(row for row in summarise(rows, (Arm(1), Arm(1, 1))) if row["arm"] == "r1")
    assert (real["gain"], real["resolved"], real["compared_with"]) == (None, None, None)


CLEAR = [[0.03, 0.031], [0.04, 0.041], [0.03, 0.032], [0.02, 0.021], [0.03, 0.029], [0.04, 0.04]]


@pytest.mark.parametrize(
    ("gains", "resolved", "words"),
    [
        (CLEAR, "yes", "higher than on all real scans: resolved with 6 animals and 2 seeds."),
        ([[-x for x in of] for of in CLEAR], "yes", "lower than on all real scans: resolved with 6"),
        (
            [*CLEAR[:4], [-0.2, -0.2], [0.2, 0.2]],
            "no",
            "the interval includes 0, not resolved with 6 animals",
        ),
        (CLEAR[:5], "no", "5 animals are too few to resolve any gain; 6 are needed"),
        (CLEAR[:2], "no", "higher than on all real scans: 2 animals are too few to resolve any gain"),
        ([of[:1] for of in CLEAR], "no", "not resolved, because a single training of each may be luck"),
        ([[0.0, 0.06]] * 6, "no", "not resolved, because trainings differ as much between seeds (2 seeds)"),
    ],
)
def test_a_sentence_says_whether_the_gain_is_resolved_and_why_not(gains, resolved, words) -> None:
    rows = rows_of(gains)
    row = gained(rows)
    assert row["resolved"] == resolved
    texts = sentences(summarise(rows, (Arm(1), Arm(1, 1))), (Arm(1), Arm(1, 1)))
    text = next(one["text"] for one in texts if one["measure"] == "dice")
    assert words in text
    assert text.startswith(
        "Trained on all real scans and synthetic scans (as many as all real), the network's"
    )


def test_networks_that_have_not_learned_are_warned_of() -> None:
    """By real scans alone, each tissue for itself: what synthetic scans do with it is no matter."""
    row = {"arm": "r1", "measure": "dice"}
    rows = [row | {"tissue": tissue, "mean": mean} for tissue, mean in (("GM", 0.31), ("WM", 0.02))]
    rows += [{"arm": "s1", "measure": "dice", "tissue": "CSF", "mean": 0.1}]
    rows += [row | {"measure": "surface_distance", "tissue": "GM", "mean": 0.2}]
    [note] = hardly_learned(rows, 20)
    assert "hardly find WM (0.020): a Dice below 0.3 after 20 steps" in note
    assert "--downstream-steps" in note
    assert hardly_learned([one for one in rows if one["tissue"] != "WM"], 20) == []


def test_a_loss_is_given_with_its_interval_turned_round() -> None:
    row = {"measure": "surface_distance", "tissue": "WM", "gain": -0.2, "gain_low": -0.3, "gain_high": -0.1}
    text = sentence({**row, "n_animals": 6, "n_seeds": 2, "resolved": "yes"}, "A", "B")
    assert "the network's WM surface distance (mm) is 0.200 [0.100, 0.300] larger than on B" in text


# Who trains on what


def test_the_ten_tests_take_the_papers_numbers_of_scans() -> None:
    animals = [f"{n:03d}" for n in range(174)]
    sizes = [tuple(map(len, choose(arm, animals, 348, seed=0))) for arm in PAPER_TESTS]
    table4 = [(174, 0), (174, 87), (174, 174), (174, 261), (174, 348), (0, 174), (0, 348), (87, 174)]
    assert sizes == [*table4, (87, 348), (174, 0)]
    assert [arm.augment for arm in PAPER_TESTS] == [False] * 9 + [True]
    paper = settings_of(cli.parse(["in", "out", "group", "--preset", "paper"]).settings("downstream"))
    assert paper.arms == PAPER_TESTS


def test_names_and_words_of_arms() -> None:
    assert [arm.name for arm in ARMS] == [
        "r1",
        "r1+s0.5",
        "r1+s1",
        "s1",
        "r0.5",
        "r0.5+s1",
        "r1+a",
        "r1+s1+a",
    ]
    assert Arm(0.5, 2).label == "half of the real scans and synthetic scans (twice as many as all real)"
    assert Arm(0, 1).label == "synthetic scans (as many as all real) alone"
    assert Arm(1, augment=True).label == "all real scans, augmented"
    assert (Arm(1, 1, True), Arm(1, 0, True)) in references(ARMS)
    assert [other for arm, other in references(ARMS) if arm == Arm(0.5, 1)] == [Arm(1), Arm(0.5)]


def test_arms_are_read_by_their_names() -> None:
    for arm in {*ARMS, *PAPER_TESTS, Arm(0.25, 3, True), Arm(0, 0.5, True)}:
        assert read_arm(arm.name) == arm
    for name in (
        "",
        "a",
        "r2",
        "s0",
        "r1s1",
        "r1+s1+b",
        "r1.0",
        "r1+",
        "+s1",
        "r.",
        "r1+a+s1",
        "r-1",
        "r1\n",
    ):
        with pytest.raises(UserError, match="--downstream-arms"):
            read_arm(name)


def test_the_report_leads_with_the_plainest_question() -> None:
    assert headline(ARMS) == headline(PAPER_TESTS) == Arm(1, 1)
    assert headline([Arm(1), Arm(1, 0.5), Arm(1, 0.5, True), Arm(0, 1)]) == Arm(1, 0.5)
    assert headline([Arm(1), Arm(0, 1), Arm(0.5, 2)]) == Arm(0.5, 2)


def test_shares_are_of_animals_nested_and_drawn_again_by_each_seed() -> None:
    animals = list("aaabbcdddd")
    half, synthetic = choose(Arm(0.5, 1), animals, 30, seed=3)
    chosen = {animals[i] for i in half}
    assert len(chosen) == 2
    assert half == [i for i, animal in enumerate(animals) if animal in chosen]
    assert len(synthetic) == 10
    assert set(synthetic) < set(choose(Arm(0.5, 2), animals, 30, seed=3)[1])
    assert choose(Arm(0.5, 1), animals, 30, seed=3) == (half, synthetic)
    assert len({tuple(choose(Arm(0.5, 1), animals, 30, seed=s)[0]) for s in range(9)}) > 2


@pytest.mark.parametrize(
    ("held_out", "trained_on", "message"),
    [
        ("efg", "abfe", r"the generator was trained on held-out animals \(sub-e, sub-f\)"),
        ("efx", "ab", "no real scan with masks of the held-out sub-x"),
        ("g", "ab", "1 held out, 6 left for training"),
        ("bcdefg", "a", "6 held out, 1 left for training"),
    ],
)
def test_what_cannot_be_tested_is_refused_before_anything_is_written(tmp_path, held_out, trained_on, message):
    with pytest.raises(UserError, match=message):
        try_out(tmp_path / "new", held_out=held_out, trained_on=trained_on)
    assert not (tmp_path / "new").exists()
    check_split(set("abcdefg"), "efg", "abcd")


def test_arms_without_enough_synthetic_scans_are_left_out_or_refused() -> None:
    kept, left_out = possible(PAPER_TESTS, 10, 12)
    assert [arm.name for arm in kept] == ["r1", "r1+s0.5", "r1+s1", "s1", "r0.5+s1", "r1+a"]
    assert left_out["r1+s1.5"] == "needs 15 synthetic scans, but there are 12"
    with pytest.raises(
        UserError,
        match=r"synthetic scans with masks: 3, .*smallest training set needs 5.*synthesise downstream --n-synthetic 20",
    ):
        possible(PAPER_TESTS, 10, 3)


def test_scans_of_two_shapes_are_refused(tmp_path: Path) -> None:
    other = SYNTHETIC[0]._replace(image=np.zeros((7, 8, 10), np.float32))
    with pytest.raises(ValueError, match="one shape"):
        run(REAL, [other], "efg", "ab", QUICK, tmp_path)


# The experiment


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, experiment.Result]:
    torch.set_num_threads(1)
    folder = tmp_path_factory.mktemp("whole")
    return folder, try_out(folder)


def test_rows_and_tables_of_two_models(whole) -> None:
    _, result = whole
    assert len(result.rows) == 4 * 2 * 3 * 4  # arms, seeds, held-out scans, tissues
    assert {row["animal"] for row in result.rows} == set("efg")
    assert all(list(row) == list(scan_columns()) for row in result.rows)
    assert all(set(row) == set(summary_columns()) for row in result.summary)
    tables, columns = tables_of({"a": result, "b": result}), Gain().columns()
    summary, scans, table4 = (tables[name] for name in ("downstream", "downstream_scans", "table4"))
    assert {name: set(rows[0]) for name, rows in tables.items()} == {n: set(c) for n, c in columns.items()}
    assert len(scans) == len(result.rows) * 6 / 4  # two of four arms have synthetic scans
    assert {row["model"] for row in scans if row["arm"] == "r1"} == {None}
    assert {row["model"] for row in scans if row["arm"] == "r1+s1"} == {"a", "b"}
    assert summary[0]["mean"] == result.summary[0]["mean"]
    sets = [(row["test"], row["model"], row["training_set"]) for row in table4]
    assert sets == [
        *((1, None, "r4"), (3, "a", "r4 + s4"), (8, "a", "r2 + s4"), (10, None, "r4, augmented")),
        *((3, "b", "r4 + s4"), (8, "b", "r2 + s4")),
    ]
    gm = [row["dice"] for row in result.rows if (row["arm"], row["tissue"]) == ("r1", "GM")]
    assert float(table4[0]["GM"]) == pytest.approx(np.mean(gm), abs=5e-5)
    assert result.record["held_out"] == list("efg")


def test_every_arm_takes_as_many_steps(whole, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    folder, _ = whole
    records = [json.loads(path.read_text()) for path in sorted(folder.glob("*.json"))]
    assert {(r["n_real"], r["n_synthetic"]) for r in records} == {(4, 0), (4, 4), (2, 4)}
    taken, trainings, step = [], 0, torch.optim.Adam.step

    def counted(self: torch.optim.Adam, *arguments: object) -> object:
        taken.append(trainings)
        return step(self, *arguments)

    def next_training(*arguments: object) -> torch.nn.Module:
        nonlocal trainings
        trainings += 1
        return train(*arguments)

    train = experiment.train_network
    monkeypatch.setattr(torch.optim.Adam, "step", counted)
    monkeypatch.setattr(experiment, "train_network", next_training)
    try_out(tmp_path)
    assert np.bincount(taken).tolist() == [0] + [3] * 8


def test_a_stopped_run_resumes_to_the_same_result(whole, tmp_path, monkeypatch, caplog) -> None:
    folder, expected = whole
    trained: list[object] = []

    def stopped(*arguments: object) -> torch.nn.Module:
        trained.append(arguments)
        if len(trained) == 4:
            signal.raise_signal(signal.SIGTERM)
        return train(*arguments)

    train = experiment.train_network
    monkeypatch.setattr(experiment, "train_network", stopped)
    with pytest.raises(Interrupted, match=r"stopped in r1\+s1"):
        try_out(tmp_path)
    written = {path: path.stat().st_mtime_ns for path in tmp_path.iterdir()}
    assert len(written) == 3
    damaged = sorted(written)[0]
    damaged.write_text(damaged.read_text()[:100])
    with caplog.at_level(logging.INFO, logger="bids_alphagan"):
        result = try_out(tmp_path)
    assert (result.rows, result.summary) == (expected.rows, expected.summary)
    assert len(trained) == 4 + 6  # the one that was stopped, the damaged one, four that had not begun
    assert {path.name for path in tmp_path.iterdir()} == {path.name for path in folder.iterdir()}
    assert "2 of 8 trainings are already done" in caplog.text
    assert "8 of 8 trainings done, about 0 s left" in caplog.text
    try_out(tmp_path)
    assert len(trained) == 10


def test_other_scans_or_settings_are_trained_again_and_more_seeds_are_not(whole, tmp_path, monkeypatch):
    trained: list[object] = []
    train = experiment.train_network
    monkeypatch.setattr(experiment, "train_network", lambda *a: trained.append(a) or train(*a))
    one = Settings(**{**vars(QUICK), "arms": QUICK.arms[:2], "seeds": 1})
    try_out(tmp_path, one)
    for changed, more in (
        ({"seeds": 2}, 2),
        ({"arms": QUICK.arms[:3]}, 1),
        ({"steps": 4}, 2),
        ({"learning_rate": 0.02}, 2),
    ):
        before = len(trained)
        last = Settings(**{**vars(one), **changed})
        rows = try_out(tmp_path, last).rows
        assert len(trained) == before + more, changed
    before = len(trained)
    again = run(REAL, toys("stuv", seed=2), "efg", "ab", last, tmp_path)
    assert len(trained) == before + 1  # what takes no synthetic scans is as it was
    real_alone = [row for row in rows if row["arm"] == "r1"]
    assert [row for row in again.rows if row["arm"] == "r1"] == real_alone
    assert again.rows != rows


def test_two_runs_in_one_folder_are_refused(tmp_path: Path) -> None:
    with lock(tmp_path), pytest.raises(UserError, match="Another run"):
        try_out(tmp_path)


def test_odd_sizes_come_back_whole_and_a_seed_is_a_network() -> None:
    data = network.Data(REAL, 4, torch.device("cpu"))
    assert data.images.shape == (7, 1, 8, 8, 12)
    assert data.images[..., 7:, :, :].abs().sum() == 0
    settings = Settings(**{**vars(QUICK), "channels": (2, 3, 4, 5)})
    state = torch.get_rng_state()
    first, again, other = (network.train_network(data, [0, 1], settings, True, seed) for seed in (0, 0, 1))
    assert torch.equal(torch.get_rng_state(), state)
    made = network.segment(first, data, 0)
    assert (made.shape, made.dtype) == (SHAPE, np.uint8)
    weights = [torch.cat([p.flatten() for p in net.parameters()]) for net in (first, again, other)]
    assert torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[0], weights[2])


def test_augmentation_moves_image_and_labels_together() -> None:
    labels = np.zeros((1, 20, 22, 24), np.uint8)
    labels[0, 3:9, 5:17, 6:18] = 1
    pair = {"image": torch.from_numpy(labels).float(), "labels": torch.from_numpy(labels)}
    change, moved = network.augmentation(0), 0
    with network.plain_tensors():
        for _ in range(12):
            made = change(dict(pair))
            values, kept = (made[key].numpy().ravel() for key in ("image", "labels"))
            assert set(np.unique(kept)) == {0, 1}
            assert np.corrcoef(values, kept)[0, 1] > 0.85
            moved += np.corrcoef(kept, labels.ravel())[0, 1] < 0.85
    assert moved > 2


def test_each_scan_of_the_pool_is_seen_as_often() -> None:
    batches = list(network.draw_batches([3, 5, 8], 2, 6, seed=0))
    assert [len(batch) for batch in batches] == [2] * 6
    assert np.bincount(np.ravel(batches)).tolist() == [0, 0, 0, 4, 0, 4, 0, 0, 4]


# From files


@pytest.mark.parametrize("axcodes", ["RAS", "LPI", "SRA", "AIL", "PSR"])
@pytest.mark.parametrize("grid", [16, 6])
def test_labels_land_on_the_voxels_of_their_scan(tmp_path: Path, axcodes: str, grid: int) -> None:
    """The scan is bright where a label is: in the cube, on whatever grid, it must be so still."""
    labels = np.zeros((7, 8, 12), np.uint8)
    labels[1:3, 2:7, 3:9], labels[3:6, 1:4, 2:6], labels[4:6, 5:7, 8:11] = 1, 2, 3
    ras = nib.orientations.axcodes2ornt("RAS")
    turn = nib.orientations.ornt_transform(ras, nib.orientations.axcodes2ornt(axcodes))
    path = tmp_path / "labels.nii.gz"
    nib.save(nib.Nifti1Image(labels, tiny.AFFINE).as_reoriented(turn), path)
    cubes = []
    for label in (1, 2, 3):
        bright = nib.Nifti1Image((labels == label).astype(np.float32), tiny.AFFINE).as_reoriented(turn)
        made = conform(bright, grid, 100)
        cubes.append((made.data + 1) / 2)
    found = volumes.read_labels(path, made.record)
    assert (found.shape, found.dtype) == ((grid,) * 3, np.uint8)
    if grid == 16:
        inside = found[volumes.field_of_view(made.record)]
        np.testing.assert_array_equal(inside, labels)
        assert found.sum() == labels.sum()
    else:  # resampled to half of its slices and fewer rows: where one label fills most of a voxel, it is it
        for label, cube in enumerate(cubes, start=1):
            assert (found[cube > 0.75] == label).all()
            assert (cube > 0.75).sum() > 0
            assert (cube[found == label] > 0.3).all()


def test_labels_of_another_grid_or_none_are_refused(tmp_path: Path) -> None:
    labels = np.ones(SHAPE, np.uint8)
    record = conform(nib.Nifti1Image(tiny.values(), tiny.AFFINE), 16, 100).record
    path = tmp_path / "dseg.nii.gz"
    for data, affine, message in (
        (labels[:-1], tiny.AFFINE, r"\(6, 8, 9\) voxels, stored as RAS, but its scan has \(7, 8, 9\)"),
        (labels, np.diag([-1, 1, 1, 1]) @ tiny.AFFINE, r"stored as LAS, but its scan has .* stored as RAS"),
        (labels * np.float32(0.5), tiny.AFFINE, "is not a label image"),
    ):
        nib.save(nib.Nifti1Image(data, affine), path)
        with pytest.raises(UserError, match=message):
            volumes.read_labels(path, record)
    path.write_bytes(b"damaged")
    with pytest.raises(UserError, match="cannot be read"):
        volumes.read_labels(path, record)


def test_real_and_synthetic_scans_from_their_files(tmp_path: Path, caplog) -> None:
    labels = np.random.default_rng(0).integers(0, 4, SHAPE).astype(np.uint8)
    image = nib.Nifti1Image(tiny.values(), tiny.AFFINE).as_reoriented([[2, 1], [0, -1], [1, 1]])
    nib.save(image, tmp_path / "raw.nii.gz")
    image = load(tmp_path / "raw.nii.gz")
    stored = nib.Nifti1Image(labels, tiny.AFFINE).as_reoriented([[2, 1], [0, -1], [1, 1]])
    maps = {t: np.asarray(stored.dataobj) == k for k, t in enumerate(("GM", "WM", "CSF"), start=1)}
    maps |= {"dseg": np.asarray(stored.dataobj), "brain": np.asarray(stored.dataobj) > 0}
    made = conform(image, 16, 100)
    cube = nib.Nifti1Image(made.data, made.affine)
    names = [ScanName((("sub", label),), "T2w") for label in ("01", "02")]
    for name in names:
        reference = np.asarray(image.dataobj)
        write_prepared(tmp_path, name, image, "bids:raw:x", reference, cube, made.record, {})
    write_masks(tmp_path, names[0], image, maps, "x", {}, {"brain_volume": 1.0})
    prepared = [scan for label in ("01", "02") for scan in subject_scans(tmp_path, label)]
    box = volumes.common_field_of_view([scan.record for scan in prepared])
    with caplog.at_level(logging.WARNING, logger="bids_alphagan"):
        (scan,) = real_scans(prepared, box)
    assert "sub-02 has no masks" in caplog.text
    assert (scan.name, scan.animal, scan.spacing) == ("sub-01", "01", pytest.approx((0.5, 0.75, 1.25)))
    np.testing.assert_array_equal(scan.labels, labels)
    expected = tiny.values() / tiny.values().max()
    np.testing.assert_allclose(scan.image, expected, atol=1e-6)

    cohort = tmp_path / "derivatives" / "m"
    for name, desc in zip(names, ("synthetic", None), strict=True):
        save(image, cohort / name.image())
        write_json(sidecar(cohort / name.image()), {"Sources": [real_uri(tmp_path, prepared[0].preproc)]})
        if desc:
            write_masks(cohort, name, image, maps, "x", {}, {}, desc=desc)
    (drawn,) = synthetic_scans(cohort, box, 16, 100)
    np.testing.assert_array_equal(drawn.labels, labels)
    np.testing.assert_allclose(drawn.image, expected, atol=1e-6)
    assert synthetic_scans(cohort, box, 16, 100, most=0) == []
    dseg = prepared[0].masks["dseg"]
    save(nib.Nifti1Image(np.asarray(load(dseg).dataobj) + np.uint8(4), load(dseg).affine), dseg)
    with pytest.raises(UserError, match=r"sub-01_dseg.*has the label 7"):
        real_scans(prepared, box)
    assert read_reference(cohort / names[0].image())[0].shape == image.shape


# Does it tell?

LEARNING = Settings((Arm(1), Arm(1, 4)), *(40, 2, 2), channels=(4, 4), residual_units=0, learning_rate=3e-2)


def test_a_small_network_learns_the_tissues() -> None:
    scans = toys("abcdefgh")
    data = network.Data(scans, LEARNING.multiple, torch.device("cpu"))
    untrained, made = (
        network.train_network(data, range(6), replace(LEARNING, learning_rate=rate), False, 0)
        for rate in (0.0, 3e-2)
    )
    for index in (6, 7):
        scan = scans[index]
        found, before = (
            measure(network.segment(net, data, index), scan.labels, scan.spacing, {})
            for net in (made, untrained)
        )
        assert min(row["dice"] for row in found) > 0.8
        assert max(row["surface_distance"] for row in found if row["tissue"] != "global") < 0.3
        assert before[-1]["dice"] < 0.6


def test_what_the_real_scans_lack_is_called_a_gain_and_noise_is_not(tmp_path: Path) -> None:
    """Held-out animals are negatives, the real ones are not: what teaches negatives must help."""
    positives = toys("abcdefghijklmnop")
    negatives = [scan._replace(image=1 - scan.image) for scan in positives]
    test, few, more = negatives[:6], positives[6:8], negatives[8:]
    held_out, seen = {scan.animal for scan in test}, {few[0].animal}
    result = run([*test, *few], more, held_out, seen, LEARNING, tmp_path)
    compared = {(row["measure"], row["tissue"]): row for row in result.summary if row["compared_with"]}
    assert compared["dice", "global"]["gain"] > 0.1
    assert compared["dice", "global"]["resolved"] == "yes"

    source = np.random.default_rng(0)
    noise = [
        scan._replace(
            image=source.random(scan.image.shape, dtype=np.float32),
            labels=source.permutation(scan.labels.ravel()).reshape(scan.labels.shape),
        )
        for scan in more
    ]
    result = run([*positives[:6], *few], noise, held_out, seen, LEARNING, tmp_path)
    compared = {(row["measure"], row["tissue"]): row for row in result.summary if row["compared_with"]}
    assert not [row for row in compared.values() if row["resolved"] == "yes" and row["gain"] > 0]
    assert compared["dice", "global"]["gain"] < 0
