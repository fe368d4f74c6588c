"""BIDS data sets of a few voxels, with unequal axes, for tests of names, sidecars and failures."""

import json
from pathlib import Path

import nibabel as nib
import numpy as np

SHAPE = (7, 8, 9)
AFFINE = nib.affines.from_matvec(np.diag((0.5, 0.75, 1.25)), (-3.0, 5.0, -7.0))


def values(seed: int = 0, volumes: int | None = None) -> np.ndarray:
    """Noise in [0, 3000): int16 (7, 8, 9), or (7, 8, 9, volumes)."""
    shape = SHAPE if volumes is None else (*SHAPE, volumes)
    return np.random.default_rng(seed).integers(0, 3000, shape).astype(np.int16)


def scan(path: Path, data: np.ndarray, affine: np.ndarray = AFFINE, **sidecar: object) -> Path:
    """Write a NIfTI file with units and codes set, and a sidecar where there is something to say."""
    path.parent.mkdir(parents=True, exist_ok=True)
    image = nib.Nifti1Image(data, affine)
    image.header.set_xyzt_units("mm", "sec")
    if data.ndim == 4 and "RepetitionTime" in sidecar:
        image.header["pixdim"][4] = sidecar["RepetitionTime"]
    image.set_qform(affine, code=1)
    image.set_sform(affine, code=1)
    nib.save(image, path)
    if sidecar:
        path.with_name(path.name.split(".")[0] + ".json").write_text(json.dumps(sidecar))
    return path


def dataset(root: Path, **participants: str) -> Path:
    """Make `root` a raw data set without scans; participants: label to species."""
    root.mkdir(parents=True, exist_ok=True)
    description = {"Name": "tiny", "BIDSVersion": "1.10.0", "DatasetType": "raw"}
    (root / "dataset_description.json").write_text(json.dumps(description))
    (root / "README").write_text("Noise in a few voxels, to test names, sidecars and failures with.\n")
    if participants:
        rows = [f"sub-{label}\t{species}" for label, species in participants.items()]
        (root / "participants.tsv").write_text("\n".join(["participant_id\tspecies", *rows]) + "\n")
    return root


def snapshot(folder: Path) -> dict[str, tuple[int, int]]:
    """Everything in a folder; files with their size and time of change."""
    paths = [folder, *folder.rglob("*")] if folder.exists() else []
    facts = {str(path): path.stat() if path.is_file() else None for path in paths}
    return {name: (fact.st_size, fact.st_mtime_ns) if fact else (0, 0) for name, fact in facts.items()}
