"""Output folders as the participant level, training, synthesis and evaluation leave them, with blobs for scans.

They are quickly made: nothing is segmented and no network is trained.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from scipy import ndimage

from bids_alphagan.bids.derivatives import (
    SYNTHESIS_RECORD,
    cohort_folder,
    describe_output,
    synthetic_name,
    write_masks,
    write_prepared,
    write_scan,
)
from bids_alphagan.bids.names import ScanName, uri
from bids_alphagan.bids.selection import Selection
from bids_alphagan.bids.study import Study
from bids_alphagan.common.files import write_json, write_tsv
from bids_alphagan.common.volume import conform, with_header
from bids_alphagan.evaluation import record_name
from bids_alphagan.evaluation.question import Answer
from bids_alphagan.group import ledger
from bids_alphagan.models import MODELS, load_model
from bids_alphagan.training.cache import prepared_volumes
from bids_alphagan.training.configuration import configuration
from bids_alphagan.training.settings import TrainSettings

GRID, SHAPE = 16, (14, 16, 12)
AFFINE = nib.affines.from_matvec(np.diag((0.75, 0.75, 1.0)), (-5.0, -6.0, -6.0))
MODEL = "sigmarat2"
SETTINGS = {"protocol": "held-out", "held_out": 0.2, "pairs_per_scan": 2, "msssim_pairs_per_scan": 1}
MEASURES = {"entropy": 0.1}  # of the quality of all masks


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


def real(
    root: Path, numbers: Sequence[int], masks: bool = True, measures: Mapping[str, float] = MEASURES
) -> None:
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
            write_masks(root, name, raw, maps(dseg), uri(name.image("reference")), {}, measures)


def synthetic(
    root: Path, heads: Sequence[tuple[np.ndarray, np.ndarray]], masks: bool = True, model: str = MODEL
) -> Path:
    """Make a cohort of these scans; its folder."""
    folder = cohort_folder(root, model)
    for index, (scan, dseg) in enumerate(heads, start=1):
        name = synthetic_name(index, ScanName((("sub", "00"),), "T2w"))
        write_scan(
            folder, name.image(), with_header(scan, image(scan)), "Synthetic", [], {"RandomSeed": index}
        )
        if masks:
            source = uri(name.image())
            write_masks(folder, name, image(scan), maps(dseg), source, {}, {}, desc="synthetic")
    return folder


def study(root: Path, held_out: float = 0.2) -> Study:
    """The output folder as the group level opens it."""
    return Study.open(root.parent / "raw", root, root / ".work", Selection(), held_out, grid=GRID)


def trained(of: Study, model: str = MODEL, **settings: Any) -> Path:
    """Leave what says how a model was trained on the study's training scans; its folder."""
    folder, scans = of.model_folder(model), of.work_dir / "scans"
    volumes = prepared_volumes(of.training, scans, MODELS[model].channels)
    write_json(folder / "config.json", configuration(volumes, load_model(model), TrainSettings(**settings)))
    return folder


def losses(folder: Path) -> None:
    """Leave losses and samples of a training in a model's folder."""
    names = ("generator_loss", "discriminator_loss", "generator_mse", "code_discriminator_loss")
    values = [(5.0 - i, -1.0 * i, 0.5, "nan") for i in range(1, 7)]
    rows = [{"step": 10 * i, **dict(zip(names, row, strict=True))} for i, row in enumerate(values, start=1)]
    write_tsv(folder / "losses.tsv", rows)
    (folder / "samples").mkdir(parents=True, exist_ok=True)
    for step in (10, 60):
        planes = np.full((4, 3, 8, 8), 90, np.uint8)
        np.save(folder / "samples" / f"step-{step:06d}.npy", planes, allow_pickle=False)


def drawn(of: Study, model: str = MODEL, seed: int = 0, **facts: Any) -> None:
    """Record that a model's cohort was drawn for this study with this seed."""
    record = {"n_accepted": 5, "n_rejected": 0, "step": 3, "gate_width": 5.0, "masks": None, "draws": []}
    record |= {"limits": {}, **ledger.origin(of, model, seed), **facts}
    write_json(of.model_folder(model) / SYNTHESIS_RECORD, {"fingerprint": "", "record": record})


def answered(of: Study, answers: Mapping[str, Answer], *models: str) -> None:
    """Record answers to questions as if a former run had computed them of the study and these models' cohorts."""
    contents = of.contents({model: of.cohort_folder(model) for model in models or (MODEL,)})
    for name, answer in answers.items():
        record = {**contents, **answer.record()}
        write_json(of.record_file(record_name(name)), {"fingerprint": "", "record": record})
