"""A study: one output folder with its prepared scans, their split, the cohorts, and the digest of each file."""

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
        "Description": "The use of the animal. Its label decides, and --held-out gives the share of held-out animals.",
        "Levels": {
            "training": "the models are trained on its scans, and the limits of quality control come from them",
            "held-out": "no model is trained on it; synthetic scans are compared with its scans",
        },
    },
    "n_scans": {"LongName": "Number of scans", "Description": "Number of prepared scans of the animal."},
}


@dataclass
class Study:
    """The data of the group level. Everything is read once, and each file is hashed once.

    grid, intensity_percentile: of the scans' preparation. cohorts: by model, the folders of the synthetic cohorts that
    match the current generators, scans and seed; None until the ledger sets them (`group.ledger`).
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
        """Read the outputs of the participant level. Writes nothing. Raises UserError as `prepared_scans` does."""
        scans = prepared_scans(bids_dir, output_dir, selection, grid)
        sides = split(scans, held_out_share)
        return cls(bids_dir, output_dir, work_dir, sides, held_out_share, grid, intensity_percentile)

    @property
    def training(self) -> list[PreparedScan]:
        """The scans that the models are trained on."""
        return self.split.training

    @property
    def held_out(self) -> list[PreparedScan]:
        """The scans of the held-out animals."""
        return self.split.held_out

    @cached_property
    def scans(self) -> list[PreparedScan]:
        """All prepared scans, sorted by path."""
        return self.split.scans

    def model_folder(self, model: str) -> Path:
        """The folder of a model's training run."""
        return model_folder(self.output_dir, model)

    def cohort_folder(self, model: str) -> Path:
        """The folder of a model's synthetic cohort."""
        return cohort_folder(self.output_dir, model)

    def record_file(self, name: str) -> Path:
        """The JSON file in models/ that records how a result of the group level was made."""
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
            log.info("held out from training: %s%s", ", ".join(labels[:5]), more)
        elif self.held_out_share:
            log.warning(
                "With fewer than %d animals none is held out: synthetic scans are compared with the training "
                "scans, and a model that copies them scores best.",
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
        """Digests of the inputs of the group level's results, by kind.

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
        label_digests = {name: self.digest(path) for name, path in labels.items()}
        return {
            "compared": compared,
            "masks": digest([real_masks, drawn_masks]),
            "content": digest([compared, label_digests]),
        }

    def _by_name(self, synthetic: Mapping[str, Sequence[Path]]) -> dict[str, Any]:
        return {model: {path.name: self.digest(path) for path in paths} for model, paths in synthetic.items()}

    def _all(self, paths: Iterable[Path]) -> list[str]:
        return [self.digest(path) for path in paths]
