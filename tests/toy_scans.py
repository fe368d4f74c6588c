"""Scans of three tissues in noise, and quick settings, for the downstream experiment."""

from pathlib import Path

import numpy as np

from bids_alphagan.evaluation.downstream import experiment
from bids_alphagan.evaluation.downstream.arms import (
    Arm,
)
from bids_alphagan.evaluation.downstream.experiment import run
from bids_alphagan.evaluation.downstream.network import Settings
from bids_alphagan.evaluation.downstream.scans import Scan

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
LEARNING = Settings((Arm(1), Arm(1, 4)), *(40, 2, 2), channels=(4, 4), residual_units=0, learning_rate=3e-2)


def try_out(folder: Path, settings: Settings = QUICK, **other: object) -> experiment.Result:
    arguments = {"held_out": "efg", "trained_on": "abcd", **other}
    return run(REAL, SYNTHETIC, settings=settings, folder=folder, **arguments)
