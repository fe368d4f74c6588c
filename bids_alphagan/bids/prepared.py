"""The scans in an output folder: prepared scans, from which the group level starts, and synthetic ones."""

import logging
import shlex
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bids_alphagan.bids.names import SUFFIXES, ScanName, require_known, sidecar
from bids_alphagan.bids.selection import Selection
from bids_alphagan.common.errors import UserError
from bids_alphagan.common.files import read_json

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class PreparedScan:
    """A scan that the participant level prepared.

    record: `volume.Conformed.record`. quality: the QC measures of the masks' sidecar. segmentation: how its masks were
    made, see `Segmenter.describe`.
    """

    name: ScanName
    reference: Path
    preproc: Path
    masks: dict[str, Path]
    record: dict[str, Any]
    quality: dict[str, float]
    segmentation: dict[str, Any] = field(default_factory=dict)


def prepared_scans(bids_dir: Path, output_dir: Path, selection: Selection, grid: int) -> list[PreparedScan]:
    """The selected scans that the participant level prepared in output_dir.

    bids_dir: only for the command in a message.

    Raises
    ------
    UserError: no scans (the message gives the command that prepares them), several kinds of scan, another grid.
    """
    names = _preprocs(output_dir, "*")
    for word, key, labels in selection.labels if names else []:
        available = {value for name in names.values() for entity, value in name.entities if entity == key}
        require_known(word, labels or [], sorted(available))
    scans = [_prepared(output_dir, path) for path, name in names.items() if selection.includes(name)]
    if not scans:
        command = shlex.join(["bids-alphagan", str(bids_dir), str(output_dir), "participant"])
        raise UserError(
            f"{output_dir}: no participant outputs match the selection. Make them first, with the same "
            f"--preset and --template: {command}"
        )
    kinds = sorted({scan.name.suffix for scan in scans})
    if len(kinds) > 1:
        raise UserError(
            f"{output_dir} holds scans of several kinds ({', '.join(kinds)}), but a model learns one. "
            f"Choose with --suffix {kinds[0]}"
        )
    for scan in scans:
        prepared_on = scan.record["PaddedGrid"][0]
        if prepared_on != grid:
            raise UserError(
                f"{scan.preproc} was prepared on a grid of {prepared_on} voxels, not {grid}. Give the group "
                f"level the --preset or --grid of the participant level, or run participant again."
            )
    return scans


def warn_of_orientations(records: Mapping[str, Mapping[str, Any]]) -> None:
    """Warn if scans are stored in different orientations: a wrong one gives a mirror image that looks normal.

    records: `volume.Conformed.record` by the scan's name.
    """
    orders = Counter(record["SourceOrientation"] for record in records.values())
    usual = orders.most_common(1)[0][0] if orders else ""
    unusual = [name for name, record in records.items() if record["SourceOrientation"] != usual]
    if unusual:
        more = f" and {len(unusual) - 5} more" if len(unusual) > 5 else ""
        log.warning(
            "The headers disagree (%s): if one is wrong, left and right may be swapped, which no image "
            "shows. Check those that differ from most: %s%s",
            ", ".join(f"{n} scans {order}" for order, n in orders.most_common()),
            ", ".join(unusual[:5]),
            more,
        )


def subject_scans(output_dir: Path, subject: str) -> list[PreparedScan]:
    """All prepared scans of one participant."""
    return [_prepared(output_dir, path) for path in _preprocs(output_dir, subject)]


def _preprocs(output_dir: Path, subject: str) -> dict[Path, ScanName]:
    paths = sorted(output_dir.glob(f"sub-{subject}/**/sub-{subject}_*desc-preproc_*.nii.gz"))
    return {path: ScanName.parse(path.name) for path in paths}


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
            "OUTPUT_DIR must be that of the participant level. If the sidecars are damaged, run participant again."
        ) from error
    segmentation = facts.get("Segmentation", {})
    return PreparedScan(name, root / name.image("reference"), preproc, masks, record, quality, segmentation)


def scan_masks(root: Path, name: ScanName, desc: str | None = None) -> dict[str, Path]:
    """The masks of a scan that exist, by "GM", "WM", "CSF", "dseg" and "brain"."""
    return {key: root / path for key, path in name.masks(desc).items() if (root / path).is_file()}


def synthetic_scans(cohort: Path) -> list[Path]:
    """The paths of the scans (not the masks) of a cohort, in order."""
    return [path for path in sorted(cohort.glob("sub-*/*/sub-*.nii.gz")) if _is_scan(path)]


def _is_scan(path: Path) -> bool:
    return ScanName.parse(path.name).suffix in SUFFIXES
