"""The split of the animals into training and held-out animals."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

from bids_alphagan.bids.prepared import PreparedScan

FEWEST = 4  # animals; with fewer, none is held out


@dataclass(frozen=True)
class Split:
    """The scans of the training animals, and those of the held-out animals."""

    training: list[PreparedScan]
    held_out: list[PreparedScan]

    @property
    def scans(self) -> list[PreparedScan]:
        """All scans, sorted by path."""
        return sorted([*self.training, *self.held_out], key=lambda scan: scan.preproc)


def animals_of(scans: Sequence[PreparedScan]) -> list[str]:
    """The animal of each scan."""
    return [scan.name.subject for scan in scans]


def split(scans: Sequence[PreparedScan], share: float) -> Split:
    """Hold out this share, in [0, 1), of the animals: see `drawn`."""
    held = drawn(animals_of(scans), share)
    return Split(
        [scan for scan in scans if scan.name.subject not in held],
        [scan for scan in scans if scan.name.subject in held],
    )


def drawn(animals: Sequence[str], share: float) -> set[str]:
    """The held-out animals: that share of all, at least one; none if there are fewer than FEWEST, or the share is 0.

    The order of the labels' digests decides, not a seed: all models of a data set have the same split, whenever they
    are trained, and a new animal moves few others to the other side.
    """
    labels = set(animals)
    if share == 0 or len(labels) < FEWEST:
        return set()
    order = sorted(labels, key=lambda label: hashlib.sha256(label.encode()).digest())
    return set(order[: max(1, round(share * len(labels)))])
