"""SPM as a program: how it is found, run and stopped. With one that answers as it does, and itself."""

import os
import re
import signal
import subprocess
import sys
import time
import tracemalloc
from pathlib import Path

import fake_spm as fake
import pytest

from bids_alphagan.common.errors import UserError
from bids_alphagan.segmenters import resolve_segmenter
from bids_alphagan.segmenters import spm_program as program
from bids_alphagan.segmenters.ants import AntsSegmenter
from bids_alphagan.segmenters.options import MaskOptions
from bids_alphagan.segmenters.spm_program import call, find_spm, spm_banner, spm_version
from bids_alphagan.templates import Template

VARIABLES = ("SPM_HOME", "SPMMCRCMD", "FORCE_SPMMCR", "MCR_HOME", "MCRROOT", "LD_LIBRARY_PATH", "OCTAVE_EXEC")


@pytest.fixture
def no_spm(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("PATH", str(tmp_path / "empty"))
    monkeypatch.setattr(program, "RUNTIMES", (str(tmp_path / "mcr"),))


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
    assert fake.is_gone((tmp_path / "pid").read_text())
    for _ in range(50):
        if [path.name for path in scratch.iterdir()] == ["segment.m"]:
            return
        time.sleep(0.1)
    pytest.fail("SPM's private folder is still there")


@pytest.mark.parametrize(
    ("files", "variables", "message"),
    [
        (["bin/spm-octave"], {}, "GNU Octave was not found. Install GNU Octave, or set OCTAVE_EXEC to it"),
        (["bin/spm-octave"], {"OCTAVE_EXEC": "/none/octave"}, "OCTAVE_EXEC=/none/octave is not a program"),
        (["bin/spm-octave"], {"FORCE_SPMMCR": "1"}, "no compiled SPM, which FORCE_SPMMCR requires"),
        (["run_spm25.sh"], {}, "its MATLAB runtime was not found. Set MCR_HOME to its folder"),
        ([], {}, "no SPM that could be run. Give SPM's own folder, or unset SPM_HOME"),
    ],
)
def test_an_spm_home_that_does_not_work_says_why(
    files: list[str],
    variables: dict[str, str],
    message: str,
    no_spm: None,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    home = tmp_path / "spm"
    for name in files or ["README.md"]:
        (home / name).parent.mkdir(parents=True, exist_ok=True)
        (home / name).touch(0o755)
    monkeypatch.setenv("SPM_HOME", str(home))
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(UserError, match=re.escape(message)):
        find_spm()


def test_an_spm_home_that_does_not_exist_is_named(
    no_spm: None,
    rat: Template,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setenv("SPM_HOME", str(tmp_path / "none"))
    assert isinstance(resolve_segmenter("auto", rat, MaskOptions()), AntsSegmenter)
    assert f"SPM_HOME={tmp_path / 'none'} does not exist" in caplog.text
    with pytest.raises(UserError, match="none does not exist"):
        resolve_segmenter("spm", rat, MaskOptions())


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

        def is_not_found() -> bool:
            """An SPM_HOME that does not work is an error; a program on the PATH is ignored."""
            if variable == "PATH":
                return find_spm() is None
            with pytest.raises(UserError, match="SPM_HOME="):
                find_spm()
            return True

        assert is_not_found()
        octave = fake.write(fake_spm.parent.parent / "octave" / "octave")
        monkeypatch.setenv("OCTAVE_EXEC", str(octave))
        assert find_spm() == (str(fake_spm), "script")
        monkeypatch.delenv("OCTAVE_EXEC")
        monkeypatch.setenv("PATH", os.pathsep.join([os.environ["PATH"], str(octave.parent)]))
        assert find_spm() == (str(fake_spm), "script")
        monkeypatch.setenv("FORCE_SPMMCR", "")
        assert is_not_found()

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
        with pytest.raises(UserError, match="MATLAB runtime was not found"):
            find_spm()
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
            resolve_segmenter("spm", rat, MaskOptions())
        segmenter = resolve_segmenter("auto", rat, MaskOptions())
        assert segmenter.name == "ants"
        assert "SPM was not found" in caplog.text
        assert "SPM was not found" in segmenter.describe()["Note"]

    def test_wrong_command(self, rat: Template) -> None:
        with pytest.raises(UserError, match="--spm-cmd: /no/spm is not a program"):
            resolve_segmenter("auto", rat, MaskOptions(spm_cmd="/no/spm"))
        with pytest.raises(UserError, match="does not run"):
            spm_version(("/bin/false", "script"))

    @pytest.mark.parametrize(
        ("banner", "message"),
        [
            ("Hello", "Its output: Hello"),
            ("", "Its output: nothing"),
            ("spm-octave: line 78: octave-cli: command not found", "GNU Octave is missing"),
            ("License checkout failed.\nLicense Manager Error -15", "MATLAB has no licence here"),
        ],
    )
    def test_spm_that_does_not_start(
        self, banner: str, message: str, fake_spm: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("FAKE_BANNER", banner)
        with pytest.raises(UserError, match=f"SPM does not run: .*{message}") as error:
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
        with pytest.raises(UserError, match="Choose auto, none, spm, ants"):
            resolve_segmenter("fsl", rat, MaskOptions())


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
