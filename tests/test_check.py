"""bids-alphagan-check: what a run would find here, and whether one is possible."""

import re
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import pytest

from bids_alphagan import __version__, check_cli, cli
from bids_alphagan.config import Config


@pytest.fixture(autouse=True)
def bare(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No SPM and no templates but those that a test names."""
    for name in ("SPM_HOME", "SPMMCRCMD", "FORCE_SPMMCR", "MCR_HOME", "MCRROOT"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("PATH", str(tmp_path / "empty"))
    monkeypatch.setenv("TEMPLATEFLOW_HOME", str(tmp_path / "templateflow"))


def table(said: str) -> dict[str, tuple[str, str]]:
    """State and text by what was looked for."""
    rows = re.findall(r"^(ok|missing|broken) +(.+?)  +(.*)$", said, re.MULTILINE)
    return {what: (state, text) for state, what, text in rows}


def check(capsys: pytest.CaptureFixture[str], *words: object) -> tuple[int, dict[str, tuple[str, str]]]:
    code = check_cli.main([str(word) for word in words])
    return code, table(capsys.readouterr().out)


def test_what_is_found(
    fake_spm: Path, template: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, found = check(capsys, "--spm-cmd", fake_spm, "--template", template)
    assert code == 0
    assert found["bids-alphagan"][1].startswith(__version__)
    assert found["python"][1].startswith(sys.version.split()[0])
    assert found["torch"] == ("ok", found["torch"][1])
    for package in ("antspyx", "nipype", "pybids"):
        assert found[package] == ("ok", metadata.version(package))
    assert found["SPM"] == ("ok", f"SPM26, version 00.00; Octave, version 7.3.0 ({fake_spm} script)")
    assert found["template"][0] == "ok"
    assert re.search(r"RatPhantom: \d+ x \d+ x \d+ voxels of .* mm, rattus norvegicus", found["template"][1])
    assert str(template) in found["template"][1]
    assert re.search(r"\d+ cores, \d+ GB", found["machine"][1])
    assert re.fullmatch(r"\d+\.\d+\.\d+", found["BIDS validator"][1])
    assert found["TEMPLATEFLOW_HOME"] == ("missing", f"{tmp_path / 'templateflow'} is not there")


def test_optional_pieces_may_be_missing(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("HOME")
    monkeypatch.setattr("sys.executable", "/nonexistent/python")
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    code, found = check(capsys)
    assert code == 0
    states = {what for what, (state, _) in found.items() if state == "missing"}
    assert states == {"GPU", "BIDS validator", "SPM", "template", "TEMPLATEFLOW_HOME", "home"}
    assert "tpl-Fischer344_T2w.nii.gz" in found["template"][1]


@pytest.mark.parametrize(
    ("words", "row"),
    [
        (["--spm-cmd", "/no/spm"], ("SPM", "broken", "/no/spm is not a program")),
        (["--spm-cmd", "/bin/false"], ("SPM", "broken", "SPM does not run: /bin/false --version")),
        (["--template", "Fischer344"], ("template", "missing", "is not in")),
        (["--template", "/etc"], ("template", "broken", "is not a template")),
    ],
)
def test_what_is_asked_for_must_be_there(
    words: list[str], row: tuple[str, str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    code, found = check(capsys, *words)
    what, state, text = row
    assert code == 1
    assert found[what][0] == state
    assert text in found[what][1]


def test_broken_spm_stops_a_run_even_unasked(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SPMMCRCMD", "/no/spm")
    code, found = check(capsys)
    assert (code, found["SPM"][0]) == (1, "broken")


def test_missing_and_broken_packages(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def version(name: str) -> str:
        if name == "nipype":
            raise metadata.PackageNotFoundError(name)
        return "1.0"

    monkeypatch.setattr("importlib.metadata.version", version)
    monkeypatch.setitem(sys.modules, "torch", None)  # its import fails
    code, found = check(capsys)
    assert code == 1
    assert found["nipype"] == ("missing", "pip install nipype")
    assert found["torch"][0] == found["GPU"][0] == "broken"
    assert found["antspyx"] == ("ok", "1.0")


def test_gpu(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    class Card:
        name, total_memory = "NVIDIA X", 80 * 2**30

    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setattr("torch.cuda.device_count", lambda: 2)
    monkeypatch.setattr("torch.cuda.get_device_properties", lambda _: Card)
    monkeypatch.setattr("torch.cuda.is_bf16_supported", lambda **_: True)
    assert check(capsys)[1]["GPU"] == ("ok", "NVIDIA X, 80 GB, bf16; NVIDIA X, 80 GB, bf16")


def test_version_with_v_is_the_check(capsys: pytest.CaptureFixture[str], fake_spm: Path) -> None:
    assert cli.main(["--version", "-v", "--spm-cmd", str(fake_spm)]) == 0
    assert table(capsys.readouterr().out)["SPM"][0] == "ok"


def test_plain_version_is_one_line() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "bids_alphagan", "--version"], capture_output=True, text=True
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, f"bids-alphagan {__version__}\n", "")


def test_default_template_is_the_app_s() -> None:
    assert Config.__dataclass_fields__["template"].default == check_cli.DEFAULT_TEMPLATE
