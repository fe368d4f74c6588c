"""Which animals the models learn from, and which are held out, so that no model has seen them."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

from bids_alphagan.bids.prepared import PreparedScan

FEWEST = 4  # animals; of fewer, none is held out


@dataclass(frozen=True)
class Split:
    """The scans that models are trained on, and those of the animals that are held out."""

    training: list[PreparedScan]
    held_out: list[PreparedScan]

    @property
    def scans(self) -> list[PreparedScan]:
        """All of them, in the order of their names."""
        return sorted([*self.training, *self.held_out], key=lambda scan: scan.preproc)


def animals_of(scans: Sequence[PreparedScan]) -> list[str]:
    """The animal of each scan."""
    return [scan.name.subject for scan in scans]


def split(scans: Sequence[PreparedScan], share: float) -> Split:
    """Hold out this share of the animals: see `drawn`."""
    held = drawn(animals_of(scans), share)
    return Split(
        [scan for scan in scans if scan.name.subject not in held],
        [scan for scan in scans if scan.name.subject in held],
    )


def drawn(animals: Sequence[str], share: float) -> set[str]:
    """The animals that are held out: that share of them, at least one; none of fewer than FEWEST, or for 0.

    The digests of the labels order them, and no seed: all models of a data set see the same animals, whenever
    they are trained, and an animal that joins it moves few others to the other side.
    """
    labels = set(animals)
    if share == 0 or len(labels) < FEWEST:
        return set()
    order = sorted(labels, key=lambda label: hashlib.sha256(label.encode()).digest())
    return set(order[: max(1, round(share * len(labels)))])
