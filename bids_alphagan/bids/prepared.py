"""What is in an output folder: prepared scans, with which the group level begins, and synthetic ones."""

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bids_alphagan.bids.names import SUFFIXES, ScanName, require_known, sidecar
from bids_alphagan.common.errors import ScanError, UserError
from bids_alphagan.common.files import digest, file_digest, read_json
from bids_alphagan.common.volume import read_reference
from bids_alphagan.config import Config


@dataclass(frozen=True)
class PreparedScan:
    """A scan as the participant level left it.

    record: `volume.Conformed.record`. segmentation: how its masks were made, as `Segmenter.describe`.
    """

    name: ScanName
    reference: Path
    preproc: Path
    masks: dict[str, Path]
    record: dict[str, Any]
    quality: dict[str, float]
    segmentation: dict[str, Any] = field(default_factory=dict)


def prepared_scans(config: Config) -> list[PreparedScan]:
    """What the participant level left in output_dir, as far as the labels and suffixes select it.

    Raises
    ------
    UserError: nothing there (says which command makes it), several kinds of scan, grids that disagree.
    """
    there = _preprocs(config.output_dir, "*")
    for word, key, wanted in _selection(config) if there else []:
        known = {value for name in there.values() for entity, value in name.entities if entity == key}
        require_known(word, wanted or [], sorted(known))
    found = [_prepared(config.output_dir, path) for path, name in there.items() if _selected(name, config)]
    if not found:
        command = shlex.join(["bids-alphagan", str(config.bids_dir), str(config.output_dir), "participant"])
        raise UserError(
            f"{config.output_dir}: no participant outputs fit the selection. Make them first, with the same "
            f"--preset and --template: {command}"
        )
    kinds = sorted({scan.name.suffix for scan in found})
    if len(kinds) > 1:
        raise UserError(
            f"{config.output_dir} holds scans of several kinds ({', '.join(kinds)}), and a model learns one. "
            f"Choose with --suffix {kinds[0]}"
        )
    for scan in found:
        grid = scan.record["PaddedGrid"][0]
        if grid != config.grid:
            raise UserError(
                f"{scan.preproc} was prepared on a grid of {grid} voxels, not {config.grid}. Give the group "
                f"level the --preset or --grid of the participant level, or run participant again."
            )
    return found


def subject_scans(output_dir: Path, subject: str) -> list[PreparedScan]:
    """All scans of one participant that are prepared."""
    return [_prepared(output_dir, path) for path in _preprocs(output_dir, subject)]


def _preprocs(output_dir: Path, subject: str) -> dict[Path, ScanName]:
    found = sorted(output_dir.glob(f"sub-{subject}/**/sub-{subject}_*desc-preproc_*.nii.gz"))
    return {path: ScanName.parse(path.name) for path in found}


def _selection(config: Config) -> list[tuple[str, str, list[str] | None]]:
    """The labels that were asked for: what they label, the entity, the labels."""
    return [
        ("participant", "sub", config.participant_label),
        ("session", "ses", config.session_label),
        ("task", "task", config.task_id),
    ]


def _selected(name: ScanName, config: Config) -> bool:
    entities = dict(name.entities)
    timeless = name.datatype == "anat"  # an anatomical scan belongs to no task
    return name.suffix in config.suffix and all(
        not some or entities.get(key) in some or (key == "task" and timeless)
        for _, key, some in _selection(config)
    )


def _prepared(root: Path, preproc: Path) -> PreparedScan:
    parsed = ScanName.parse(preproc.name)
    name = parsed.without("desc")
    masks = scan_masks(root, name)
    try:
        facts = read_json(sidecar(masks["dseg"])) if "dseg" in masks else {}
        quality = facts["Quality"] if facts else {}
        record = read_json(sidecar(preproc))["Preparation"]
    except (OSError, ValueError, KeyError) as error:
        raise UserError(
            f"{preproc}: its sidecars do not say how it was prepared ({type(error).__name__}: {error}). "
            "OUTPUT_DIR must be the participant level's; run participant again where they were damaged."
        ) from error
    made = facts.get("Segmentation", {})
    return PreparedScan(name, root / name.image("reference"), preproc, masks, record, quality, made)


def scan_masks(root: Path, name: ScanName, desc: str | None = None) -> dict[str, Path]:
    """Those masks of a scan that are there, by "GM", "WM", "CSF", "dseg" and "brain"."""
    return {key: root / path for key, path in name.masks(desc).items() if (root / path).is_file()}


def synthetic_scans(cohort: Path) -> list[Path]:
    """The scans (not the masks) of a cohort, in order."""
    return [path for path in sorted(cohort.glob("sub-*/*/sub-*.nii.gz")) if _is_scan(path)]


def check_synthetic(cohorts: Mapping[str, Path]) -> None:
    """Raise UserError, naming every one, where synthetic scans are damaged: before any is looked at.

    None is left out: a cohort with fewer scans is another one than its sidecars and tables tell of, and the
    same scans can be drawn again.
    """
    for model, place in cohorts.items():
        damaged = []
        for path in synthetic_scans(place):
            try:
                read_reference(path)
            except ScanError as error:
                damaged.append(str(error))
        if damaged:
            more = f" And {len(damaged) - 3} more." if len(damaged) > 3 else ""
            raise UserError(
                f"{len(damaged)} synthetic scan{'s' if len(damaged) > 1 else ''} of {model} cannot be used. "
                f"{' '.join(damaged[:3])}{more} To draw the same scans again, remove the folder {place} and "
                "run --steps synthesise with the options of then. If they come back like this, the model "
                "makes them so: train it anew."
            )


def compared(scans: Sequence[PreparedScan], synthetic: Mapping[str, Sequence[Path]]) -> str:
    """A digest of the scans that group_metrics.tsv compares: the real ones, and each model's."""
    real = {scan.name.stem: file_digest(scan.preproc) for scan in scans}
    drawn = {model: {path.name: file_digest(path) for path in paths} for model, paths in synthetic.items()}
    return digest([real, drawn])


def segmented(scans: Sequence[PreparedScan], cohorts: Mapping[str, Path]) -> str:
    """A digest of all that the downstream experiment reads: the scans of `compared`, and their labels."""
    synthetic = {model: synthetic_scans(place) for model, place in cohorts.items()}
    labels = {scan.name.stem: scan.masks["dseg"] for scan in scans if "dseg" in scan.masks}
    for model, paths in synthetic.items():
        for path in paths:
            masks = scan_masks(cohorts[model], ScanName.parse(path.name), "synthetic")
            labels |= {f"{model}/{path.name}": masks["dseg"]} if "dseg" in masks else {}
    known = {name: file_digest(path) for name, path in labels.items()}
    return digest([compared(scans, synthetic), known])


def masks_compared(scans: Sequence[PreparedScan], cohorts: Mapping[str, Path]) -> str:
    """A digest of the masks of the real and the synthetic scans that statistics read."""
    keys = ("dseg", "brain")
    real = [file_digest(scan.masks[key]) for scan in scans for key in keys if key in scan.masks]
    made = {
        model: [file_digest(path) for path in sorted(place.glob("sub-*/*/*_dseg.nii.gz"))]
        for model, place in cohorts.items()
    }
    return digest([real, made])


def _is_scan(path: Path) -> bool:
    return ScanName.parse(path.name).suffix in SUFFIXES
