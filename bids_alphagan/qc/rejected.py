"""Draws that failed quality control, kept for a look: all of them, or an example of each worst reason.

They live in a model's folder, which BIDS tools pass over, under names that none takes for a scan's:
models/MODEL/rejected/synth0001_draw-01/ with scan.nii.gz, its masks where there are any, and rejected.json.
Which examples are kept follows from the draws alone, not from processes or interruptions.
"""

import math
import shutil
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np

from bids_alphagan.bids.names import TISSUES
from bids_alphagan.common.errors import UserError
from bids_alphagan.common.files import read_json, write_json
from bids_alphagan.common.volume import save, with_grid
from bids_alphagan.qc.limits import kind

EXAMPLES = 6  # at most, where not all are kept
NOTE = "rejected.json"


@dataclass(frozen=True)
class Rejection:
    """A draw that did not pass: its seed, what was wrong with it (the worst first), and its measures."""

    seed: int
    reasons: list[str]
    measures: dict[str, float | None]


class NonePassedError(UserError):
    """Not a single draw of a cohort passed; `draws` has a row for each, as the cohort's record would."""

    def __init__(self, message: str, draws: list[dict[str, Any]]) -> None:
        super().__init__(message)
        self.draws = draws


def finite(measures: Mapping[str, float]) -> dict[str, float | None]:
    """Measures as JSON knows them: None for what is no number."""
    return {name: value if math.isfinite(value) else None for name, value in measures.items()}


@dataclass(frozen=True)
class Kept:
    """A rejected draw on the disk; masks by "GM", "WM", "CSF", "dseg" and "brain", none where it has none."""

    folder: Path
    index: int
    draw: int
    rejection: Rejection
    masks: dict[str, Path]

    @property
    def name(self) -> str:
        """Which scan it was to become."""
        return self.folder.name.partition("_")[0]

    @property
    def scan(self) -> Path:
        return self.folder / "scan.nii.gz"

    @property
    def kind(self) -> str:
        return kind(self.rejection.reasons[0])


def folder_of(model_folder: Path) -> Path:
    """Where a model's rejected draws are."""
    return model_folder / "rejected"


def folder_name(index: int, draw: int) -> str:
    """Folder of draw `draw` (from 1) of synthetic scan `index`: nothing that BIDS tools read a label from."""
    return f"synth{index:04d}_draw-{draw:02d}"


def write(
    folder: Path,
    index: int,
    draw: int,
    rejection: Rejection,
    image: nib.Nifti1Image,
    maps: Mapping[str, np.ndarray],
    facts: Mapping[str, Any],
) -> None:
    """Write one rejected draw into `folder`, which appears as a whole.

    image: the scan; maps: its masks (x, y, z), or none; facts: of the model, as in a sidecar.
    """
    final = folder / folder_name(index, draw)
    making = final.with_name(f".{final.name}")
    shutil.rmtree(making, ignore_errors=True)
    making.mkdir(parents=True)
    save(image, making / "scan.nii.gz")
    for key, values in maps.items():
        data = values.astype(np.float32 if key in TISSUES else np.uint8)
        save(with_grid(data, image), making / f"{key}.nii.gz")
    about = {"Description": "A synthetic scan that failed quality control: not for use", **facts}
    write_json(making / NOTE, {**about, "index": index, "draw": draw, **asdict(rejection)})
    shutil.rmtree(final, ignore_errors=True)
    making.rename(final)


def kept(folder: Path) -> list[Kept]:
    """The rejected draws in `folder`, in the order of draws: the first draw of every scan first."""
    found = [_read(note.parent) for note in folder.glob(f"synth*/{NOTE}")]
    return sorted(found, key=lambda one: (one.draw, one.index))


def _read(folder: Path) -> Kept:
    note = read_json(folder / NOTE)
    rejection = Rejection(note["seed"], note["reasons"], note["measures"])
    there = {key: folder / f"{key}.nii.gz" for key in (*TISSUES, "dseg", "brain")}
    masks = {key: path for key, path in there.items() if path.is_file()}
    return Kept(folder, note["index"], note["draw"], rejection, masks)


def examples(found: Iterable[Kept], most: int | None = EXAMPLES) -> list[Kept]:
    """The first draw of each worst reason, at most `most` of them."""
    first: dict[str, Kept] = {}
    for one in found:
        first.setdefault(one.kind, one)
    return list(first.values())[:most]


def thin(folder: Path, most: int | None = None) -> None:
    """Keep nothing in `folder` but `examples`."""
    found = kept(folder)
    wanted = {one.folder for one in examples(found, most)}
    for one in found:
        if one.folder not in wanted:
            shutil.rmtree(one.folder)


def settle(staging: Path, place: Path, n: int, every: bool) -> None:
    """Bring what was kept while `n` scans were drawn to its place; nothing is left where nothing was kept."""
    shutil.rmtree(place, ignore_errors=True)
    for one in kept(staging):
        if one.index > n:  # of an earlier call, for more scans
            shutil.rmtree(one.folder)
    if not every:
        thin(staging, EXAMPLES)
    for half in staging.glob(".synth*"):
        shutil.rmtree(half)
    if staging.is_dir() and any(staging.iterdir()):
        staging.rename(place)
    else:
        shutil.rmtree(staging, ignore_errors=True)
