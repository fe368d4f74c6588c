"""The selection of scans for a run."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from bids_alphagan.bids.names import ScanName


@dataclass(frozen=True)
class Selection:
    """Labels without prefix (None: all), suffixes, and a JSON file of PyBIDS filters by suffix."""

    participants: Sequence[str] | None = None
    sessions: Sequence[str] | None = None
    tasks: Sequence[str] | None = None
    suffixes: Sequence[str] = ("bold", "T2w")
    filter_file: Path | None = None

    @property
    def labels(self) -> list[tuple[str, str, Sequence[str] | None]]:
        """For participants, sessions and tasks: the word for messages, the entity of file names, and the labels."""
        return [
            ("participant", "sub", self.participants),
            ("session", "ses", self.sessions),
            ("task", "task", self.tasks),
        ]

    def includes(self, name: ScanName) -> bool:
        """Whether a scan of this name is selected, not counting the filter file."""
        entities = dict(name.entities)
        without_task = name.datatype == "anat"  # an anatomical scan belongs to no task
        return name.suffix in self.suffixes and all(
            not labels or entities.get(key) in labels or (key == "task" and without_task)
            for _, key, labels in self.labels
        )
