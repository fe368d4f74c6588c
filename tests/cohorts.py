"""Output folders as the participant level and synthesis leave them, with blobs for scans: quickly made."""

from collections.abc import Sequence
from pathlib import Path

import nibabel as nib
import numpy as np
from scipy import ndimage

from bids_alphagan.bids.derivatives import (
    cohort_folder,
    describe_output,
    synthetic_name,
    write_masks,
    write_prepared,
    write_scan,
)
from bids_alphagan.bids.names import ScanName, uri
from bids_alphagan.bids.prepared import prepared_scans
from bids_alphagan.bids.split import Split, split
from bids_alphagan.common.volume import conform, with_header
from bids_alphagan.config import Config

GRID, SHAPE = 16, (14, 16, 12)
AFFINE = nib.affines.from_matvec(np.diag((0.75, 0.75, 1.0)), (-5.0, -6.0, -6.0))
MODEL = "sigmarat2"


def animal(number: int) -> tuple[np.ndarray, np.ndarray]:
    """A head of its own: a scan (x, y, z) of float32 up to about 1000, and its dseg."""
    rng = np.random.default_rng([11, number])
    places = np.stack(np.meshgrid(*[np.linspace(-1, 1, n) for n in SHAPE], indexing="ij"), axis=-1)
    radius = np.linalg.norm(places * rng.normal(1.25, 0.04, 3), axis=-1)
    texture = ndimage.gaussian_filter(rng.normal(size=SHAPE), 1.2)
    texture /= texture.std()
    dseg = np.where(radius > 1, 0, np.where(radius < 0.35, 3, np.where(texture > 0.8, 2, 1)))
    bright = np.array([150.0, 500.0, 400.0, 750.0])[dseg] + 90 * texture
    return np.clip(ndimage.gaussian_filter(bright, 0.5), 1, None).astype(np.float32), dseg.astype(np.uint8)


def image(scan: np.ndarray) -> nib.Nifti1Image:
    made = nib.Nifti1Image(scan, AFFINE)
    made.header.set_xyzt_units("mm", "sec")
    return made


def maps(dseg: np.ndarray) -> dict[str, np.ndarray]:
    tissues = {name: (dseg == i).astype(np.float32) for i, name in enumerate(("GM", "WM", "CSF"), start=1)}
    return {**tissues, "dseg": dseg, "brain": dseg > 0}


def real(root: Path, numbers: Sequence[int], masks: bool = True) -> None:
    """Prepare the animals with these numbers."""
    describe_output(root, root.parent / "raw")
    for number in numbers:
        scan, dseg = animal(number)
        name = ScanName((("sub", f"{number:02d}"),), "T2w")
        raw = image(scan)
        made = conform(raw, GRID, 100.0)
        cube = nib.Nifti1Image(made.data, made.affine)
        write_prepared(root, name, raw, uri(name.image(), "raw"), scan, cube, made.record, {})
        if masks:
            write_masks(root, name, raw, maps(dseg), uri(name.image("reference")), {}, {"entropy": 0.1})


def synthetic(root: Path, heads: Sequence[tuple[np.ndarray, np.ndarray]], masks: bool = True) -> Path:
    """Make a cohort of these scans; its folder."""
    place = cohort_folder(root, MODEL)
    for index, (scan, dseg) in enumerate(heads, start=1):
        name = synthetic_name(index, ScanName((("sub", "00"),), "T2w"))
        write_scan(
            place, name.image(), with_header(scan, image(scan)), "Synthetic", [], {"RandomSeed": index}
        )
        if masks:
            source = uri(name.image())
            write_masks(place, name, image(scan), maps(dseg), source, {}, {}, desc="synthetic")
    return place


def configured(root: Path, held_out: float = 0.2) -> tuple[Config, Split]:
    """A configuration, and which animals are on which side."""
    config = Config(
        bids_dir=root.parent / "raw",
        output_dir=root,
        analysis_level="group",
        grid=GRID,
        held_out=held_out,
        pairs_per_scan=2,
        msssim_pairs_per_scan=1,
        device="cpu",
    )
    return config, split(config, prepared_scans(config))
