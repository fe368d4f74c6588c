"""Output folders of a few voxels by hand, and answers, for the tests of the visual Turing test."""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import tiny

from bids_alphagan.common.volume import conform
from bids_alphagan.turing.answers import ANSWERS_FORMAT, checksum

GRID = 16
MODELS = ("sigmarat1", "sigmarat2")


def head(seed: int, shape: tuple[int, ...] = tiny.SHAPE, background: int = 0) -> np.ndarray:
    """A bright, noisy blob, int16, over a background of one value."""
    axes = np.meshgrid(*[np.linspace(-1, 1, n) for n in shape], indexing="ij")
    inside = np.linalg.norm(axes, axis=0) < 0.9
    noise = np.random.default_rng(seed).integers(800, 3000, shape)
    return np.where(inside, noise, background).astype(np.int16)


def prepared(
    root: Path, stem: str, data: np.ndarray, affine: np.ndarray = tiny.AFFINE, percentile: float = 100.0
) -> None:
    """A real scan as the participant level leaves it: desc-reference and desc-preproc, with the record."""
    *entities, suffix = stem.split("_")
    folder = root / entities[0] / ("func" if suffix == "bold" else "anat")
    base = "_".join(entities)
    tiny.scan(folder / f"{base}_desc-reference_{suffix}.nii.gz", data, affine, Description="reference")
    cube = conform(nib.Nifti1Image(data.astype(np.float32), affine), GRID, percentile)
    path = folder / f"{base}_desc-preproc_{suffix}.nii.gz"
    tiny.scan(path, cube.data, cube.affine, Preparation=cube.record)


def synthetic(root: Path, model: str, index: int, data: np.ndarray, affine: np.ndarray = tiny.AFFINE) -> None:
    name = f"sub-synth{index:04d}"
    tiny.scan(root / "derivatives" / model / name / "anat" / f"{name}_T2w.nii.gz", data, affine, Model=model)


def output(root: Path, real: int = 6, per_model: int = 4, models: tuple[str, ...] = MODELS) -> Path:
    """Animals with one T2w each and a cohort for each model."""
    for k in range(real):
        prepared(root, f"sub-{k + 1:02d}_T2w", head(k))
    for m, model in enumerate(models):
        for k in range(per_model):
            synthetic(root, model, k + 1, head(100 * (m + 1) + k))
    return root


def key(real: int = 20, **models: int) -> dict[str, Any]:
    """A key made by hand, for scoring."""
    truths = ["real"] * real + [name for name, n in models.items() for _ in range(n)]
    scans = {f"{k:08x}": {"Truth": truth, "File": f"{k}"} for k, truth in enumerate(truths)}
    return {"Format": "bids-alphagan turing key 1", "Kit": "f" * 16, "Scans": scans}


def answers_of(
    key: Mapping[str, Any],
    rater: str,
    answer: Callable[[int, str, str], tuple[str, int]],
    expertise: str = "high",
) -> dict[str, Any]:
    """A rater's file; `answer` gets place in the order, scan and truth and gives answer and confidence."""
    names = list(key["Scans"])
    order = [names[k] for k in np.random.default_rng(len(rater)).permutation(len(names))]
    given = []
    for place, name in enumerate(order):
        said, confidence = answer(place, name, key["Scans"][name]["Truth"])
        given.append({"scan": name, "answer": said, "confidence": confidence, "milliseconds": 6000})
    made = {
        "format": ANSWERS_FORMAT,
        "kit": key["Kit"],
        "session": f"{abs(hash(rater)):016x}"[:16],
        "rater": rater,
        "expertise": expertise,
        "years": 3,
        "order": order,
        "answers": given,
        "complete": True,
    }
    return made | {"checksum": checksum(made)}


def misses(**wrong: int) -> Callable[[int, str, str], tuple[str, int]]:
    """Answers with so many scans of each truth misclassified."""
    left = dict(wrong)

    def answer(place: int, name: str, truth: str) -> tuple[str, int]:
        miss = left.get(truth, 0) > 0
        left[truth] = left.get(truth, 0) - 1
        return ("synthetic" if (truth == "real") == miss else "real"), 2 if miss else 4

    return answer


def save(path: Path, content: Mapping[str, Any]) -> Path:
    path.write_text(json.dumps(content))
    return path
