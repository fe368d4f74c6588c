"""Are copies caught, and are sound cohorts left alone? Phantom animals of 32 x 32 x 20 voxels.

Each trial deals the animals out anew as training, held out and "synthetic" ones. Sound cohorts are the other
animals, as they are and as a generator might make them (blurred, less varied, noisier), and draws from the
training scans' principal components. Then copies of training scans are planted, one of each kind and trial,
and repetitions. Prints a line per trial and, as the last one, JSON: how many sound scans were taken for
copies or repetitions and in how many cohorts, how often each kind of copy was caught, how often `closer` was
below 0.05, p-values of all sound scans beside their ideal, and CPU seconds.

python benchmarks/memorisation.py
"""

import argparse
import json
import sys
import time
from collections import Counter
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from scipy import ndimage

from bids_alphagan.evaluation.memorisation.cohort import find_copies
from bids_alphagan.evaluation.memorisation.measures import RealScans
from bids_alphagan.phantom import acquisition
from bids_alphagan.phantom.anatomy import head
from bids_alphagan.phantom.animal import draw_animal, draw_pose
from bids_alphagan.phantom.dataset import segment

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
    row["distinct"] = [find_copies(x, real, permutations=0).distinct for x in (others, twice, one)]
    return row, p


def summary(rows: list[dict[str, Any]], p: list[float], n: tuple[int, int, int]) -> dict[str, Any]:
    """The rows added up."""
    sound = {}
    for name in rows[0]["sound"]:
        mine = [row["sound"][name] for row in rows]
        sound[name] = {
            "cohorts": len(mine),
            "scans": len(mine) * n[2],
            "cohorts with copies": sum(m["copies"] > 0 for m in mine),
            "cohorts with repetitions": sum(m["repetitions"] > 0 for m in mine),
            "closer, p < 0.05": sum(m["p"] < 0.05 for m in mine),
        }
    caught = Counter(name for row in rows for name, yes in row["caught"].items() if yes)
    return {
        "training, held out, synthetic": n,
        "sound": sound,
        "caught": {name: f"{caught[name]} of {len(rows)}" for name in COPIES},
        "different scans: sound, one twice, one for all": [row["distinct"] for row in rows],
        "share of sound scans with p below": {
            str(x): float(np.mean(np.array(p) < x)) for x in (0.1, 0.01, 1e-3)
        },
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--trials", type=int, default=8, metavar="N")
    parser.add_argument("--pool", type=int, default=120, metavar="N", help="phantom animals to deal out")
    parser.add_argument("--numbers", type=int, nargs=3, default=(40, 10, 30), metavar="N",
                        help="training, held-out and synthetic scans of a trial")  # fmt: skip
    options = parser.parse_args()
    torch.set_num_threads(1)
    numbers = tuple(options.numbers)
    scans, labels = animals(range(max(options.pool, sum(numbers))))
    began, rows, p = time.process_time(), [], []
    for seed in range(options.trials):
        row, values = trial(scans, labels, numbers, seed)
        rows.append(row)
        p += values
        print(row, file=sys.stderr, flush=True)
    seconds = round(time.process_time() - began, 1)
    print(json.dumps(summary(rows, p, numbers) | {"CPU seconds": seconds}))


if __name__ == "__main__":
    main()
