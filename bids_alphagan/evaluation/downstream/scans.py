"""Scans with their tissue labels as arrays, all on one grid."""

import hashlib
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from nibabel.affines import voxel_sizes

from bids_alphagan.bids.names import TISSUES, ScanName
from bids_alphagan.bids.prepared import PreparedScan, scan_masks
from bids_alphagan.bids.prepared import synthetic_scans as scans_of_cohort
from bids_alphagan.common.errors import UserError
from bids_alphagan.common.volume import conform, load, read_reference
from bids_alphagan.evaluation.volumes import read_labels, real_arrays

log = logging.getLogger(__name__)


class Scan(NamedTuple):
    """A scan for training or testing.

    image: float32 (x, y, z) in [0, 1]. labels: uint8 (x, y, z): 0 background, 1 GM, 2 WM, 3 CSF.
    spacing: voxel size, mm.
    """

    name: str
    animal: str
    image: np.ndarray
    labels: np.ndarray
    spacing: tuple[float, ...]


def real_scans(prepared: Sequence[PreparedScan], box: tuple[slice, ...]) -> list[Scan]:
    """The prepared scans with masks; `box`: of `volumes.common_field_of_view`."""
    result = []
    for scan in prepared:
        if "dseg" not in scan.masks:
            log.warning("downstream: %s has no masks and is left out", scan.name.stem)
            continue
        labels = _tissues(scan.masks["dseg"], read_labels(scan.masks["dseg"], scan.record)[box])
        image = real_arrays([scan.preproc], box)[0]
        spacing = tuple(float(mm) for mm in voxel_sizes(load(scan.preproc).affine))
        result.append(Scan(scan.name.stem, scan.name.subject, image, labels, spacing))
    return result


def synthetic_scans(
    cohort: Path, box: tuple[slice, ...], grid: int, upper_percentile: float, most: int | None = None
) -> list[Scan]:
    """The scans of a synthetic cohort (the first `most`) with masks, prepared like the real ones."""
    result: list[Scan] = []
    for path in scans_of_cohort(cohort):
        name = ScanName.parse(path.name)
        dseg = scan_masks(cohort, name, "synthetic").get("dseg")
        if dseg is None or len(result) == most:
            continue
        conformed = conform(read_reference(path)[0], grid, upper_percentile)
        labels = _tissues(dseg, read_labels(dseg, conformed.record)[box])
        spacing = tuple(float(mm) for mm in voxel_sizes(conformed.affine))
        result.append(Scan(name.stem, name.subject, (conformed.data[box] + 1) / 2, labels, spacing))
    return result


def _tissues(path: Path, labels: np.ndarray) -> np.ndarray:
    if labels.max(initial=0) > len(TISSUES):
        raise UserError(
            f"{path}: has the label {labels.max()}, but tissues are 1 GM, 2 WM, 3 CSF. Make the masks "
            "again: run participant for this scan."
        )
    return labels


def check(scans: Sequence[Scan]) -> None:
    """Raise ValueError unless all scans are valid and of one shape."""
    for scan in scans:
        if scan.image.shape != scans[0].image.shape or scan.labels.shape != scan.image.shape:
            raise ValueError(f"{scan.name}: {scan.image.shape}, {scan.labels.shape}: all must have one shape")
        if not np.isfinite(scan.image).all() or scan.labels.max() > len(TISSUES):
            raise ValueError(f"{scan.name}: intensities must be finite, labels 0 to {len(TISSUES)}")


def fingerprint(scans: Sequence[Scan]) -> str:
    """SHA-256 of the content of `scans`, in their order."""
    digest = hashlib.sha256()
    for scan in scans:
        digest.update(f"{scan.name} {scan.animal} {scan.image.shape} {scan.spacing}".encode())
        digest.update(np.ascontiguousarray(scan.image, np.float32).data)
        digest.update(np.ascontiguousarray(scan.labels, np.uint8).data)
    return digest.hexdigest()
