"""Segmenters on small heads: antspyx, SPM by a program that answers as SPM does, and SPM itself."""

import os
import pickle
import stat
import subprocess
import sys
import time
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from nibabel.orientations import axcodes2ornt, io_orientation, ornt_transform

from bids_alphagan.errors import ScanError, UserError
from bids_alphagan.segmenters import (
    SEGMENTERS,
    TISSUES,
    AntsSegmenter,
    Segmentation,
    SpmSegmenter,
    resolve_segmenter,
)
from bids_alphagan.segmenters.ants import Effort
from bids_alphagan.segmenters.spm import PARAMETERS, find_spm, spm_version, tissue_probability_map
from bids_alphagan.templates import Template, find_template

TINY = Effort(across=14, syn_iterations=4, n4_iterations=(5,), affine_iterations=(30, 15))

FAKE_SPM = '''#!{python}
"""Answers as SPM's standalone does: writes c1..c3 from the TPM, or fails in one of its ways."""
import os, re, subprocess, sys, time
from pathlib import Path
import nibabel as nib, numpy as np
from scipy import ndimage
if sys.argv[1] == "--version":
    print("SPM26, version 00.00\\nOctave, version 7.3.0"); sys.exit()
assert sys.argv[1] == "script", sys.argv
text = Path(sys.argv[2]).read_text()
scan = Path(re.search(r"vols = ..(.*?),1", text)[1]); tpm = re.search(r"sprintf\\('(.*?),%d'", text)[1]
mode = os.environ.get("FAKE_SPM", "")
if mode == "error":
    print("SPM failed: All tissues are the same"); sys.exit(1)
if mode == "silent":
    print("Running job #1"); sys.exit()
if mode == "hang":
    child = subprocess.Popen(["sleep", "60"])
    Path(os.environ["PID_FILE"]).write_text(str(child.pid)); time.sleep(60)
(Path.home() / "preferences").write_text("")
image, maps = nib.load(scan), nib.load(tpm)
to_tpm = np.linalg.inv(maps.affine) @ image.affine
for k in range(3):
    values = ndimage.affine_transform(maps.get_fdata()[..., k], to_tpm, output_shape=image.shape, order=1)
    nib.save(nib.Nifti1Image(values.astype("f4"), image.affine), scan.with_name(f"c{{k + 1}}{{scan.name}}"))
'''


@pytest.fixture(scope="module")
def rat(template: Path) -> Template:
    return find_template(str(template))


@pytest.fixture(scope="module")
def scan(heads: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One head, its volumes averaged, stored (x, y, z, 1)."""
    image = nib.load(next(heads.glob("sub-01/func/*_bold.nii.gz")))
    data = np.asarray(image.dataobj, dtype=np.float32).mean(axis=-1, keepdims=True)
    path = tmp_path_factory.mktemp("scan") / "scan.nii.gz"
    nib.save(nib.Nifti1Image(data, image.affine), path)
    return path


@pytest.fixture(scope="module")
def truth(heads: Path) -> np.ndarray:
    path = next(heads.glob("derivatives/truth/sub-01/func/*_dseg.nii.gz"))
    return np.asarray(nib.load(path).dataobj).reshape(nib.load(path).shape[:3])


@pytest.fixture
def fake_spm(tmp_path: Path) -> Path:
    program = tmp_path / "bin" / "spm-octave"
    program.parent.mkdir()
    program.write_text(FAKE_SPM.format(python=sys.executable))
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    return program


@pytest.fixture
def no_start(monkeypatch: pytest.MonkeyPatch) -> None:
    """Skip the search for a start where SPM fails anyway."""
    monkeypatch.setattr("bids_alphagan.segmenters.spm.find_pose", lambda *_: np.eye(4))
    monkeypatch.setattr("bids_alphagan.segmenters.spm.correct_bias", lambda data, *_: data)


@pytest.fixture
def no_spm(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("SPM_HOME", "SPMMCRCMD"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("PATH", str(tmp_path / "empty"))


def dice(a: np.ndarray, b: np.ndarray) -> float:
    return 2 * (a & b).sum() / (a.sum() + b.sum())


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
    segmenter = pickle.loads(pickle.dumps(resolve_segmenter(name, rat, str(fake_spm), quick=True)))
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


def test_spm_gets_a_head_of_human_size_in_the_template_s_pose(
    rat: Template, scan: Path, fake_spm: Path, tmp_path: Path
) -> None:
    made = run(resolve_segmenter("spm", rat, str(fake_spm)), scan, tmp_path / "scratch")
    given, own = nib.load(tmp_path / "scratch" / "scan.nii"), nib.load(scan)
    scale = np.linalg.norm(given.affine[:3, :3], axis=0) / np.linalg.norm(own.affine[:3, :3], axis=0)
    np.testing.assert_allclose(scale, scale[0], rtol=1e-4)
    assert 7.5 < scale[0] < 13.3
    tpm = nib.load(tmp_path / "scratch" / "tpm.nii")
    assert tpm.shape[3] == len(PARAMETERS["GaussiansPerClass"]) == 6
    script = (tmp_path / "scratch" / "segment.m").read_text()
    for line in (
        "biasfwhm = 60;",
        "gaussians = [1, 1, 2, 3, 2, 2];",
        "affreg = 'none'",
        "reg = [0, 0.001, 0.5, 0.05, 0.2]",
    ):
        assert line in script
    assert (tmp_path / "scratch" / "preferences").exists()  # SPM's home is the scratch folder
    assert made.provenance["Version"] == "SPM26, version 00.00"


@pytest.mark.usefixtures("no_start")
@pytest.mark.parametrize(("mode", "told"), [("error", "All tissues are the same"), ("silent", "no GM map")])
def test_spm_failure_is_one_clear_line(
    mode: str,
    told: str,
    rat: Template,
    scan: Path,
    fake_spm: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("FAKE_SPM", mode)
    with pytest.raises(ScanError, match=told) as error:
        run(resolve_segmenter("spm", rat, str(fake_spm)), scan, tmp_path / "scratch")
    assert "\n" not in str(error.value)


@pytest.mark.usefixtures("no_start")
def test_spm_is_stopped_at_its_time_limit_with_its_children(
    rat: Template, scan: Path, fake_spm: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FAKE_SPM", "hang")
    monkeypatch.setenv("PID_FILE", str(tmp_path / "pid"))
    with pytest.raises(ScanError, match="stopped after 2 s"):
        run(SpmSegmenter(rat, (str(fake_spm), "script"), "SPM", time_limit=2), scan, tmp_path / "scratch")
    child = Path("/proc") / (tmp_path / "pid").read_text() / "stat"
    for _ in range(50):
        if not child.exists() or child.read_text().split()[2] == "Z":
            return
        time.sleep(0.1)
    pytest.fail("SPM's child is still running")


def test_tissue_probability_map_sums_to_one_without_zeros() -> None:
    tissues = [np.zeros((17, 18, 19)) for _ in TISSUES]
    tissues[0][2:15, 2:16, 2:17] = 0.9
    tpm = tissue_probability_map(tissues[0] > 0, tissues)
    assert tpm.shape == (17, 18, 19, 6)
    np.testing.assert_allclose(tpm.sum(axis=-1), 1, rtol=1e-5)
    assert tpm.min() > 0
    assert tpm[1, 9, 9, 3] > tpm[1, 9, 9, 5]  # bone at the brain's edge rather than air


@pytest.mark.usefixtures("no_spm")
class TestFindingSpm:
    def test_command_is_completed(self, fake_spm: Path) -> None:
        assert find_spm(str(fake_spm)) == (str(fake_spm), "script")
        assert find_spm(f"{fake_spm} /opt/mcr script") == (str(fake_spm), "/opt/mcr", "script")

    def test_nipype_s_variable(self, fake_spm: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("SPMMCRCMD", f"{fake_spm} script")
        assert find_spm() == (str(fake_spm), "script")

    def test_home_needs_an_interpreter(self, fake_spm: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("SPM_HOME", str(fake_spm.parent.parent))
        assert find_spm() is None
        octave = fake_spm.with_name("octave-cli")
        octave.symlink_to(fake_spm)
        monkeypatch.setenv("PATH", str(octave.parent))
        assert find_spm() == (str(fake_spm), "script")

    def test_nothing_found(self, rat: Template, caplog: pytest.LogCaptureFixture) -> None:
        assert find_spm() is None
        with pytest.raises(UserError, match="SPM was not found"):
            resolve_segmenter("spm", rat)
        segmenter = resolve_segmenter("auto", rat)
        assert segmenter.name == "ants"
        assert "SPM was not found" in caplog.text
        assert "SPM was not found" in segmenter.describe()["Note"]

    def test_wrong_command(self, rat: Template) -> None:
        with pytest.raises(UserError, match="--spm-cmd: /no/spm is not a program"):
            resolve_segmenter("auto", rat, "/no/spm")
        with pytest.raises(UserError, match="does not run"):
            spm_version(("/bin/false", "script"))

    def test_unknown_name(self, rat: Template) -> None:
        with pytest.raises(UserError, match="Known are auto, none, spm, ants"):
            resolve_segmenter("fsl", rat)


@pytest.mark.slow
@pytest.mark.skipif("SPM_HOME" not in os.environ, reason="SPM_HOME is not set: SPM itself is not tested here")
def test_real_spm(rat: Template, scan: Path, truth: np.ndarray, tmp_path: Path) -> None:
    made = run(resolve_segmenter("spm", rat), scan, tmp_path / "scratch")
    assert dice(made.brain, truth > 0) > 0.85
    assert dice(made.dseg == 1, truth == 1) > 0.75
