"""Shared data: small phantom heads, made once for all tests."""

import os
import sys
from pathlib import Path

import fake_spm as fake
import nibabel as nib
import numpy as np
import pytest
from phantoms import phantom

from bids_alphagan.templates import Template, find_template

os.environ.setdefault("OMP_NUM_THREADS", "1")


@pytest.fixture(autouse=True)
def one_thread() -> None:
    """The app sets torch's threads by its options, for good; sums then have another order, and last bit."""
    if torch := sys.modules.get("torch"):
        torch.set_num_threads(1)


@pytest.fixture(scope="session")
def heads(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four phantom animals on a coarse grid, with truth and template. Read only."""
    return phantom(tmp_path_factory.mktemp("phantom") / "heads", "--n-subjects", "4")


@pytest.fixture(scope="session")
def template(heads: Path) -> Path:
    return heads / "derivatives" / "templateflow" / "tpl-RatPhantom"


@pytest.fixture(scope="session")
def rat(template: Path) -> Template:
    return find_template(str(template))


@pytest.fixture(scope="session")
def scan(heads: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One head, its volumes averaged, stored (x, y, z, 1)."""
    image = nib.load(next(heads.glob("sub-01/func/*_bold.nii.gz")))
    data = np.asarray(image.dataobj, dtype=np.float32).mean(axis=-1, keepdims=True)
    path = tmp_path_factory.mktemp("scan") / "scan.nii.gz"
    nib.save(nib.Nifti1Image(data, image.affine), path)
    return path


@pytest.fixture(scope="session")
def truth(heads: Path) -> np.ndarray:
    path = next(heads.glob("derivatives/truth/sub-01/func/*_dseg.nii.gz"))
    return np.asarray(nib.load(path).dataobj).reshape(nib.load(path).shape[:3])


@pytest.fixture
def fake_spm(tmp_path: Path) -> Path:
    """A program that answers as SPM does (see fake_spm.py)."""
    return fake.write(tmp_path / "bin" / "spm-octave")
