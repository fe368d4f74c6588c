"""Templates of a few voxels, in folders under the names of TemplateFlow or of a lab."""

from pathlib import Path

import nibabel as nib
import numpy as np

SHAPE = (14, 16, 18)
ZOOM = 1.0
BRAIN = np.zeros(SHAPE, dtype=bool)
BRAIN[2:10, 1:15, 2:16] = True  # 1.57 mL at 1 mm; not in the middle of any axis but the second


def affine(zoom: float = ZOOM) -> np.ndarray:
    return np.array([[zoom, 0, 0, -3], [0, zoom, 0, 2], [0, 0, zoom, 5], [0, 0, 0, 1.0]])


def image(path: Path, data: np.ndarray | float, zoom: float = ZOOM, dtype: str = "float32") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    values = np.broadcast_to(np.asarray(data), SHAPE).astype(dtype)
    nib.save(nib.Nifti1Image(values, affine(zoom)), path)
    return path


def write(folder: Path, names: dict[str, str], zoom: float = ZOOM) -> Path:
    """A sound template whose parts have the names given, relative to `folder`."""
    values = {
        "t2w": 100.0 * BRAIN + 20,
        "mask": 1.0 * BRAIN,
        "gm": 0.5 * BRAIN,
        "wm": 0.3 * BRAIN,
        "csf": 0.1 * BRAIN,
    }
    for part, name in names.items():
        image(folder / name, values[part], zoom)
    return folder


def flow(
    home: Path, name: str, entities: str = "", tissue: str = "label", suffix: str = "T2w", zoom: float = ZOOM
) -> Path:
    """A template under TemplateFlow's names."""
    folder = home / f"tpl-{name}"
    if "cohort" in entities:
        folder /= entities.strip("_")
    stem = f"tpl-{name}{entities}"
    names = {"t2w": f"{stem}_{suffix}.nii.gz", "mask": f"{stem}_desc-brain_mask.nii.gz"}
    names |= {part: f"{stem}_{tissue}-{part.upper()}_probseg.nii.gz" for part in ("gm", "wm", "csf")}
    return write(folder, names, zoom)
