"""SPM: how it is found, run and fails, by a program that answers as SPM does; and SPM itself, where it is."""

import os
import re
import signal
import subprocess
import sys
import time
import tracemalloc
from pathlib import Path

import fake_spm as fake
import nibabel as nib
import numpy as np
import pytest

from bids_alphagan import cli
from bids_alphagan.app import masks_by
from bids_alphagan.errors import ScanError, UserError
from bids_alphagan.files import read_json
from bids_alphagan.layout.raw import find_scans
from bids_alphagan.preprocess import scan_workflow
from bids_alphagan.segmenters import TISSUES, Segmentation, SpmSegmenter, resolve_segmenter
from bids_alphagan.segmenters import spm_program as program
from bids_alphagan.segmenters.spm import PARAMETERS, tissue_probability_map
from bids_alphagan.segmenters.spm_program import call, find_spm, private_folder, spm_banner, spm_version
from bids_alphagan.templates import Template

ODD = "a b'c,1%d[ü]"
VARIABLES = ("SPM_HOME", "SPMMCRCMD", "FORCE_SPMMCR", "MCR_HOME", "MCRROOT", "LD_LIBRARY_PATH", "OCTAVE_EXEC")


@pytest.fixture
def no_start(monkeypatch: pytest.MonkeyPatch) -> None:
    """Skip the search for a start, which is tested elsewhere."""
    monkeypatch.setattr("bids_alphagan.segmenters.spm.find_pose", lambda *_: np.eye(4))
    monkeypatch.setattr("bids_alphagan.segmenters.spm.correct_bias", lambda data, *_: data)


@pytest.fixture
def no_spm(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("PATH", str(tmp_path / "empty"))
    monkeypatch.setattr(program, "RUNTIMES", (str(tmp_path / "mcr"),))


def run(segmenter, scan: Path, scratch: Path) -> Segmentation:
    scratch.mkdir(exist_ok=True)
    return segmenter(scan, scratch)


def dice(a: np.ndarray, b: np.ndarray) -> float:
    return 2 * (a & b).sum() / (a.sum() + b.sum())


def is_gone(pid: str) -> bool:
    """Whether a process ends within seconds; a zombie has ended."""
    status = Path("/proc", pid, "stat")
    for _ in range(50):
        try:
            if status.read_text().split()[2] == "Z":
                return True
        except OSError:
            return True
        time.sleep(0.1)
    return False


def test_spm_gets_a_head_of_human_size_in_the_template_s_pose(
    rat: Template, scan: Path, fake_spm: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SEEN", str(tmp_path / "seen"))
    made = run(resolve_segmenter("spm", rat, str(fake_spm)), scan, tmp_path / "scratch")
    given, own = nib.load(tmp_path / "seen" / "scan.nii"), nib.load(scan)
    scale = np.linalg.norm(given.affine[:3, :3], axis=0) / np.linalg.norm(own.affine[:3, :3], axis=0)
    np.testing.assert_allclose(scale, scale[0], rtol=1e-4)
    assert 7.5 < scale[0] < 13.3
    tpm = nib.load(tmp_path / "seen" / "tpm.nii")
    assert tpm.shape[3] == len(PARAMETERS["GaussiansPerClass"]) == 6
    script = (tmp_path / "seen" / "segment.m").read_text()
    for line in (
        "biasfwhm = 60;",
        "gaussians = [1, 1, 2, 3, 2, 2];",
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
        made = run(resolve_segmenter("spm", rat, str(fake_spm), threads=3), source, odd / "scratch")
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
            assert re.fullmatch(r"/(var/)?tmp/spm-\w+", str(folder))

    def test_nowhere_to_write(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("os.access", lambda *_: False)
        with pytest.raises(OSError, match="set TMPDIR"), private_folder(tmp_path):
            pass

    def test_it_is_removed_after_a_failure(
        self, rat: Template, scan: Path, fake_spm: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("FAKE_SPM", "error")
        with pytest.raises(ScanError):
            run(resolve_segmenter("spm", rat, str(fake_spm)), scan, tmp_path / "scratch")
        assert list((tmp_path / "scratch").iterdir()) == []


FAILURES = {
    "error": "ended with code 1. It said: SPM failed: All tissues are the same -- The log has all",
    "batch": "It said: Unable to estimate the bias --",
    "stderr": "It said: error: Matrix dimensions must agree",
    "signal": "killed, for want of memory perhaps. Fewer --nprocs",
    "killed": "killed, for want of memory perhaps. Fewer --nprocs",
    "memory": "It had not enough memory. Fewer --nprocs",
    "crash": "It crashed",
    "asks": "It said: EOFError",
    "no octave": "GNU Octave is missing: install it",
    "licence": "MATLAB has no licence here: SPM under Octave",
    "runtime": "name its folder with MCR_HOME",
    "full disk": "The disk is full: -w",
    "silent": "SPM wrote no c1scan.nii. It said: Running job #1",
    "shape": r"c1scan.nii has shape \(32, 32\), the scan \(32, 32, 20\)",
    "nan": "c1scan.nii is empty",
    "zero": "c1scan.nii is empty",
    "truncated": "c1scan.nii cannot be read, for a full disk perhaps",
}


@pytest.mark.usefixtures("no_start")
@pytest.mark.parametrize("mode", FAILURES)
def test_failure_is_one_clear_line(
    mode: str, rat: Template, scan: Path, fake_spm: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FAKE_SPM", mode)
    with pytest.raises(ScanError, match=FAILURES[mode]) as error:
        run(resolve_segmenter("spm", rat, str(fake_spm)), scan, tmp_path / "scratch")
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
    segmenter = resolve_segmenter("spm", rat, str(fake_spm), spm_time_limit=0.04)
    with pytest.raises(ScanError, match=r"stopped after 0.04 minutes \(--spm-time-limit\).*: Thinking"):
        run(segmenter, scan, tmp_path / "scratch")
    assert is_gone((tmp_path / "pid").read_text())
    assert list((tmp_path / "scratch").iterdir()) == []


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_spm_ends_with_the_app(number: int, fake_spm: Path, tmp_path: Path) -> None:
    """Even when that is killed: neither processes nor files are left."""
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    (scratch / "segment.m").touch()
    code = (
        "import sys; from pathlib import Path; from bids_alphagan.segmenters.spm_program import *\n"
        "with private_folder(Path(sys.argv[2])) as folder:\n"
        "    call([sys.argv[1], 'script', sys.argv[2] + '/segment.m'], folder)"
    )
    environment = {**os.environ, "FAKE_SPM": "hang", "PID_FILE": str(tmp_path / "pid")}
    app = subprocess.Popen([sys.executable, "-c", code, fake_spm, scratch], env=environment, stderr=-3)
    for _ in range(300):
        if (tmp_path / "pid").is_file() and (tmp_path / "pid").read_text():
            break
        time.sleep(0.1)
    app.send_signal(number)
    app.wait()
    assert is_gone((tmp_path / "pid").read_text())
    for _ in range(50):
        if [path.name for path in scratch.iterdir()] == ["segment.m"]:
            return
        time.sleep(0.1)
    pytest.fail("SPM's private folder is still there")


def test_100_mb_of_output_take_no_memory(
    fake_spm: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FAKE_SPM", "flood")
    tracemalloc.start()
    answer = call([str(fake_spm), "script", str(tmp_path / "segment.m")], tmp_path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert answer.said.endswith("x\nSPM failed: enough\n")
    assert len(answer.said) <= program.KEPT
    assert peak < 10 * program.KEPT


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
    segmenter = resolve_segmenter("spm", rat, str(fake_spm))
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
    segmenter = masks_by(config)[1]
    assert segmenter.time_limit == 7 * 60
    scans = find_scans(config)
    node = scan_workflow(config, scans[0], segmenter).get_node("segment")
    assert node.mem_gb == segmenter.memory_gb == SpmSegmenter.memory_gb
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
    out = tmp_path / "out"
    assert cli.main(words) == 1
    said = capsys.readouterr().err
    assert len(re.findall(r"FAILED sub-01/.*All tissues are the same", said)) == 1
    assert "FAILED sub-02" not in said
    assert "Running job #1" not in said
    masks = [len(list(out.glob(f"sub-{label}/func/*_probseg.nii.gz"))) for label in ("01", "02")]
    assert masks == [0, 3]
    (log,) = (out / "logs").glob("participant_*.log")
    assert re.search(r"SPM on \S+sub01\S+ said:\nRunning job #1\n", log.read_text())


@pytest.mark.usefixtures("no_start")
def test_bias_corrected_files(words: list[str], heads: Path, tmp_path: Path) -> None:
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
    assert validator_errors(tmp_path / "out") == []
    assert cli.main(words) == 0
    assert written() == []


def reference_name(name: str) -> str:
    return name.replace("biascorrected", "reference") + ".nii.gz"


def validator_errors(folder: Path) -> list[str]:
    from test_preprocess import issues

    return issues(folder)


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
    def test_command_is_completed(self, fake_spm: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        assert find_spm(str(fake_spm)) == (str(fake_spm), "script")
        assert find_spm(f"{fake_spm} /opt/mcr script") == (str(fake_spm), "/opt/mcr", "script")
        monkeypatch.chdir(fake_spm.parent)
        assert find_spm("./spm-octave") == (str(fake_spm), "script")  # SPM runs in another folder

    def test_nipype_s_variables(self, fake_spm: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("SPMMCRCMD", f"{fake_spm} /opt/mcr script")
        for _ in range(2):
            assert find_spm() == (str(fake_spm), "/opt/mcr", "script")
            monkeypatch.setenv("FORCE_SPMMCR", "1")

    @pytest.mark.parametrize("variable", ["SPM_HOME", "PATH"])
    def test_octave_is_needed(self, variable: str, fake_spm: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        place = fake_spm.parent if variable == "PATH" else fake_spm.parent.parent
        monkeypatch.setenv(variable, str(place))
        assert find_spm() is None
        octave = fake.write(fake_spm.parent.parent / "octave" / "octave")
        monkeypatch.setenv("OCTAVE_EXEC", str(octave))
        assert find_spm() == (str(fake_spm), "script")
        monkeypatch.delenv("OCTAVE_EXEC")
        monkeypatch.setenv("PATH", os.pathsep.join([os.environ["PATH"], str(octave.parent)]))
        assert find_spm() == (str(fake_spm), "script")
        monkeypatch.setenv("FORCE_SPMMCR", "")
        assert find_spm() is None

    def test_matlab_comes_last(self, fake_spm: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("SPM_HOME", str(fake_spm.parent.parent))
        matlab = fake.write(fake_spm.with_name("spm-matlab"))
        fake.write(fake_spm.with_name("matlab"))
        monkeypatch.setenv("PATH", str(fake_spm.parent))
        assert find_spm() == (str(matlab), "script")
        fake.write(fake_spm.with_name("octave-cli"))
        assert find_spm() == (str(fake_spm), "script")

    def test_compiled_spm_needs_its_runtime(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        program = fake.write(tmp_path / "spm" / "run_spm25.sh")
        monkeypatch.setenv("SPM_HOME", str(tmp_path / "spm"))
        assert find_spm() is None
        with pytest.raises(UserError, match=r"--spm-cmd: \S+/run_spm25.sh needs .*MCR_HOME"):
            find_spm(str(program))
        for release in ("R2023a", "R2024b"):
            (tmp_path / "mcr" / release).mkdir(parents=True)
        assert find_spm() == (str(program), str(tmp_path / "mcr" / "R2024b"), "script")
        for variable in ("MCRROOT", "MCR_HOME"):
            (tmp_path / variable).mkdir()
            monkeypatch.setenv(variable, str(tmp_path / variable))
            assert find_spm() == find_spm(str(program)) == (str(program), str(tmp_path / variable), "script")
        program.chmod(0o644)  # as some archives unpack it
        assert find_spm() == ("/bin/sh", str(program), str(tmp_path / "MCR_HOME"), "script")

    def test_official_image_with_the_runtime(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """In spm/spm-docker ``spm`` is a link to /opt/spm/spm24, and LD_LIBRARY_PATH names the runtime."""
        program = fake.write(tmp_path / "spm" / "spm24")
        (tmp_path / "bin").mkdir()
        (tmp_path / "bin" / "spm").symlink_to(program)
        monkeypatch.setenv("PATH", str(tmp_path / "bin"))
        assert find_spm() == (str(program), "script")
        starter = fake.write(tmp_path / "spm" / "run_spm24.sh")
        runtime = tmp_path / "MATLAB_Runtime" / "R2024b"
        (runtime / "runtime" / "glnxa64").mkdir(parents=True)
        monkeypatch.setenv("LD_LIBRARY_PATH", f"/lib:{runtime}/runtime/glnxa64:{runtime}/bin/glnxa64")
        assert find_spm() == (str(starter), str(runtime), "script")

    def test_official_image_with_octave(
        self, fake_spm: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        (tmp_path / "links").mkdir()
        (tmp_path / "links" / "spm").symlink_to(fake_spm)
        fake.write(tmp_path / "links" / "octave-cli")
        monkeypatch.setenv("PATH", str(tmp_path / "links"))
        assert find_spm() == (str(fake_spm), "script")

    def test_spm_mcr_gets_its_runtime(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        program = fake.write(tmp_path / "bin" / "spm-mcr")
        monkeypatch.setenv("PATH", str(program.parent))
        assert find_spm() is None
        (tmp_path / "mcr" / "v97").mkdir(parents=True)
        assert find_spm() == (str(program), "script")

    def test_own_home_wins_over_another(
        self, rat: Template, fake_spm: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """SPM's wrapper scripts would run the SPM in SPM_HOME, whichever they belong to."""
        monkeypatch.setenv("SEEN", str(tmp_path / "seen"))
        monkeypatch.setenv("FAKE_SPM", "silent")
        monkeypatch.chdir(tmp_path)
        monkeypatch.setenv("SPM_HOME", "other")
        (tmp_path / "segment.m").touch()

        def home() -> str:
            call([str(fake_spm), "script", str(tmp_path / "segment.m")], tmp_path)
            return re.search("SPM_HOME=(.*)", (tmp_path / "seen" / "environment").read_text())[1]

        assert home() == str(tmp_path / "other")
        (tmp_path / "spm.m").touch()
        assert home() == str(tmp_path)

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

    @pytest.mark.parametrize(
        ("banner", "told"),
        [
            ("Hello", "It said: Hello"),
            ("", "It said: nothing"),
            ("spm-octave: line 78: octave-cli: command not found", "GNU Octave is missing"),
            ("License checkout failed.\nLicense Manager Error -15", "MATLAB has no licence here"),
        ],
    )
    def test_spm_that_does_not_start(
        self, banner: str, told: str, fake_spm: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("FAKE_BANNER", banner)
        with pytest.raises(UserError, match=f"SPM does not run: .*{told}") as error:
            spm_banner((str(fake_spm), "script"))
        assert "\n" not in str(error.value)

    def test_old_spm_and_versions(self, fake_spm: Path, tmp_path: Path) -> None:
        assert spm_banner((str(fake_spm), "script")) == ("SPM26, version 00.00", "Octave, version 7.3.0")
        old = tmp_path / "old"
        old.write_text("#!/bin/sh\necho 'SPM8, version 6313 (standalone)'\n")
        old.chmod(0o755)
        with pytest.raises(UserError, match=r"SPM8, version 6313 .* SPM12 or a newer one"):
            spm_version((str(old), "script"))

    def test_not_a_program_after_all(self, tmp_path: Path) -> None:
        text = tmp_path / "spm"
        text.write_bytes(b"\x7fELF but not really")
        text.chmod(0o755)
        with pytest.raises(UserError, match="could not be started: Exec format error"):
            spm_version((str(text), "script"))

    def test_unknown_name(self, rat: Template) -> None:
        with pytest.raises(UserError, match="Known are auto, none, spm, ants"):
            resolve_segmenter("fsl", rat)


real = pytest.mark.skipif(
    "SPM_HOME" not in os.environ, reason="SPM_HOME is not set: SPM itself is not tested"
)


@real
def test_real_spm_tells_of_the_cause(tmp_path: Path) -> None:
    """What failed inside a batch, not only that it did."""
    (tmp_path / "scan.nii").write_text("This is not a scan.\n")
    (tmp_path / "segment.m").write_text(
        "spm('defaults', 'fmri'); spm_jobman('initcfg');\n"
        f"b{{1}}.spm.spatial.preproc.channel.vols = {{'{tmp_path}/scan.nii,1'}};\n"
        f"b{{1}}.spm.spatial.preproc.tissue(1).tpm = {{'{tmp_path}/none.nii,1'}};\n"
        "try; spm_jobman('run', b); catch e; fprintf('SPM failed: %s\\n', e.message); rethrow(e); end\n"
    )
    answer = call([*(find_spm() or ()), str(tmp_path / "segment.m")], tmp_path)
    assert answer.code == 1
    assert "none.nii" in program.last_words(answer.said)


@real
@pytest.mark.slow
def test_real_spm(rat: Template, scan: Path, truth: np.ndarray, tmp_path: Path) -> None:
    (tmp_path / ODD).mkdir()
    made = run(resolve_segmenter("spm", rat), scan, tmp_path / ODD)
    assert dice(made.brain, truth > 0) > 0.85
    assert dice(made.dseg == 1, truth == 1) > 0.75
    assert made.provenance["BiasCorrection"].startswith("SPM")
    assert list((tmp_path / ODD).iterdir()) == []
