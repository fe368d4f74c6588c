"""A study: one output folder with its prepared scans, their split, the cohorts, and a fingerprint of each file."""

import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from bids_alphagan.bids.derivatives import cohort_folder, describe_output, model_folder
from bids_alphagan.bids.names import ScanName
from bids_alphagan.bids.prepared import PreparedScan, prepared_scans, scan_masks, synthetic_scans
from bids_alphagan.bids.selection import Selection
from bids_alphagan.bids.split import FEWEST, Split, animals_of, split
from bids_alphagan.common.files import digest, file_digest, write_json, write_tsv

log = logging.getLogger(__name__)

SPLIT_TABLE = "group_split.tsv"
_SPLIT_COLUMNS = {
    "participant_id": {"Description": "The animal; all of its sessions are on one side."},
    "split": {
        "Description": "What the animal is for. The labels decide, --held-out says how many.",
        "Levels": {
            "training": "the models learn from its scans, and the limits of quality control come from them",
            "held-out": "no model has seen it: synthetic scans are compared with its scans",
        },
    },
    "n_scans": {"LongName": "Number of scans", "Description": "How many scans of the animal are prepared."},
}


@dataclass
class Study:
    """What the group level works on: all of it read once, and each file hashed once.

    grid, intensity_percentile: of the scans' preparation. cohorts: the folder of each model whose synthetic
    scans belong to today's generators, scans and seed; None until the ledger has looked (`group.ledger`).
    """

    bids_dir: Path
    output_dir: Path
    work_dir: Path
    split: Split
    held_out_share: float
    grid: int
    intensity_percentile: float = 100.0
    cohorts: dict[str, Path] | None = None
    _digests: dict[Path, tuple[tuple[int, ...], str]] = field(default_factory=dict, repr=False)

    @classmethod
    def open(
        cls,
        bids_dir: Path,
        output_dir: Path,
        work_dir: Path,
        selection: Selection,
        held_out_share: float,
        *,
        grid: int,
        intensity_percentile: float = 100.0,
    ) -> "Study":
        """Read what the participant level left. Touches nothing; UserError as of `prepared_scans`."""
        scans = prepared_scans(bids_dir, output_dir, selection, grid)
        sides = split(scans, held_out_share)
        return cls(bids_dir, output_dir, work_dir, sides, held_out_share, grid, intensity_percentile)

    @property
    def training(self) -> list[PreparedScan]:
        """The scans that models learn from."""
        return self.split.training

    @property
    def held_out(self) -> list[PreparedScan]:
        """The scans of the animals that no model sees."""
        return self.split.held_out

    @cached_property
    def scans(self) -> list[PreparedScan]:
        """All prepared scans, in the order of their names."""
        return self.split.scans

    def model_folder(self, model: str) -> Path:
        """Where the training run of a model lives."""
        return model_folder(self.output_dir, model)

    def cohort_folder(self, model: str) -> Path:
        """Where the synthetic cohort of a model lives."""
        return cohort_folder(self.output_dir, model)

    def record_file(self, name: str) -> Path:
        """The JSON file in models/ that says how a result of the group level was made."""
        return self.output_dir / "models" / name

    def digest(self, path: Path) -> str:
        """SHA-256 of a file's bytes, computed once unless the file changes."""
        facts = path.stat()
        key = (facts.st_ino, facts.st_size, facts.st_mtime_ns, facts.st_ctime_ns)
        if self._digests.get(path, ((), ""))[0] != key:
            self._digests[path] = key, file_digest(path)
        return self._digests[path][1]

    def write(self) -> None:
        """Describe the output as a data set, and write group_split.tsv and .json."""
        describe_output(self.output_dir, self.bids_dir)
        if self.held_out:
            labels = list(dict.fromkeys(animals_of(self.held_out)))
            more = f" and {len(labels) - 5} more" if len(labels) > 5 else ""
            log.info("held out, so that no model sees them: %s%s", ", ".join(labels[:5]), more)
        elif self.held_out_share:
            log.warning(
                "Of fewer than %d animals none is held out: synthetic scans are compared with the scans that "
                "the models learn from, and a model that copies them scores best.",
                FEWEST,
            )
        rows = [
            {"participant_id": f"sub-{animal}", "split": side, "n_scans": animals_of(scans).count(animal)}
            for side, scans in {"training": self.training, "held-out": self.held_out}.items()
            for animal in dict.fromkeys(animals_of(scans))
        ]
        table = self.output_dir / SPLIT_TABLE
        write_tsv(table, sorted(rows, key=lambda row: str(row["participant_id"])))
        write_json(table.with_suffix(".json"), _SPLIT_COLUMNS)

    def contents(self, cohorts: Mapping[str, Path]) -> dict[str, str]:
        """Digests of all that results of the group level are made from, by what is read.

        compared: the real scans and the cohorts' scans. masks: their tissue labels and brain masks.
        content: the scans and their tissue labels.
        """
        synthetic = {model: synthetic_scans(folder) for model, folder in cohorts.items()}
        real = {scan.name.stem: self.digest(scan.preproc) for scan in self.scans}
        compared = digest([real, self._by_name(synthetic)])
        real_masks = [
            self.digest(scan.masks[key])
            for scan in self.scans
            for key in ("dseg", "brain")
            if key in scan.masks
        ]
        drawn_masks = {
            model: self._all(sorted(folder.glob("sub-*/*/*_dseg.nii.gz")))
            for model, folder in cohorts.items()
        }
        labels = {scan.name.stem: scan.masks["dseg"] for scan in self.scans if "dseg" in scan.masks}
        for model, paths in synthetic.items():
            for path in paths:
                masks = scan_masks(cohorts[model], ScanName.parse(path.name), "synthetic")
                labels |= {f"{model}/{path.name}": masks["dseg"]} if "dseg" in masks else {}
        known = {name: self.digest(path) for name, path in labels.items()}
        return {
            "compared": compared,
            "masks": digest([real_masks, drawn_masks]),
            "content": digest([compared, known]),
        }

    def _by_name(self, synthetic: Mapping[str, Sequence[Path]]) -> dict[str, Any]:
        return {model: {path.name: self.digest(path) for path in paths} for model, paths in synthetic.items()}

    def _all(self, paths: Iterable[Path]) -> list[str]:
        return [self.digest(path) for path in paths]
