"""What the downstream experiment says of generators whose worth is known, on phantom animals with true masks.

python benchmarks/downstream.py --arms r1 r1+s1                                      # docs/downstream.md
python benchmarks/downstream.py --n-real 2 --arms r1 r1+s4 --generators perfect copies blurred

"real" are phantom animals. Synthetic are, in turn: "perfect", other phantom animals, as a perfect generator
would draw them: the ceiling. "copies", the real training scans again. "blurred", those copies smoothed by a
Gaussian of --blur voxels, a poor generator. "noise", noise with shuffled labels. The held-out animals and the
networks' first weights are the same in all.

Prints one JSON object on stdout: for each generator, arm and tissue the mean Dice and surface distance (mm), the
gain with its interval, and whether it is resolved. The sentences go to stderr as they come.
"""

import argparse
import json
import logging
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from scipy import ndimage

from bids_alphagan.cli.main import parse
from bids_alphagan.config.training import PRESETS
from bids_alphagan.evaluation.downstream.arms import read_arm
from bids_alphagan.evaluation.downstream.experiment import run
from bids_alphagan.evaluation.downstream.scans import Scan
from bids_alphagan.evaluation.downstream.table import settings_of
from bids_alphagan.phantom.acquisition import acquire
from bids_alphagan.phantom.anatomy import head
from bids_alphagan.phantom.animal import draw_animal, draw_pose
from bids_alphagan.phantom.dataset import segment
from bids_alphagan.training.device import choose_device

SHAPE, ZOOMS = (32, 32, 20), (0.75, 0.75, 1.0)
MARGIN = 2  # voxels around the brains
GENERATORS = ("perfect", "copies", "blurred", "noise")


@cache
def phantom(number: int) -> tuple[np.ndarray, np.ndarray]:
    """A phantom animal's scan, [0, 1], and its true labels; `number` seeds all of it."""
    rng = np.random.default_rng([53, number])
    animal = draw_animal(rng)
    made = acquire(head(), animal, draw_pose(rng, animal), rng, SHAPE, ZOOMS, volumes=1)
    image = made.series[..., 0].astype(np.float32)
    return image / image.max(), segment(made.fractions)[0]


def phantom_scans(numbers: Iterable[int]) -> list[Scan]:
    """Phantom animals, cut to a box that holds all of their brains."""
    animals = [(f"{number:03d}", *phantom(number)) for number in numbers]
    where = np.argwhere(np.any([labels > 0 for _, _, labels in animals], axis=0))
    low, high = np.maximum(where.min(axis=0) - MARGIN, 0), where.max(axis=0) + 1 + MARGIN
    box = tuple(slice(a, b) for a, b in zip(low, high, strict=True))
    return [Scan(f"sub-{label}", label, image[box], labels[box], ZOOMS) for label, image, labels in animals]


def blurred(scan: Scan, sigma: float) -> Scan:
    """Smoothed by a Gaussian of `sigma` voxels, its labels as they were."""
    return scan._replace(image=ndimage.gaussian_filter(scan.image, sigma))


def noise(scan: Scan, seed: int) -> Scan:
    """Nothing of the scan but how many voxels each tissue has."""
    source = np.random.default_rng(seed)
    labels = source.permutation(scan.labels.ravel()).reshape(scan.labels.shape)
    return scan._replace(image=source.random(scan.image.shape, dtype=np.float32), labels=labels)


def generators(train: Sequence[Scan], others: Sequence[Scan], blur: float) -> dict[str, Callable[[], list]]:
    """The synthetic scans of each generator, as many as `others`."""
    copies = [train[i % len(train)] for i in range(len(others))]
    return {
        "perfect": lambda: list(others),
        "copies": lambda: copies,
        "blurred": lambda: [blurred(scan, blur) for scan in copies],
        "noise": lambda: [noise(scan, seed) for seed, scan in enumerate(copies)],
    }


def shown(row: dict[str, Any]) -> dict[str, Any]:
    keys = ("arm", "tissue", "measure", "mean", "compared_with", "gain", "gain_low", "gain_high")
    numbers = {k: round(v, 4) if isinstance(v := row[k], float) else v for k in keys}
    return {**numbers, "resolved": row["resolved"]}


def downstream(options: argparse.Namespace) -> dict[str, Any]:
    """The experiment with the synthetic scans of each generator."""
    config = parse([".", ".", "group", "--preset", options.preset])
    settings = settings_of(config.settings("downstream"))
    if options.arms != ["preset"]:
        settings = replace(settings, arms=tuple(map(read_arm, options.arms)))
    changed = {name: getattr(options, name) for name in ("seeds", "steps") if getattr(options, name)}
    settings, device = replace(settings, **changed), choose_device("auto")
    n_synthetic = round(max(arm.synthetic for arm in settings.arms) * options.n_real)
    scans = phantom_scans(range(options.n_real + options.n_test + n_synthetic))
    train, rest = scans[: options.n_real], scans[options.n_real :]
    test, others = rest[: options.n_test], rest[options.n_test :]
    held_out, trained_on = ({scan.animal for scan in which} for which in (test, train))
    result: dict[str, Any] = {"n_real": len(train), "n_test": len(test), "n_synthetic": n_synthetic}
    result |= {"steps": settings.steps, "seeds": settings.seeds, "device": device, "generators": {}}
    with tempfile.TemporaryDirectory() as scratch:
        folder = options.folder or Path(scratch)
        for name, make in generators(train, others, options.blur).items():
            if name in options.generators:
                began = time.perf_counter()
                found = run([*train, *test], make(), held_out, trained_on, settings, folder, 0, device)
                for sentence in found.sentences:
                    print(f"{name}: {sentence['text']}", file=sys.stderr, flush=True)
                rows = [shown(row) for row in found.summary]
                seconds = round(time.perf_counter() - began)
                result["generators"][name] = {"seconds": seconds, "rows": rows}
    return result


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--n-real", type=int, default=4, metavar="N", help="training animals")
    parser.add_argument("--n-test", type=int, default=8, metavar="N", help="held-out animals")
    parser.add_argument("--preset", choices=PRESETS, default="demo")
    parser.add_argument("--generators", nargs="+", choices=GENERATORS, default=list(GENERATORS))
    parser.add_argument("--arms", nargs="+", default=["r1", "r1+s1", "s1"], metavar="ARM",
                        help="r1+s0.5, s1, r1+a ..., or preset")  # fmt: skip
    parser.add_argument("--seeds", type=int, metavar="N", help="instead of the preset's")
    parser.add_argument("--steps", type=int, metavar="N", help="instead of the preset's")
    parser.add_argument("--blur", type=float, default=1.5, metavar="VOXELS")
    parser.add_argument("--folder", type=Path, help="goes on with what is there, and keeps it")
    logging.basicConfig(format="%(message)s", stream=sys.stderr)
    logging.getLogger("bids_alphagan").setLevel(logging.INFO)
    print(json.dumps(downstream(parser.parse_args()), indent=1))


if __name__ == "__main__":
    main()
