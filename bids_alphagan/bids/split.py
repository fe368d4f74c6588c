"""Which animals the models learn from, and which are held out, so that no model has seen them."""

import hashlib
import logging
from collections.abc import Sequence
from dataclasses import dataclass

from bids_alphagan.bids.prepared import PreparedScan
from bids_alphagan.common.files import write_json, write_tsv
from bids_alphagan.config import Config

log = logging.getLogger(__name__)

FEWEST = 4  # animals; of fewer, none is held out
TABLE = "group_split.tsv"
_COLUMNS = {
    "participant_id": {"Description": "The animal; all of its sessions are on one side."},
    "split": {
        "Description": "What the animal is for. The labels decide, --held-out says how many.",
        "Levels": {
            "training": "the models learn from its scans, and the gate's limits come from them",
            "held-out": "no model has seen it: synthetic scans are compared with its scans",
        },
    },
    "n_scans": {"LongName": "Number of scans", "Description": "How many scans of the animal are prepared."},
}


@dataclass(frozen=True)
class Split:
    """The scans that models are trained on, and those of the animals that are held out."""

    training: list[PreparedScan]
    held_out: list[PreparedScan]

    @property
    def scans(self) -> list[PreparedScan]:
        """All of them, in the order of their names."""
        return sorted([*self.training, *self.held_out], key=lambda scan: scan.preproc)

    def record(self, config: Config) -> None:
        """Write group_split.tsv and .json, and say in the log who is held out."""
        sides = {"training": self.training, "held-out": self.held_out}
        if self.held_out:
            labels = list(dict.fromkeys(animals_of(self.held_out)))
            told = ", ".join(labels[:5]) + (f" and {len(labels) - 5} more" if len(labels) > 5 else "")
            log.info("held out, so that no model sees them: %s", told)
        elif config.held_out_share:
            log.warning(
                "Of fewer than %d animals none is held out: synthetic scans are compared with the scans that "
                "the models learn from, which a model that copies them passes best.",
                FEWEST,
            )
        rows = [
            {"participant_id": f"sub-{animal}", "split": side, "n_scans": animals_of(scans).count(animal)}
            for side, scans in sides.items()
            for animal in dict.fromkeys(animals_of(scans))
        ]
        table = config.output_dir / TABLE
        write_tsv(table, sorted(rows, key=lambda row: str(row["participant_id"])))
        write_json(table.with_suffix(".json"), _COLUMNS)


def animals_of(scans: Sequence[PreparedScan]) -> list[str]:
    """The animal of each scan."""
    return [scan.name.subject for scan in scans]


def split(config: Config, scans: Sequence[PreparedScan]) -> Split:
    """Hold out `config.held_out_share` of the animals: see `drawn`."""
    held = drawn(animals_of(scans), config.held_out_share)
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
