"""Draws that failed quality control, kept for inspection: all of them, or one example per worst reason.

They are in a model's folder, which BIDS tools ignore, with names unlike those of scans:
models/MODEL/rejected/synth0001_draw-01/ with scan.nii.gz, its masks if there are any, and rejected.json.
The choice of examples depends on the draws alone, not on processes or interruptions.
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

EXAMPLES = 6  # at most, unless all are kept
NOTE = "rejected.json"


@dataclass(frozen=True)
class Rejection:
    """A rejected draw: its seed, the reasons (worst first), and its measures."""

    seed: int
    reasons: list[str]
    measures: dict[str, float | None]


class NonePassedError(UserError):
    """No draw of a cohort passed. draws: one row per draw, as in the cohort's record."""

    def __init__(self, message: str, draws: list[dict[str, Any]]) -> None:
        super().__init__(message)
        self.draws = draws


def finite(measures: Mapping[str, float]) -> dict[str, float | None]:
    """The measures as JSON values: None for NaN and infinity."""
    return {name: value if math.isfinite(value) else None for name, value in measures.items()}


@dataclass(frozen=True)
class Kept:
    """A rejected draw on disk; masks by "GM", "WM", "CSF", "dseg" and "brain", empty without masks."""

    folder: Path
    index: int
    draw: int
    rejection: Rejection
    masks: dict[str, Path]

    @property
    def name(self) -> str:
        """The synthetic scan for which it was drawn."""
        return self.folder.name.partition("_")[0]

    @property
    def scan(self) -> Path:
        return self.folder / "scan.nii.gz"

    @property
    def kind(self) -> str:
        return kind(self.rejection.reasons[0])


def folder_of(model_folder: Path) -> Path:
    """The folder of a model's rejected draws."""
    return model_folder / "rejected"


def folder_name(index: int, draw: int) -> str:
    """Folder of draw `draw` (from 1) of synthetic scan `index`; BIDS tools read no label from it."""
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
    """Write one rejected draw to a subfolder of `folder`, complete or not at all.

    image: the scan; maps: its masks (x, y, z), or empty; facts: about the model, as in a sidecar.
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
    """The rejected draws in `folder`, sorted by draw and then by scan."""
    draws = [_read(note.parent) for note in folder.glob(f"synth*/{NOTE}")]
    return sorted(draws, key=lambda draw: (draw.draw, draw.index))


def _read(folder: Path) -> Kept:
    note = read_json(folder / NOTE)
    rejection = Rejection(note["seed"], note["reasons"], note["measures"])
    paths = {key: folder / f"{key}.nii.gz" for key in (*TISSUES, "dseg", "brain")}
    masks = {key: path for key, path in paths.items() if path.is_file()}
    return Kept(folder, note["index"], note["draw"], rejection, masks)


def examples(draws: Iterable[Kept], most: int | None = EXAMPLES) -> list[Kept]:
    """The first draw of each worst reason, at most `most` of them."""
    first: dict[str, Kept] = {}
    for draw in draws:
        first.setdefault(draw.kind, draw)
    return list(first.values())[:most]


def thin(folder: Path, most: int | None = None) -> None:
    """Remove all draws in `folder` except `examples`."""
    draws = kept(folder)
    folders = {draw.folder for draw in examples(draws, most)}
    for draw in draws:
        if draw.folder not in folders:
            shutil.rmtree(draw.folder)


def settle(staging: Path, final: Path, n: int, every: bool) -> None:
    """Move the draws kept while `n` scans were drawn to their final folder; without any, no folder is left."""
    shutil.rmtree(final, ignore_errors=True)
    for draw in kept(staging):
        if draw.index > n:  # from an earlier call, for more scans
            shutil.rmtree(draw.folder)
    if not every:
        thin(staging, EXAMPLES)
    for half in staging.glob(".synth*"):
        shutil.rmtree(half)
    if staging.is_dir() and any(staging.iterdir()):
        staging.rename(final)
    else:
        shutil.rmtree(staging, ignore_errors=True)
