"""The evaluation: how fast pairs are compared, whether copies are caught, and how large a report is.

python benchmarks/evaluation.py pairs                                                # docs/evaluation.md
python benchmarks/evaluation.py memorisation --trials 4 --pool 60 --numbers 20 8 15
python benchmarks/evaluation.py report --work FOLDER

Prints one JSON object on stdout; progress goes to stderr.

pairs: the paper's protocol on a data set of the paper's size. For each metric: seconds for all pairs that the
protocol draws (210 x 100 real-synthetic pairs, 210 x 10 within each set for MS-SSIM) by `Metric.on_pairs`;
times_faster, per pair, than the definition (tests/oracles/similarity.py), one pair at a time as the published
notebooks do, for a few of them in the same run; and the greatest difference of the two. Scans are blurred noise:
speed does not depend on what they show.

memorisation: are copies caught, and are sound cohorts left alone? Each trial deals phantom animals of
32 x 32 x 20 voxels out anew as training, held out and "synthetic" ones. Sound cohorts are the other animals, as
they are and as a generator might make them (blurred, less varied, noisier), and draws from the training scans'
principal components. Then copies of training scans are planted, one of each kind and trial, and repetitions.
Reported are how many sound cohorts have scans that are taken for copies or repetitions, how often each kind of
copy is caught, how many different scans are counted, how often the p of `closer` is below 0.05, how often the p of
a sound scan is (ideally as often as p says), and CPU seconds.

report: size of a large study's group report, and seconds to compute, to write and to open it. Phantom heads take
the place of the paper's data set (105 animals, two sessions each, 64 x 64 x 40 voxels) and of each model's
cohort, with their true tissues for masks; quality measures and losses are random numbers, for the page has as
many of them whatever they say. Evaluation and report are the app's own steps. Where there is Chromium, the page is
opened in it three times, beside an empty page.
"""

import argparse
import json
import os
import statistics
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import nibabel as nib
import numpy as np
import torch
from scipy import ndimage
from torch import Tensor
from torch.nn import functional as F

sys.path.append(str(Path(__file__).parents[1] / "tests"))
import browser
from oracles.similarity import DEFINITIONS

from bids_alphagan.bids.derivatives import (
    SYNTHESIS_RECORD,
    cohort_folder,
    describe_output,
    synthetic_name,
    write_masks,
    write_prepared,
    write_scan,
)
from bids_alphagan.bids.names import ScanName, uri
from bids_alphagan.bids.study import Study
from bids_alphagan.common.files import write_json, write_tsv
from bids_alphagan.common.process.threads import use_threads
from bids_alphagan.common.volume import conform, with_header
from bids_alphagan.config import Config
from bids_alphagan.evaluation.memorisation.cohort import find_copies
from bids_alphagan.evaluation.memorisation.measures import RealScans
from bids_alphagan.evaluation.pairs.metrics import METRICS, Metric
from bids_alphagan.evaluation.pairs.table import draw_pairs
from bids_alphagan.group import ledger
from bids_alphagan.group.evaluate import Evaluate
from bids_alphagan.group.report import PAGE, Report
from bids_alphagan.models import load_model
from bids_alphagan.phantom import acquisition
from bids_alphagan.phantom.anatomy import head
from bids_alphagan.phantom.animal import draw_animal, draw_pose
from bids_alphagan.phantom.dataset import segment
from bids_alphagan.qc.measures import MEASURES
from bids_alphagan.training.configuration import configuration
from bids_alphagan.training.data import Volumes
from bids_alphagan.training.settings import TrainSettings


def say(line: Any) -> None:
    print(line, file=sys.stderr, flush=True)


# Pairs


def pairs(options: argparse.Namespace) -> dict[str, Any]:
    """Every metric on all pairs of the protocol, and on a few by its definition."""
    use_threads(options.threads)
    real, synthetic = (noise(options.n_scans, tuple(options.shape), seed) for seed in (1, 2))
    result: dict[str, Any] = {"threads": options.threads, "n_scans": options.n_scans, "shape": options.shape}
    with torch.inference_mode():
        for name, metric in METRICS.items():
            per_scan = options.msssim_pairs_per_scan if metric.within else options.pairs_per_scan
            result[name] = compare(metric, real, synthetic, per_scan, options.few)
            say(f"{name}: {result[name]}")
    result["seconds"] = round(sum(result[name]["seconds"] for name in METRICS), 2)
    return result


def noise(n: int, shape: tuple[int, ...], seed: int) -> Tensor:
    """(n, x, y, z) in [0, 1]: blurred noise."""
    values = torch.rand(n, 1, *shape, generator=torch.Generator().manual_seed(seed))
    return F.avg_pool3d(values, 5, 1, 2).squeeze(1)


def compare(metric: Metric, real: Tensor, synthetic: Tensor, per_scan: int, few: int) -> dict[str, Any]:
    """Seconds of one metric, together and pair by pair."""
    n, definition = len(real), DEFINITIONS[metric.name]
    sets = [(real, real), (synthetic, synthetic)] if metric.within else [(real, synthetic)]
    first, second = ([f"{name} {i}" for i in range(n)] for name in ("real", "synthetic"))
    drawn = draw_pairs(first, None if metric.within else second, n * per_scan, seed=0)
    indices = torch.from_numpy(drawn)
    start = time.perf_counter()
    values = [metric.on_pairs(a, b, indices) for a, b in sets]
    together = time.perf_counter() - start
    start = time.perf_counter()
    single = [definition(sets[0][0][i][None], sets[0][1][j][None]) for i, j in indices[:few]]
    alone = (time.perf_counter() - start) / len(single)
    count = len(indices) * len(sets)
    return {
        "pairs": count,
        "seconds": round(together, 3),
        "times_faster": round(alone / (together / count), 1),
        "greatest_difference": float((torch.cat(single) - values[0][: len(single)]).abs().max()),
    }


# Memorisation

SHAPE, ZOOMS = (32, 32, 20), (0.75, 0.75, 1.0)
FINEST = 0.5  # mm; the phantom's own 0.25 takes five times as long, for detail that no voxel shows

Change = Callable[[np.ndarray, np.random.Generator], np.ndarray]


def animals(numbers: range) -> tuple[np.ndarray, np.ndarray]:
    """Scans (n, x, y, z) in [0, 1] and tissue labels of the phantom animals with these numbers."""
    acquisition.FINEST, acquisition.LEAST = FINEST, 1
    scans, labels = [], []
    for number in numbers:
        rng = np.random.default_rng([7, number])
        animal = draw_animal(rng)
        scan = acquisition.acquire(head(), animal, draw_pose(rng, animal), rng, SHAPE, ZOOMS, volumes=4)
        image = scan.series.mean(axis=3)
        scans.append(np.clip(image / np.percentile(image, 99.5), 0, 1).astype(np.float32))
        labels.append(segment(scan.fractions)[0])
    return np.stack(scans), np.stack(labels)


def brain_of(labels: np.ndarray) -> np.ndarray:
    """Where most animals have brain, and one voxel around."""
    return ndimage.binary_dilation((labels > 0).mean(axis=0) > 0.5)


def turned(scan: np.ndarray, degrees: float, axes: tuple[int, int] = (0, 1)) -> np.ndarray:
    """Rotated in the plane of two axes (voxels taken for cubes, as they are in the axial plane)."""
    return ndimage.rotate(scan, degrees, axes=axes, reshape=False, order=1, mode="nearest")


def noisy(scan: np.ndarray, sd: float, rng: np.random.Generator) -> np.ndarray:
    """With Gaussian noise; intensities are in [0, 1]."""
    return scan + rng.normal(0, sd, scan.shape)


def enlarged(scan: np.ndarray, factor: float) -> np.ndarray:
    """As the augmentation of training enlarges scans, about the middle of the field of view."""
    middle = (np.array(scan.shape) - 1) / 2
    return ndimage.affine_transform(
        scan, np.eye(3) / factor, middle * (1 - 1 / factor), order=1, mode="nearest"
    )


def everything(scan: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Mirrored, turned twice, enlarged, blurred, with noise."""
    moved = enlarged(turned(turned(scan[::-1], 3), -3, (0, 2)), 1.05)
    return noisy(ndimage.gaussian_filter(moved, 0.5), 0.05, rng)


COPIES: dict[str, Change] = {
    "exact": lambda x, rng: x,
    "noise, sd 0.05": lambda x, rng: noisy(x, 0.05, rng),
    "noise, sd 0.1": lambda x, rng: noisy(x, 0.1, rng),
    "mirrored": lambda x, rng: x[::-1],
    "turned 3 degrees": lambda x, rng: turned(x, 3),
    "turned 5 degrees": lambda x, rng: turned(x, -5),
    "tilted 3 degrees": lambda x, rng: turned(x, 3, (1, 2)),
    "shifted by 2, -1, 1 voxels": lambda x, rng: ndimage.shift(x, (2, -1, 1), order=1, mode="nearest"),
    "enlarged by 5 %": lambda x, rng: enlarged(x, 1.05),
    "enlarged by 10 %": lambda x, rng: enlarged(x, 1.1),
    "blurred, sigma 1 voxel": lambda x, rng: ndimage.gaussian_filter(x, 1),
    "gamma 1.3": lambda x, rng: x**1.3,
    "mirrored, turned, tilted, enlarged by 5 %, blurred, noise": everything,
}


def sound_cohorts(scans: np.ndarray, training: np.ndarray, rng: np.random.Generator) -> dict[str, Any]:
    """Scans of other animals as a generator might make them, and draws that know the training set."""
    mean = training.mean(axis=0)
    flat = (training - mean).reshape(len(training), -1)
    _, lengths, directions = np.linalg.svd(flat, full_matrices=False)
    k = max(len(training) // 3, 2)
    weights = rng.normal(size=(len(scans), k)) * lengths[:k] / np.sqrt(len(training) - 1)
    return {
        "other animals": scans,
        "blurred, sigma 0.7": np.stack([ndimage.gaussian_filter(x, 0.7) for x in scans]),
        "blurred, sigma 1.2": np.stack([ndimage.gaussian_filter(x, 1.2) for x in scans]),
        "0.7 of the variety": mean + 0.7 * (scans - mean),
        "noise, sd 0.05": noisy(scans, 0.05, rng),
        "principal components": mean + (weights @ directions[:k]).reshape(scans.shape),
    }


def trial(
    scans: np.ndarray, labels: np.ndarray, n: tuple[int, int, int], seed: int
) -> tuple[dict[str, Any], list[float]]:
    """One deal: what was found in sound cohorts, which copies were caught, and sound scans' p-values."""
    rng = np.random.default_rng(seed)
    deal = rng.permutation(len(scans))[: sum(n)]
    training, held_out, others = np.split(scans[deal], np.cumsum(n)[:2])
    brain = brain_of(labels[deal[: n[0]]])
    real = RealScans.prepare(training, None, held_out, None, zooms=ZOOMS, brain=brain)
    row: dict[str, Any] = {"sound": {}, "caught": {}}
    p: list[float] = []
    for name, cohort in sound_cohorts(others, training, rng).items():
        found = find_copies(np.asarray(cohort, np.float32), real, seed=seed)
        row["sound"][name] = {"copies": found.copies, "repetitions": len(found.repetitions), "p": found.p}
        p += [match.p for match in found.matches]
    for name, change in COPIES.items():  # one copy among sound scans, the hardest to convict
        origin = int(rng.integers(n[0]))
        cohort = np.stack([*others[:-1], change(training[origin], rng)]).astype(np.float32)
        last = find_copies(cohort, real, permutations=0).matches[-1]
        row["caught"][name] = bool(last.copy and last.training == origin)
    twice = np.stack([*others[:-1], turned(noisy(others[0], 0.03, rng), 2)]).astype(np.float32)
    one = np.stack([noisy(others[0], 0.03, rng) for _ in others]).astype(np.float32)
    cohorts = {"sound": others, "one_twice": twice, "one_for_all": one}
    row["distinct"] = {
        name: find_copies(cohort, real, permutations=0).distinct for name, cohort in cohorts.items()
    }
    return row, p


def summary(rows: list[dict[str, Any]], p: list[float], n: tuple[int, int, int]) -> dict[str, Any]:
    """The rows added up."""
    sound = {}
    for name in rows[0]["sound"]:
        mine = [row["sound"][name] for row in rows]
        sound[name] = {
            "cohorts": len(mine),
            "scans": len(mine) * n[2],
            "cohorts_with_copies": sum(m["copies"] > 0 for m in mine),
            "cohorts_with_repetitions": sum(m["repetitions"] > 0 for m in mine),
            "closer_p_below_0.05": sum(m["p"] < 0.05 for m in mine),
        }
    caught = Counter(name for row in rows for name, yes in row["caught"].items() if yes)
    return {
        "training_held_out_synthetic": n,
        "sound": sound,
        "caught": {name: caught[name] for name in COPIES},
        "distinct": {name: [row["distinct"][name] for row in rows] for name in rows[0]["distinct"]},
        "share_of_sound_scans_with_p_below": {
            str(x): float(np.mean(np.array(p) < x)) for x in (0.1, 0.01, 1e-3)
        },
    }


def memorisation(options: argparse.Namespace) -> dict[str, Any]:
    """Sound cohorts and planted copies, in so many deals."""
    use_threads(1)
    numbers = tuple(options.numbers)
    scans, labels = animals(range(max(options.pool, sum(numbers))))
    began, rows, p = time.process_time(), [], []
    for seed in range(options.trials):
        row, values = trial(scans, labels, numbers, seed)
        rows.append(row)
        p += values
        say(row)
    seconds = round(time.process_time() - began, 1)
    return summary(rows, p, numbers) | {"trials": options.trials, "cpu_seconds": seconds}


# Report

MODEL_ORDER = ("sigmarat2", "sigmarat1", "adni")
ROWS = 20_000  # of losses.tsv: 200 000 iterations, each tenth written
EMPTY = "<!doctype html><title>empty</title><p>Nothing."
PAINTED = "new Promise(r => requestAnimationFrame(() => requestAnimationFrame(() => r(performance.now()))))"


class Field(NamedTuple):
    """What is scanned: voxels, their size in mm, and the edge of the networks' cube."""

    shape: tuple[int, int, int]
    zooms: tuple[float, float, float]
    grid: int

    @classmethod
    def of(cls, grid: int) -> "Field":
        """24 x 24 x 20 mm in grid x grid x 5/8 grid voxels: 64 gives the paper's."""
        return cls((grid, grid, grid * 5 // 8), (24 / grid, 24 / grid, 32 / grid), grid)

    def image(self, scan: np.ndarray) -> nib.Nifti1Image:
        made = nib.Nifti1Image(scan, acquisition.scan_affine(self.shape, self.zooms))
        made.header.set_xyzt_units("mm", "sec")
        return made

    def draw(self, number: int, session: int) -> tuple[np.ndarray, dict[str, np.ndarray]]:
        """A phantom scan and its masks; `number` seeds the animal, `session` the pose."""
        animal = draw_animal(np.random.default_rng([17, number]))
        rng = np.random.default_rng([18, number, session])
        pose = draw_pose(rng, animal)
        made = acquisition.acquire(head(), animal, pose, rng, self.shape, self.zooms, volumes=1)
        dseg, brain = segment(made.fractions)
        maps = dict(zip(("GM", "WM", "CSF"), made.fractions, strict=True))
        return made.series[..., 0].astype(np.float32), {**maps, "dseg": dseg, "brain": brain > 0}


def random_measures(*seed: int) -> dict[str, float]:
    """Random numbers for the quality measures, all sound."""
    return dict(zip(MEASURES, np.random.default_rng(seed).normal(1, 0.05, len(MEASURES)), strict=True))


def real(root: Path, field: Field, number: int, session: int) -> None:
    """Write a prepared scan as the participant level does."""
    scan, maps = field.draw(number, session)
    name = ScanName((("sub", f"{number:03d}"), ("ses", str(session))), "T2w")
    raw = field.image(scan)
    made = conform(raw, field.grid, 100.0)
    cube = nib.Nifti1Image(made.data, made.affine)
    write_prepared(root, name, raw, uri(name.image(), "raw"), scan, cube, made.record, {})
    write_masks(root, name, raw, maps, uri(name.image("reference")), {}, random_measures(number, session))


def synthetic(root: Path, field: Field, model: str, index: int) -> dict[str, Any]:
    """Write a scan of a cohort as the group level does; what its draw's record says."""
    seed = 1000 * (1 + MODEL_ORDER.index(model)) + index
    scan, maps = field.draw(seed, 0)
    folder, name = cohort_folder(root, model), synthetic_name(index, ScanName((("sub", "00"),), "T2w"))
    like = field.image(scan)
    write_scan(folder, name.image(), with_header(scan, like), "Synthetic", [], {"RandomSeed": seed})
    write_masks(folder, name, like, maps, uri(name.image()), {}, {}, desc="synthetic")
    facts = {"draw": 1, "passed": True, "seed": seed, "reasons": [], "measures": random_measures(seed)}
    return {"scan": name.subject, **facts}


def trained(study: Study, field: Field, model: str, draws: Sequence[Mapping[str, Any]], seed: int) -> None:
    """Write what training and synthesis leave of a model: settings, losses, samples, record."""
    folder, rng = study.model_folder(model), np.random.default_rng(0)
    volumes = Volumes.of(np.zeros((2, 1, *[field.grid] * 3), np.float32))
    write_json(folder / "config.json", configuration(volumes, load_model(model), TrainSettings()))
    terms = ("generator_loss", "discriminator_loss", "code_discriminator_loss")
    losses = rng.normal(size=(ROWS, len(terms)))
    rows = ({"step": 10 * i, **dict(zip(terms, row, strict=True))} for i, row in enumerate(losses, start=1))
    write_tsv(folder / "losses.tsv", list(rows))
    (folder / "samples").mkdir()
    for step in range(20_000, 200_001, 20_000):
        images = [field.image(field.draw(step + i, 0)[0]) for i in range(2)]
        scans = np.stack([conform(image, field.grid, 100.0).data for image in images])
        np.save(folder / "samples" / f"step-{step}.npy", scans.astype(np.float16))
    facts = {"n_accepted": len(draws), "n_rejected": 0, "step": 200_000, "gate_width": 5.0, "masks": None}
    record = {**facts, **ledger.origin(study, model, seed), "draws": list(draws)}
    write_json(folder / SYNTHESIS_RECORD, {"fingerprint": "", "record": record})


def opened(page: Path, times: int = 3) -> tuple[float, float] | None:
    """Median seconds until Chromium, running, has loaded and painted the page, and an empty one; None without it."""
    if not browser.PROGRAM:
        return None
    seconds: dict[Path, list[float]] = {}
    with tempfile.TemporaryDirectory() as name, browser.chromium(Path(name, "profile")) as chromium:
        empty = Path(name, "empty.html")
        empty.write_text(EMPTY)
        for _ in range(times):
            for each in (page, empty):
                tab = chromium.tab(each)
                seconds.setdefault(each, []).append(tab.js(PAINTED) / 1000)
                tab.close()
    return statistics.median(seconds[page]), statistics.median(seconds[empty])


def report(options: argparse.Namespace) -> dict[str, Any]:
    """A study of phantom heads, evaluated and reported."""
    root, models, field = options.work / "out", MODEL_ORDER[: options.n_models], Field.of(options.grid)
    root.mkdir(parents=True)
    describe_output(root, options.work / "raw")
    with ProcessPoolExecutor(options.processes) as pool:
        sessions = [pool.submit(real, root, field, i, s) for i in range(options.n_animals) for s in (1, 2)]
        numbers = range(1, options.n_synthetic + 1)
        cohorts = {model: list(pool.map(partial(synthetic, root, field, model), numbers)) for model in models}
        for job in sessions:
            job.result()
    say("the heads are made")
    config = Config(
        bids_dir=options.work / "raw",
        output_dir=root,
        analysis_level="group",
        grid=field.grid,
        device="cpu",
        model=list(models),
        steps=["evaluate", "report"],
    )
    study = Study.open(
        config.bids_dir, root, config.work, config.selection, config.held_out_share, grid=field.grid
    )
    for model, draws in cohorts.items():
        trained(study, field, model, draws, config.seed)
    seconds = {}
    for step in (Evaluate.with_options(config), Report.with_options(config)):
        start = time.perf_counter()
        step.run(study)
        seconds[step.name] = round(time.perf_counter() - start, 1)
        say(f"{step.name}: {seconds[step.name]} s")
    if times := opened(root / PAGE):
        seconds |= {"opening": round(times[0], 2), "opening_an_empty_page": round(times[1], 2)}
    return {
        "real_scans": 2 * options.n_animals,
        "models": len(models),
        "synthetic_scans": options.n_synthetic,
        "mb": round((root / PAGE).stat().st_size / 1e6, 2),
        "seconds": seconds,
    }


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    one = commands.add_parser("pairs", help="how fast pairs of scans are compared")
    one.add_argument("--n-scans", type=int, default=210, metavar="N")
    one.add_argument("--shape", type=int, nargs=3, default=(64, 64, 40), metavar=("X", "Y", "Z"))
    one.add_argument("--pairs-per-scan", type=int, default=100, metavar="N")
    one.add_argument("--msssim-pairs-per-scan", type=int, default=10, metavar="N")
    one.add_argument("--few", type=int, default=40, metavar="N", help="pairs that are done one at a time")
    one.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)), metavar="N")
    two = commands.add_parser("memorisation", help="whether copies are caught")
    two.add_argument("--trials", type=int, default=8, metavar="N")
    two.add_argument("--pool", type=int, default=120, metavar="N", help="phantom animals to deal out")
    two.add_argument("--numbers", type=int, nargs=3, default=(40, 10, 30), metavar="N",
                     help="training, held-out and synthetic scans of a trial")  # fmt: skip
    three = commands.add_parser("report", help="a large study's group report")
    three.add_argument("--work", type=Path, required=True, metavar="FOLDER", help="a new folder, which stays")
    three.add_argument("--n-animals", type=int, default=105, metavar="N", help="two sessions each")
    three.add_argument("--n-synthetic", type=int, default=500, metavar="N", help="scans of each model")
    three.add_argument("--n-models", type=int, default=1, choices=(1, 2, 3))
    three.add_argument("--grid", type=int, default=64, metavar="N", help="of the scans and the networks")
    three.add_argument("--processes", type=int, default=2, metavar="N", help="that make heads")
    return parser.parse_args()


def main() -> None:
    """Measure and print."""
    options = arguments()
    measure = {"pairs": pairs, "memorisation": memorisation, "report": report}[options.command]
    print(json.dumps(measure(options), indent=1))


if __name__ == "__main__":
    main()
