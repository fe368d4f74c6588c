"""The selection of real and synthetic scans of an output folder for a kit."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np

from bids_alphagan.bids.derivatives import cohort_folder
from bids_alphagan.bids.names import ScanName
from bids_alphagan.bids.prepared import PreparedScan, subject_scans, synthetic_scans
from bids_alphagan.common.errors import UserError
from bids_alphagan.common.volume import load

REAL = "real"
USUAL_MODELS = ("sigmarat1", "sigmarat2")  # the two in the paper's test


@dataclass(frozen=True)
class Grid:
    """A scan's voxels with axes to Right, Anterior, Superior; zooms in mm."""

    shape: tuple[int, int, int]
    zooms: tuple[float, float, float]


@dataclass(frozen=True)
class Chosen:
    """One scan of a kit. truth: "real" or the model's name. animal, prepared: only for real scans."""

    truth: str
    path: Path
    grid: Grid
    animal: str | None = None
    prepared: PreparedScan | None = None


def grid_of(path: Path) -> Grid:
    """The grid of a NIfTI file in RAS order. Raises UserError if it cannot be read."""
    try:
        image = load(path)
        axes = [int(axis) for axis in nib.orientations.io_orientation(image.affine)[:, 0]]
        order = [axes.index(axis) for axis in range(3)]
        sizes = nib.affines.voxel_sizes(image.affine)
        shape, zooms = [image.shape[k] for k in order], [round(float(sizes[k]), 4) for k in order]
    except Exception as error:  # a damaged file can raise any exception
        raise UserError(f"{path}: cannot be read ({error}). Make or copy it again.") from error
    return Grid((shape[0], shape[1], shape[2]), (zooms[0], zooms[1], zooms[2]))


def real_candidates(output_dir: Path, suffix: str | None) -> list[Chosen]:
    """All prepared scans of one kind.

    Raises UserError if there are none, or several kinds and no `suffix`.
    """
    scans = [scan for scan in subject_scans(output_dir, "*") if suffix in (None, scan.name.suffix)]
    if not scans:
        kind = f" of kind {suffix}" if suffix else ""
        raise UserError(
            f"{output_dir}: no prepared scans{kind} (sub-*/*/*_desc-reference_*.nii.gz). OUTPUT_DIR must be "
            "the output folder of bids-alphagan."
        )
    kinds = sorted({scan.name.suffix for scan in scans})
    if len(kinds) > 1:
        raise UserError(
            f"{output_dir} holds scans of several kinds ({', '.join(kinds)}): choose with --suffix {kinds[0]}"
        )
    return [Chosen(REAL, s.reference, grid_of(s.reference), f"sub-{s.name.subject}", s) for s in scans]


def models_of(output_dir: Path, asked: Sequence[str] | None) -> list[str]:
    """The cohorts to use: the requested ones, else the paper's two, else all."""
    available = sorted(
        {path.parents[2].name for path in output_dir.glob("derivatives/*/sub-*/*/sub-*.nii.gz")}
    )
    if not available:
        raise UserError(
            f"{output_dir / 'derivatives'}: no synthetic cohorts. Draw them first: "
            f"bids-alphagan BIDS_DIR {output_dir} group --steps train synthesise"
        )
    if missing := [model for model in asked or () if model not in available]:
        raise UserError(
            f"{output_dir / 'derivatives'}: no synthetic scans of {', '.join(missing)}. "
            f"Available: {', '.join(available)}."
        )
    usual = [model for model in USUAL_MODELS if model in available]
    return list(dict.fromkeys(asked)) if asked else usual or available


def synthetic_candidates(output_dir: Path, model: str, suffix: str) -> list[Chosen]:
    """A cohort's scans of one kind."""
    paths = synthetic_scans(cohort_folder(output_dir, model))
    kind = [path for path in paths if ScanName.parse(path.name).suffix == suffix]
    return [Chosen(model, path, grid_of(path)) for path in kind]


def common_grid(candidates: Sequence[Chosen]) -> Grid:
    """The most frequent grid; among equally frequent ones, the finest."""
    counts = Counter(scan.grid for scan in candidates)
    return max(counts, key=lambda grid: (counts[grid], -float(np.prod(grid.zooms))))


def choose(
    candidates: Sequence[Chosen], n: int, grid: Grid, rng: np.random.Generator, flag: str
) -> list[Chosen]:
    """Draw `n` scans, those on `grid` before others, and one of each animal before a second of any.

    Synthetic scans count as animals of their own. Raises UserError if there are too few; `flag` is the option that
    requested them.
    """
    if len(candidates) < n:
        truth = candidates[0].truth if candidates else "that model"
        raise UserError(
            f"too few scans of {truth}: {n} requested, {len(candidates)} available. Give {flag} "
            f"{len(candidates)}, or make more."
        )
    turns: Counter[Any] = Counter()
    ranked = []
    for k in rng.permutation(len(candidates)):
        scan = candidates[k]
        away = scan.grid != grid
        who = scan.animal or scan.path
        ranked.append(((away, turns[who, away]), scan))
        turns[who, away] += 1
    ranked.sort(key=lambda pair: pair[0])  # stable: random within a rank
    return [scan for _, scan in ranked[:n]]
