"""Segmenters on small heads: what holds for all of them, and antspyx. SPM has its own file."""

import os
import pickle
import subprocess
import sys
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from nibabel.orientations import axcodes2ornt, io_orientation, ornt_transform
from oracles.overlap import dice

from bids_alphagan.segmenters import SEGMENTERS, resolve_segmenter
from bids_alphagan.segmenters.ants import AntsSegmenter
from bids_alphagan.segmenters.base import TISSUES, Segmentation
from bids_alphagan.segmenters.options import MaskOptions
from bids_alphagan.segmenters.registration import Effort
from bids_alphagan.templates import Template

TINY = Effort(across=14, syn_iterations=4, n4_iterations=(5,), affine_iterations=(30, 15))


def run(segmenter, scan: Path, scratch: Path) -> Segmentation:
    scratch.mkdir(exist_ok=True)
    return segmenter(scan, scratch)


@pytest.fixture(scope="module")
def tiny(rat: Template, scan: Path, tmp_path_factory: pytest.TempPathFactory) -> Segmentation:
    return run(AntsSegmenter(rat, TINY), scan, tmp_path_factory.mktemp("ants"))


@pytest.mark.parametrize("name", SEGMENTERS)
def test_contract(
    name: str,
    rat: Template,
    scan: Path,
    truth: np.ndarray,
    fake_spm: Path,
    tmp_path: Path,
    tiny: Segmentation,
) -> None:
    """What holds for every entry of SEGMENTERS."""
    segmenter = resolve_segmenter(name, rat, MaskOptions(quick=True, spm_cmd=str(fake_spm)))
    segmenter = pickle.loads(pickle.dumps(segmenter))
    assert segmenter.name == name
    assert {"Name", "Version", "Parameters", "Template", "Registration"} <= set(segmenter.describe())
    before = scan.read_bytes()
    made = tiny if name == "ants" else run(segmenter, scan, tmp_path / "scratch")
    assert scan.read_bytes() == before
    assert tuple(made.probseg) == TISSUES
    for values in made.probseg.values():
        assert (values.shape, values.dtype) == (truth.shape, np.float32)
        assert values.min() >= 0
        assert values.max() <= 1
    assert sum(made.probseg.values()).max() <= 1 + 1e-6
    assert (made.brain.dtype, made.dseg.dtype) == (np.dtype(bool), np.dtype(np.uint8))
    np.testing.assert_array_equal(made.dseg > 0, made.brain)
    assert set(np.unique(made.dseg)) == {0, 1, 2, 3}
    # The stand-in for SPM answers with the template in its pose alone; no pose does better than 0.93 here.
    assert dice(made.brain, truth > 0) > {"ants": 0.94, "spm": 0.87}[name]
    assert all(np.isfinite(value) for value in made.measures.values())


def test_ants_beats_its_start(tiny: Segmentation, truth: np.ndarray) -> None:
    assert dice(tiny.brain, truth > 0) > 0.94
    assert dice(tiny.dseg == 1, truth == 1) > 0.88


def test_ants_is_reproducible_and_leaves_nothing(
    rat: Template, scan: Path, tiny: Segmentation, tmp_path: Path
) -> None:
    again = tmp_path / "again.py"
    again.write_text(
        "import pickle, sys\nfrom pathlib import Path\n"
        "segmenter = pickle.loads(Path(sys.argv[1]).read_bytes())\n"
        "made = segmenter(Path(sys.argv[2]), Path(sys.argv[3]))\n"
        "Path(sys.argv[4]).write_bytes(pickle.dumps(made.probseg))\n"
    )
    (tmp_path / "segmenter").write_bytes(pickle.dumps(AntsSegmenter(rat, TINY)))
    for folder in ("scratch", "tmp"):
        (tmp_path / folder).mkdir()
    environment = {**os.environ, "TMPDIR": str(tmp_path / "tmp")}
    words = [again, tmp_path / "segmenter", scan, tmp_path / "scratch", tmp_path / "made"]
    subprocess.run([sys.executable, *map(str, words)], check=True, env=environment)
    for tissue, values in pickle.loads((tmp_path / "made").read_bytes()).items():
        np.testing.assert_array_equal(values, tiny.probseg[tissue])
    assert list((tmp_path / "tmp").iterdir()) == []


def test_ants_works_in_a_folder_of_any_name(
    tiny: Segmentation, rat: Template, scan: Path, tmp_path: Path
) -> None:
    """ANTs reads commas and brackets in its arguments as its own."""
    made = run(AntsSegmenter(rat, TINY), scan, tmp_path / "a b'c,1%d[ü]")
    np.testing.assert_array_equal(made.dseg, tiny.dseg)
    assert list((tmp_path / "a b'c,1%d[ü]").iterdir()) == []


@pytest.mark.parametrize("axes", ["LAS", "PIR"])
def test_storage_order_does_not_matter(
    axes: str, rat: Template, scan: Path, tiny: Segmentation, tmp_path: Path
) -> None:
    """Flipped (left-handed) and permuted axes, with the header that says so, give the same masks."""
    image = nib.load(scan)
    image = nib.Nifti1Image(np.asarray(image.dataobj)[..., 0], image.affine)
    there = ornt_transform(io_orientation(image.affine), axcodes2ornt(axes))
    turned = image.as_reoriented(there)
    nib.save(turned, tmp_path / "turned.nii.gz")
    made = run(AntsSegmenter(rat, TINY), tmp_path / "turned.nii.gz", tmp_path / "scratch")
    back = nib.Nifti1Image(made.dseg, turned.affine).as_reoriented(
        ornt_transform(axcodes2ornt(axes), io_orientation(image.affine))
    )
    np.testing.assert_allclose(back.affine, image.affine, atol=1e-6)
    np.testing.assert_array_equal(np.asarray(back.dataobj), tiny.dseg)


def test_oblique_and_shifted_header(rat: Template, scan: Path, truth: np.ndarray, tmp_path: Path) -> None:
    """A head that lies 15 degrees and some millimetres off the template."""
    image = nib.load(scan)
    c, s = np.cos(np.deg2rad(15)), np.sin(np.deg2rad(15))
    turn = np.array([[1, 0, 0, 4], [0, c, -s, -6], [0, s, c, 30], [0, 0, 0, 1]])
    nib.save(nib.Nifti1Image(np.asarray(image.dataobj), turn @ image.affine), tmp_path / "oblique.nii.gz")
    made = run(AntsSegmenter(rat, TINY), tmp_path / "oblique.nii.gz", tmp_path / "scratch")
    assert dice(made.brain, truth > 0) > 0.92


def test_tissue_apart_from_the_brain_is_measured_and_is_not_in_the_mask(
    rat: Template, scan: Path, fake_spm: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    segmenter = resolve_segmenter("spm", rat, MaskOptions(quick=True, spm_cmd=str(fake_spm)))
    sound = run(segmenter, scan, tmp_path)
    monkeypatch.setenv("FAKE_SPM", "loose")
    loose = run(segmenter, scan, tmp_path)
    tissue = sum(sound.probseg.values()) > 0.5
    assert sound.measures["largest_component"] > 0.99
    expected = sound.measures["largest_component"] * tissue.sum() / (tissue.sum() + 5 * 5 * 4)
    assert loose.measures["largest_component"] == pytest.approx(expected)
    assert np.array_equal(loose.brain, sound.brain)
