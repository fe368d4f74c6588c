"""SPM: how it is found, run and fails, by a program that answers as SPM does; and SPM itself, where it is."""

import os
import re
from dataclasses import replace
from pathlib import Path

import fake_spm as fake
import nibabel as nib
import numpy as np
import pytest
from oracles.overlap import dice
from validator import issues

from bids_alphagan.bids.derivatives import forget
from bids_alphagan.bids.names import ScanName
from bids_alphagan.bids.raw import find_scans
from bids_alphagan.cli import main as cli
from bids_alphagan.common.errors import ScanError
from bids_alphagan.common.files import read_json
from bids_alphagan.common.volume import voxels
from bids_alphagan.participant.workflow import Settings, scan_workflow
from bids_alphagan.segmenters import resolve_segmenter
from bids_alphagan.segmenters.base import TISSUES, Segmentation
from bids_alphagan.segmenters.folders import private_folder
from bids_alphagan.segmenters.options import MaskOptions
from bids_alphagan.segmenters.registration import Registration, write_transform
from bids_alphagan.segmenters.spm import (
    BRAIN,
    PARAMETERS,
    SpmSegmenter,
    template_tpm,
    tissue_probability_map,
    together,
    with_mixtures,
)
from bids_alphagan.templates import Template, find_template

ODD = "a b'c,1%d[ü]"


@pytest.fixture
def no_start(monkeypatch: pytest.MonkeyPatch) -> None:
    """Skip the search for a start, which is tested elsewhere."""

    def stay(template, data, affine, effort, threads, scan, scratch) -> Registration:
        write_transform(np.eye(4), scratch / "stay.mat")
        return Registration(data, affine, (str(scratch / "stay.mat"),), ())

    monkeypatch.setattr("bids_alphagan.segmenters.spm.register", stay)


def run(segmenter, scan: Path, scratch: Path) -> Segmentation:
    scratch.mkdir(exist_ok=True)
    return segmenter(scan, scratch)


def test_spm_gets_a_head_of_human_size_and_a_map_that_fits(
    rat: Template, scan: Path, fake_spm: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SEEN", str(tmp_path / "seen"))
    made = run(resolve_segmenter("spm", rat, MaskOptions(spm_cmd=str(fake_spm))), scan, tmp_path / "scratch")
    given, own = nib.load(tmp_path / "seen" / "scan.nii"), nib.load(scan)
    scale = np.linalg.norm(given.affine[:3, :3], axis=0) / np.linalg.norm(own.affine[:3, :3], axis=0)
    np.testing.assert_allclose(scale, scale[0], rtol=1e-4)
    assert 7.5 < scale[0] < 13.3
    tpm = nib.load(tmp_path / "seen" / "tpm.nii")
    assert tpm.shape[3] == len(PARAMETERS["GaussiansPerClass"]) == 12
    script = (tmp_path / "seen" / "segment.m").read_text()
    for line in (
        "biasfwhm = 60;",
        "gaussians = [1, 1, 1, 1, 1, 1, 1, 1, 1, 3, 2, 2];",
        "affreg = 'none'",
        "reg = [0, 0.001, 0.5, 0.05, 0.2]",
    ):
        assert line in script
    assert made.provenance["Version"] == "SPM26, version 00.00"


@pytest.mark.usefixtures("no_start")
class TestPrivateFolder:
    def test_work_folder_with_an_odd_name(
        self, rat: Template, scan: Path, fake_spm: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Blanks, quotes, commas, %, brackets and letters beyond ASCII: SPM sees none of them."""
        odd, seen = tmp_path / ODD, tmp_path / "seen"
        odd.mkdir()
        source = odd / "scan.nii.gz"
        source.write_bytes(scan.read_bytes())
        source.chmod(0o444)
        monkeypatch.setenv("SEEN", str(seen))
        monkeypatch.delenv("HOME", raising=False)
        made = run(
            resolve_segmenter("spm", rat, MaskOptions(threads=3, spm_cmd=str(fake_spm))),
            source,
            odd / "scratch",
        )
        assert made.brain.any()
        assert source.read_bytes() == scan.read_bytes()
        assert list((odd / "scratch").iterdir()) == []
        path = re.search(r"vols = \{'(.*),1'\}", (seen / "segment.m").read_text())[1]
        assert re.fullmatch(r"[A-Za-z0-9_./-]+/scan\.nii", path)
        assert not Path(path).parent.exists()
        facts = dict(line.split("=", 1) for line in (seen / "environment").read_text().splitlines())
        assert facts["HOME"] == facts["TMPDIR"] == str(Path(path).parent)
        assert facts["OMP_NUM_THREADS"] == "3"

    def test_it_lies_in_the_work_folder_where_that_will_do(self, tmp_path: Path) -> None:
        with private_folder(tmp_path) as one, private_folder(tmp_path) as other:
            assert one != other
            assert one.parent == other.parent == tmp_path
        assert list(tmp_path.iterdir()) == []

    def test_odd_temporary_folder(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        (tmp_path / ODD).mkdir()
        monkeypatch.setattr("tempfile.tempdir", str(tmp_path / ODD))
        with private_folder(tmp_path / ODD) as folder:
            assert re.fullmatch(r"/(var/)?tmp/masks-\w+", str(folder))

    def test_nowhere_to_write(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("os.access", lambda *_: False)
        with pytest.raises(OSError, match="Set TMPDIR"), private_folder(tmp_path):
            pass

    def test_it_is_removed_after_a_failure(
        self, rat: Template, scan: Path, fake_spm: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("FAKE_SPM", "error")
        with pytest.raises(ScanError):
            run(resolve_segmenter("spm", rat, MaskOptions(spm_cmd=str(fake_spm))), scan, tmp_path / "scratch")
        assert list((tmp_path / "scratch").iterdir()) == []


FAILURES = {
    "error": "ended with code 1. Its output: SPM failed: All tissues are the same -- The log has all",
    "batch": "Its output: Unable to estimate the bias --",
    "stderr": "Its output: error: Matrix dimensions must agree",
    "signal": "killed, perhaps for lack of memory. Fewer --nprocs",
    "killed": "killed, perhaps for lack of memory. Fewer --nprocs",
    "memory": "It ran out of memory. Fewer --nprocs",
    "crash": "It crashed",
    "asks": "Its output: EOFError",
    "no octave": "GNU Octave is missing: install it",
    "licence": "MATLAB has no licence here: SPM under Octave",
    "runtime": "MATLAB runtime .* is missing: set MCR_HOME to its folder",
    "full disk": r"The disk is full: use another folder for intermediate files \(-w\)",
    "silent": "SPM wrote no c1scan.nii. Its output: Running job #1",
    "shape": r"c1scan.nii has shape \(32, 32\), the scan \(32, 32, 20\)",
    "nan": "GM map is empty",
    "zero": "GM map is empty",
    "truncated": r"c1scan.nii cannot be read \(.*\)\. Is the disk full\?",
}


@pytest.mark.usefixtures("no_start")
@pytest.mark.parametrize("mode", FAILURES)
def test_failure_is_one_clear_line(
    mode: str, rat: Template, scan: Path, fake_spm: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FAKE_SPM", mode)
    with pytest.raises(ScanError, match=FAILURES[mode]) as error:
        run(resolve_segmenter("spm", rat, MaskOptions(spm_cmd=str(fake_spm))), scan, tmp_path / "scratch")
    assert str(error.value).startswith(f"{scan}: SPM")
    assert "\n" not in str(error.value)


def test_every_kind_of_failure_that_the_fake_knows_is_tested() -> None:
    assert set(fake.SAYS) <= set(FAILURES)


@pytest.mark.usefixtures("no_start")
def test_spm_is_stopped_at_its_time_limit_with_its_children(
    rat: Template, scan: Path, fake_spm: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FAKE_SPM", "hang")
    monkeypatch.setenv("PID_FILE", str(tmp_path / "pid"))
    segmenter = resolve_segmenter("spm", rat, MaskOptions(spm_cmd=str(fake_spm), spm_time_limit=0.04))
    with pytest.raises(ScanError, match=r"stopped after 0.04 minutes \(--spm-time-limit\).*: Thinking"):
        run(segmenter, scan, tmp_path / "scratch")
    assert fake.is_gone((tmp_path / "pid").read_text())
    assert list((tmp_path / "scratch").iterdir()) == []


def test_a_longer_time_limit_does_no_scan_again(rat: Template) -> None:
    """nipype compares segmenters by their repr."""
    one, other = (SpmSegmenter(rat, ("spm", "script"), "SPM26", time_limit=limit) for limit in (60, 90))
    assert one != other
    assert repr(one) == repr(other)


@pytest.mark.usefixtures("no_start")
def test_bias_corrected_is_spm_s_own_else_n4_s(
    rat: Template, scan: Path, fake_spm: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    image = nib.load(scan)
    data = np.asarray(image.dataobj)[..., 0]
    segmenter = resolve_segmenter("spm", rat, MaskOptions(spm_cmd=str(fake_spm)))
    made = run(segmenter, scan, tmp_path / "scratch")
    shading = np.linspace(2, 1, data.shape[0])[:, None, None]  # the fake's, in the order that it was given
    np.testing.assert_allclose(made.corrected, data / shading, rtol=1e-3, atol=1e-3)
    assert "SPM" in made.provenance["BiasCorrection"]
    monkeypatch.setenv("FAKE_SPM", "no m")
    made = run(segmenter, scan, tmp_path / "scratch")
    np.testing.assert_allclose(made.corrected, data, rtol=1e-5)
    assert "BiasCorrection" not in made.provenance


def test_memory_and_time_limit_reach_the_scheduler(
    rat: Template, heads: Path, fake_spm: Path, tmp_path: Path
) -> None:
    limit = ("--spm-cmd", str(fake_spm), "--spm-time-limit", "7", "--template", str(rat.t2w.parent))
    config = cli.parse([str(heads), str(tmp_path / "out"), "participant", *limit])
    segmenter = resolve_segmenter(config.segmenter, find_template(config.template), config.mask_options)
    assert segmenter.time_limit == 7 * 60
    scans = find_scans(config.bids_dir, config.selection)
    node = scan_workflow(Settings.of(config), scans[0], segmenter).get_node("segment")
    assert node.mem_gb == segmenter.memory_gb(voxels(scans[0].path))
    assert segmenter.memory_gb(2 * 10**6) > 2 > segmenter.memory_gb(10**5)
    assert node.n_procs == 1


@pytest.fixture
def words(heads: Path, template: Path, fake_spm: Path, tmp_path: Path) -> list[str]:
    """A run over two heads with the fake SPM, in this process."""
    options = {"--template": template, "--spm-cmd": fake_spm, "--nprocs": 1, "--preset": "demo"}
    return [
        *map(str, (heads, tmp_path / "out", "participant", "--participant-label", "01", "02")),
        *(str(word) for pair in options.items() for word in pair),
        *("--segmenter", "spm", "--skip-bids-validation"),
    ]


@pytest.mark.usefixtures("no_start")
def test_one_failure_holds_back_no_other_scan(
    words: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("FAKE_ONCE", str(tmp_path / "failed"))
    out = tmp_path / ODD / "out"
    words[1] = str(out)
    assert cli.main(words) == 1
    assert len(list((out / "logs").glob("crash-*segment*"))) == 1
    said = capsys.readouterr().err
    assert len(re.findall(r"FAILED sub-01/\S+: SPM.*All tissues are the same", said)) == 1
    assert "FAILED sub-02" not in said
    assert "Running job #1" not in said
    masks = [len(list(out.glob(f"sub-{label}/func/*_probseg.nii.gz"))) for label in ("01", "02")]
    assert masks == [0, 3]
    (log,) = (out / "logs").glob("participant_*.log")
    assert re.search(r"SPM on .*sub01.* said:\nRunning job #1\n", log.read_text())


@pytest.mark.usefixtures("no_start")
def test_bias_corrected_files(
    words: list[str], heads: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def written() -> list[str]:
        return sorted(path.name for path in tmp_path.glob("out/sub-01/func/*biascorrected*"))

    assert cli.main([*words, "--bias-corrected"]) == 0
    name = "sub-01_task-rest_desc-biascorrected_bold"
    assert written() == [f"{name}.json", f"{name}.nii.gz"]
    image = nib.load(tmp_path / "out/sub-01/func" / f"{name}.nii.gz")
    reference = nib.load(tmp_path / "out/sub-01/func" / reference_name(name))
    raw = nib.load(next(heads.glob("sub-01/func/*_bold.nii.gz")))
    assert image.shape == (*raw.shape[:3], 1)
    assert image.get_data_dtype() == np.float32
    np.testing.assert_array_equal(image.affine, raw.affine)
    for field in ("pixdim", "qform_code", "sform_code", "xyzt_units"):
        np.testing.assert_array_equal(image.header[field], raw.header[field])
    shading = np.linspace(2, 1, raw.shape[0])[:, None, None, None]
    np.testing.assert_allclose(image.get_fdata(), reference.get_fdata() / shading, atol=1)
    facts = read_json(tmp_path / "out/sub-01/func" / f"{name}.json")
    assert facts["Sources"] == [f"bids::sub-01/func/{reference_name(name)}"]
    assert "SPM" in facts["BiasCorrection"]
    assert facts["RepetitionTime"] == pytest.approx(float(raw.header["pixdim"][4]))
    assert issues(tmp_path / "out") == []
    monkeypatch.setenv("FAKE_ONCE", str(tmp_path / "failed"))  # SPM would fail, but is not needed for this
    assert cli.main(words) == 0
    assert written() == []
    assert cli.main([*words, "--bias-corrected"]) == 0
    assert written() == [f"{name}.json", f"{name}.nii.gz"]
    assert forget(tmp_path / "out", ScanName.parse("sub-01_task-rest_bold.nii.gz"))
    assert written() == []


def reference_name(name: str) -> str:
    return name.replace("biascorrected", "reference") + ".nii.gz"


def test_tissue_probability_map_is_built_once_for_a_content_and_a_resolution(
    rat: Template, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    coarse = np.diag([1.2, 1.2, 1.2, 1.0])
    built = template_tpm(rat, coarse, tmp_path)
    assert len(list(tmp_path.iterdir())) == 1
    with monkeypatch.context() as patch:
        patch.setattr("bids_alphagan.segmenters.spm.tissue_probability_map", None)
        again = template_tpm(rat, coarse, tmp_path)
    np.testing.assert_array_equal(again.get_fdata(), np.asarray(built.dataobj))
    np.testing.assert_allclose(again.affine, built.affine)
    template_tpm(rat, coarse * 1.2, tmp_path)
    template_tpm(replace(rat, gm=rat.wm, wm=rat.gm), coarse, tmp_path)
    assert len(list(tmp_path.iterdir())) == 3


def test_tissue_probability_map_sums_to_one_without_zeros() -> None:
    tissues = [np.zeros((17, 18, 19)) for _ in TISSUES]
    tissues[0][2:15, 2:16, 2:17] = 0.9
    tpm = tissue_probability_map(tissues[0] > 0, tissues)
    assert tpm.shape == (17, 18, 19, 6)
    np.testing.assert_allclose(tpm.sum(axis=-1), 1, rtol=1e-5)
    assert tpm.min() > 0
    assert tpm[1, 9, 9, 3] > tpm[1, 9, 9, 5]  # bone at the brain's edge rather than air


def test_two_tissues_in_a_voxel_are_a_class_of_their_own() -> None:
    pure = ["GM", "GM", "GM", "GM", "WM", "CSF", "bone", "soft tissue", "air"]
    voxels = [
        {"GM": 1},
        {"GM": 0.5, "WM": 0.5},
        {"GM": 0.2, "WM": 0.8},
        {"GM": 0.7, "CSF": 0.3},
        {"WM": 0.6, "CSF": 0.4},
    ]
    voxels.append({"bone": 1})
    shares = [[voxel.get(name, 0) / pure.count(name) for name in pure] for voxel in voxels]
    found = with_mixtures(np.array(shares, np.float32)[:, None, None])[:, 0, 0]
    classes = list(PARAMETERS["Classes"])
    assert found.shape == (6, len(classes))
    np.testing.assert_allclose(found.sum(axis=1), 1, rtol=1e-5)
    assert found.min() > 0
    expected = [{"GM": 1}, {"GM+WM": 1}, {"WM": 0.6, "GM+WM": 0.4}, {"GM": 0.4, "GM+CSF": 0.6}]
    expected += [{"WM": 0.2, "WM+CSF": 0.8}, {"bone": 1}]
    for row, shares_of in zip(found, expected, strict=True):
        for name in classes:
            assert row[classes.index(name)] == pytest.approx(
                shares_of.get(name, 0) / classes.count(name), abs=2e-3
            )


def test_mixtures_are_divided_as_the_registration_expects() -> None:
    expected = {"GM": np.array([[[0.3]]]), "WM": np.array([[[0.1]]]), "CSF": np.array([[[0.0]]])}
    shares = {
        "GM": 0.05,
        "WM": 0.1,
        "CSF": 0.1,
        "GM+WM": 0.4,
        "GM+CSF": 0.2,
        "WM+CSF": 0.0,
    }  # GM has four classes
    posteriors = [np.array([[[shares["+".join(tissues)]]]]) for tissues in BRAIN]
    maps = {tissue: float(values[0, 0, 0]) for tissue, values in together(posteriors, expected).items()}
    assert maps == pytest.approx({"GM": 0.2 + 0.3 + 0.2, "WM": 0.1 + 0.1, "CSF": 0.1}, abs=2e-3)


@pytest.mark.skipif("SPM_HOME" not in os.environ, reason="SPM_HOME is not set: SPM itself is not tested")
@pytest.mark.slow
def test_real_spm(rat: Template, scan: Path, truth: np.ndarray, tmp_path: Path) -> None:
    (tmp_path / ODD).mkdir()
    made = run(resolve_segmenter("spm", rat, MaskOptions()), scan, tmp_path / ODD)
    assert dice(made.brain, truth > 0) > 0.85
    assert dice(made.dseg == 1, truth == 1) > 0.75
    assert made.provenance["BiasCorrection"].startswith("SPM")
    assert list((tmp_path / ODD).iterdir()) == []
