"""The phantom as BIDS: raw scans, their true labels, and a template in TemplateFlow's layout."""

import logging
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np

from bids_alphagan import __version__
from bids_alphagan.common.errors import UserError
from bids_alphagan.common.files import write_json, write_text, write_tsv
from bids_alphagan.phantom.acquisition import Scan, acquire, average, scan_affine
from bids_alphagan.phantom.anatomy import CSF, GM, WM, Anatomy, head
from bids_alphagan.phantom.animal import Animal, draw_animal, draw_pose
from bids_alphagan.phantom.options import PhantomOptions

log = logging.getLogger(__name__)

BIDS_VERSION = "1.10.0"
TEMPLATE = "RatPhantom"
REPETITION_TIME = 2.0
GROWTH = 0.01
"""Growth in length per session, as a fraction."""
TISSUES = ((1, "GM", "gray matter"), (2, "WM", "white matter"), (3, "CSF", "cerebrospinal fluid"))
GENERATED_BY = [
    {
        "Name": "bids-alphagan-phantom",
        "Version": __version__,
        "Description": "Digital rat head: analytic anatomy, smooth deformations, simulated EPI",
    }
]
RAW = {
    "Name": "Digital phantom: rat heads, T2-weighted EPI",
    "BIDSVersion": BIDS_VERSION,
    "DatasetType": "raw",
    "License": "CC0",
    "Authors": ["The bids-alphagan developers"],
    "GeneratedBy": GENERATED_BY,
}
TRUTH = {
    "Name": "Digital phantom: what each voxel is made of",
    "BIDSVersion": BIDS_VERSION,
    "DatasetType": "derivative",
    "License": "CC0",
    "GeneratedBy": GENERATED_BY,
    "SourceDatasets": [{"URL": "../.."}],
    "DatasetLinks": {"raw": "../.."},
}
SIDECAR = {
    "TaskName": "rest",
    "TaskDescription": "No task: a digital phantom of a rat under anaesthesia",
    "Manufacturer": "Bruker",
    "ManufacturersModelName": "simulated",
    "MagneticFieldStrength": 11.7,
    "ReceiveCoilName": "simulated 4-channel surface array",
    "PulseSequenceType": "T2-weighted EPI",
    "ScanningSequence": "EP",
    "RepetitionTime": REPETITION_TIME,
    "EchoTime": 0.0175,
    "FlipAngle": 90,
    "PhaseEncodingDirection": "j",
    "MRAcquisitionType": "2D",
    "CoilCombinationMethod": "root sum of squares",
    "NumberOfVolumesDiscardedByScanner": 0,
}
PARTICIPANT_COLUMNS: dict[str, Any] = {
    "participant_id": {"Description": "Digital animal"},
    "species": {"Description": "Binomial species name"},
    "strain": {"Description": "Strain whose proportions the anatomy follows"},
    "sex": {"Description": "Sex", "Levels": {"F": "female", "M": "male"}},
    "age": {"Description": "Age at the first session", "Units": "week"},
    "weight": {"Description": "Body weight that goes with size and sex", "Units": "g"},
}
README = """\
Digital rat heads

No animal was scanned for this data set: bids-alphagan-phantom computed it. The heads follow the proportions
of adult Wistar rats, the scans imitate a resting-state T2-weighted EPI at 11.7 T with a surface coil.

derivatives/truth holds, for every scan, the tissue each voxel is made of (dseg) and the brain (mask).
derivatives/templateflow holds the mean head and its tissue fractions as a TemplateFlow template; set
TEMPLATEFLOW_HOME to that folder to use it.
"""


def save(data: np.ndarray, affine: np.ndarray, path: Path, repetition_time: float | None = None) -> None:
    """Write a NIfTI-1 file with qform and sform set; equal data give equal bytes."""
    image = nib.Nifti1Image(data, affine)
    image.set_qform(affine, 1)
    image.set_sform(affine, 1)
    image.header.set_xyzt_units("mm", "sec")
    if repetition_time is not None:
        image.header["pixdim"][4] = repetition_time
    path.parent.mkdir(parents=True, exist_ok=True)
    image.to_filename(path)


def segment(fractions: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Majority labels (X, Y, Z) and brain mask, uint8, from fractions (3, X, Y, Z) of GM, WM and CSF."""
    rest = 1 - fractions.sum(0)
    labels = np.concatenate([rest[None], fractions]).argmax(0).astype(np.uint8)
    return labels, (fractions.sum(0) > 0.5).astype(np.uint8)


def write_dataset(options: PhantomOptions, progress: Callable[[str], None] = log.info) -> None:
    """Write the whole data set to ``options.out``, which must be absent or an empty folder.

    Everything is written to a hidden folder inside it and moved up at the end, so that it may be a mount point
    and an interruption leaves no partial data set. Raises UserError if it cannot be written.
    """
    out = options.out
    created = not out.exists()
    try:
        if out.exists() and (not out.is_dir() or any(out.iterdir())):
            raise UserError(f"{out} exists and is not an empty folder: give another path, or empty it first")
        out.mkdir(parents=True, exist_ok=True)
        stage = Path(tempfile.mkdtemp(prefix=".building-", dir=out))
    except OSError as error:
        raise UserError(f"{out} cannot be written ({error.strerror}): give a writable folder") from error
    finished = False
    try:
        write_tree(stage, options, progress)
        for entry in sorted(stage.iterdir()):
            entry.rename(out / entry.name)
        finished = True
    finally:
        shutil.rmtree(stage, ignore_errors=True)
        if created and not finished:
            shutil.rmtree(out, ignore_errors=True)


def write_tree(root: Path, options: PhantomOptions, progress: Callable[[str], None]) -> None:
    """Write raw data, truth and template under `root`, an existing folder."""
    anatomy = head()
    truth = root / "derivatives" / "truth"
    write_template(root / "derivatives" / "templateflow", anatomy)
    write_json(root / "dataset_description.json", RAW)
    write_text(root / "README", README)
    write_json(root / "participants.json", PARTICIPANT_COLUMNS)
    write_json(root / "task-rest_bold.json", SIDECAR)
    write_json(truth / "dataset_description.json", TRUTH)
    write_tsv(truth / "dseg.tsv", [{"index": i, "name": n, "abbreviation": a} for i, a, n in TISSUES])
    rows = []
    width = max(2, len(str(options.n_subjects)))
    for number in range(1, options.n_subjects + 1):
        rng = np.random.default_rng([options.seed, number])
        animal = draw_animal(rng)
        label = f"sub-{number:0{width}d}"
        rows.append({"participant_id": label, **describe(animal, rng)})
        for session in range(1, options.n_sessions + 1):
            rng = np.random.default_rng([options.seed, number, session])
            pose = draw_pose(rng, animal, growth=1 + GROWTH * (session - 1))
            scan = acquire(anatomy, animal, pose, rng, options.shape, options.zooms, options.volumes)
            folder, prefix = Path(label), label
            if options.n_sessions > 1:
                folder, prefix = folder / f"ses-{session}", f"{prefix}_ses-{session}"
            write_scan(root, truth, folder / "func", f"{prefix}_task-rest", scan, options.zooms)
        progress(f"{label} of {options.n_subjects}")
    write_tsv(root / "participants.tsv", rows)


def describe(animal: Animal, rng: np.random.Generator) -> dict[str, Any]:
    """The animal's row in participants.tsv."""
    female = bool(rng.random() < 0.5)
    size = float(animal.size.mean())
    age = round(float(np.interp(size, (0.92, 1.08), (8, 20)) + rng.normal(0, 0.7)))
    weight = round((270 if female else 380) * size**3 * float(rng.normal(1, 0.04)))
    return {
        "species": "rattus norvegicus",
        "strain": "Wistar",
        "sex": "F" if female else "M",
        "age": max(age, 6),
        "weight": weight,
    }


def write_scan(
    root: Path, truth: Path, folder: Path, prefix: str, scan: Scan, zooms: tuple[float, ...]
) -> None:
    """Write one series to `root` and its labels and mask to `truth`."""
    affine = scan_affine(scan.fractions.shape[1:], zooms)
    series = folder / f"{prefix}_bold.nii.gz"
    save(scan.series, affine, root / series, REPETITION_TIME)
    labels, brain = segment(scan.fractions)
    uri = f"bids:raw:{series.as_posix()}"
    common = {"Sources": [uri], "SpatialReference": uri}
    base = truth / folder
    save(labels, affine, base / f"{prefix}_dseg.nii.gz")
    write_json(base / f"{prefix}_dseg.json", {"Description": "Tissue that fills most of the voxel", **common})
    save(brain, affine, base / f"{prefix}_desc-brain_mask.nii.gz")
    write_json(
        base / f"{prefix}_desc-brain_mask.json",
        {"Description": "Brain and its fluid fill over half of the voxel", "Type": "Brain", **common},
    )


def write_template(home: Path, anatomy: Anatomy) -> None:
    """Write the undeformed head at 0.25 mm as TemplateFlow template ``RatPhantom``."""
    folder = home / f"tpl-{TEMPLATE}"
    write_json(
        folder / "template_description.json",
        {
            "Identifier": TEMPLATE,
            "Name": "Mean digital rat head of bids-alphagan",
            "BIDSVersion": BIDS_VERSION,
            "TemplateFlowVersion": "1.0.0",
            "Authors": ["The bids-alphagan developers"],
            "License": "CC0",
            "Species": "Rattus norvegicus",
            "ReferencesAndLinks": [],
            "res": {"1": {"zooms": [0.25, 0.25, 0.25]}},
        },
    )
    affine = anatomy.affine.copy()
    affine[:3, :3] *= 2
    affine[:3, 3] += anatomy.affine[0, 0] / 2
    fluid = (anatomy.ventricle > 0) & np.isin(anatomy.tissue, (GM, WM, CSF))
    tissue = np.where(fluid, CSF, anatomy.tissue)
    fractions = np.stack([average((tissue == k).astype(np.float32), (2, 2, 2)) for k in (GM, WM, CSF)])
    prefix = folder / f"tpl-{TEMPLATE}_res-1"
    t2w = average(np.where(fluid, np.float32(1), anatomy.signal), (2, 2, 2))
    save((1000 * t2w).astype(np.float32), affine, prefix.with_name(prefix.name + "_T2w.nii.gz"))
    for (_, name, _), fraction in zip(TISSUES, fractions, strict=True):
        save(fraction, affine, prefix.with_name(f"{prefix.name}_label-{name}_probseg.nii.gz"))
    save(segment(fractions)[1], affine, prefix.with_name(prefix.name + "_desc-brain_mask.nii.gz"))
