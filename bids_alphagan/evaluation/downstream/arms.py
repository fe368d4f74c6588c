"""The training sets of the segmentation networks: the arms of the experiment."""

import re
from collections.abc import Collection, Sequence
from contextlib import suppress
from typing import NamedTuple

import numpy as np

from bids_alphagan.common.errors import UserError
from bids_alphagan.evaluation.downstream import DEFAULT_ARMS

MIN_HELD_OUT = 2  # animals; one would say nothing about others
MIN_TRAINING = 2  # animals, so that half of them is one
_RATIOS = {0.5: "half as many", 1: "as many", 2: "twice as many"}
_SHARES = {0: "", 0.5: "half of the real scans", 1: "all real scans"}


class Arm(NamedTuple):
    """A training set.

    real: share of the real training animals. synthetic: number of synthetic scans per scan of all real training
    animals. augment: whether to use conventional augmentation.
    """

    real: float
    synthetic: float = 0
    augment: bool = False

    @property
    def name(self) -> str:
        """As in the tables: r1+s0.5 is the paper's r174 + s87; +a with augmentation."""
        parts = [f"{letter}{share:g}" for letter, share in (("r", self.real), ("s", self.synthetic)) if share]
        return "+".join([*parts, *(["a"] if self.augment else [])])

    @property
    def label(self) -> str:
        """In words: all real scans and synthetic scans (half as many as all real), augmented."""
        real = _SHARES.get(self.real, f"{self.real:.0%} of the real scans")
        how_many = _RATIOS.get(self.synthetic, f"{self.synthetic:g} times as many")
        synthetic = f"synthetic scans ({how_many} as all real)" if self.synthetic else ""
        words = " and ".join(filter(None, (real, synthetic))) or "nothing"
        return words + ("" if self.real else " alone") + (", augmented" if self.augment else "")


def read_arm(name: str) -> Arm:
    """The arm with this `Arm.name`. Raises UserError if there is none."""
    parts = re.fullmatch(r"(?:r([\d.]+))?\+?(?:s([\d.]+))?(\+a)?", name)
    with suppress(ValueError):  # not a number
        real, synthetic = (float(parts[i] or 0) for i in (1, 2)) if parts else (0.0, 0.0)
        arm = Arm(real, synthetic, bool(parts and parts[3]))
        if real <= 1 and (real or synthetic) and arm.name == name:
            return arm
    raise UserError(
        f"--downstream-arms {name}: is not a training set. Give r and the share of the real scans (up to "
        "1), s and the number of synthetic scans per real one, a for augmentation: r1, r0.5+s1, s2, r1+a ..."
    )


REAL_ALONE = Arm(1)
PAPER_TESTS = (  # tests 1 to 10 of Ferreira et al. 2022, table 4 (doi 10.3390/app12104844)
    REAL_ALONE,
    Arm(1, 0.5),
    Arm(1, 1),
    Arm(1, 1.5),
    Arm(1, 2),
    Arm(0, 1),
    Arm(0, 2),
    Arm(0.5, 1),
    Arm(0.5, 2),
    Arm(1, augment=True),
)
ARMS = tuple(map(read_arm, DEFAULT_ARMS))


def references(arms: Sequence[Arm]) -> list[tuple[Arm, Arm]]:
    """The comparisons: each arm with real scans alone, and with the same arm without synthetic scans."""
    pairs = []
    for arm in arms:
        without = arm._replace(synthetic=0)
        for other in dict.fromkeys((REAL_ALONE, without)):
            if other != arm and other in arms:
                pairs.append((arm, other))
    return pairs


def check_split(animals: Collection[str], held_out: Collection[str], trained_on: Collection[str]) -> None:
    """Raise UserError unless `held_out` can test an experiment with these real `animals`.

    trained_on: the animals whose scans the generator was trained on.
    """
    if unknown := sorted(set(held_out) - set(animals)):
        raise UserError(
            f"downstream: no real scan with masks of the held-out {_named(unknown)}. Run participant for "
            "these with --segmenter ants or spm, or leave them out with --participant-label."
        )
    if seen := sorted(set(held_out) & set(trained_on)):
        raise UserError(
            f"downstream: the generator was trained on held-out animals ({_named(seen)}), so a test on them "
            "proves nothing. Retrain it without them: --steps train synthesise downstream."
        )
    training = set(animals) - set(held_out)
    if len(set(held_out)) < MIN_HELD_OUT or len(training) < MIN_TRAINING:
        held, left = (f"{n} {'is' if n == 1 else 'are'}" for n in (len(set(held_out)), len(training)))
        raise UserError(
            f"downstream: of the animals with masks, {held} held out and {left} left for training; at least "
            f"{MIN_HELD_OUT} and {MIN_TRAINING} are needed. Use more animals, or change --held-out, for all steps: "
            "--steps train synthesise downstream."
        )


def _named(animals: Sequence[str]) -> str:
    return ", ".join(f"sub-{label}" for label in animals)


def possible(arms: Sequence[Arm], n_real: int, n_synthetic: int) -> tuple[list[Arm], dict[str, str]]:
    """The arms that these numbers of scans allow, and the reason for each other arm, by its name.

    n_real: scans of all real training animals.

    Raises UserError if no arm with synthetic scans remains.
    """
    needed = {arm: round(arm.synthetic * n_real) for arm in arms}
    kept = [arm for arm in arms if needed[arm] <= n_synthetic]
    there = "there is" if n_synthetic == 1 else "there are"
    left_out = {
        arm.name: f"needs {n} synthetic scans, but {there} {n_synthetic}"
        for arm, n in needed.items()
        if n > n_synthetic
    }
    if REAL_ALONE not in arms:
        raise ValueError("the arms lack real scans alone, with which the others are compared")
    if not any(arm.synthetic for arm in kept):
        least = min(n for arm, n in needed.items() if arm.synthetic)
        raise UserError(
            f"downstream: {there} {n_synthetic} synthetic scan{'' if n_synthetic == 1 else 's'} with masks, but "
            f"the smallest training set needs {least}. Draw more: --steps synthesise downstream --n-synthetic "
            f"{max(needed.values())}."
        )
    return kept, left_out


def choose(arm: Arm, animals: Sequence[str], n_synthetic: int, seed: int) -> tuple[list[int], list[int]]:
    """Draw an arm's training scans: indices into the real training scans and into the synthetic ones.

    animals: of each real training scan. Shares are of animals, because scans of one animal are similar.
    With the same seed, smaller shares are subsets of larger ones.
    """
    labels = sorted(set(animals))
    order = np.random.default_rng([seed, 0]).permutation(len(labels))
    n = max(1, round(arm.real * len(labels))) if arm.real else 0
    chosen = {labels[i] for i in order[:n]}
    real = [i for i, animal in enumerate(animals) if animal in chosen]
    drawn = np.random.default_rng([seed, 1]).permutation(n_synthetic)[: round(arm.synthetic * len(animals))]
    return real, sorted(int(i) for i in drawn)
