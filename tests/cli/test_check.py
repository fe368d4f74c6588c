"""bids-alphagan-check: what a run would find here, and whether one is possible."""

import http.server
import re
import shutil
import subprocess
import sys
import threading
from importlib import metadata
from pathlib import Path

import pytest
from users import as_user, folder_for_all

from bids_alphagan import __version__
from bids_alphagan.cli import check as check_cli
from bids_alphagan.cli import main as cli
from bids_alphagan.config import Config
from bids_alphagan.templates import fetch


@pytest.fixture(autouse=True)
def bare(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No SPM and no templates but those that a test names."""
    for name in ("SPM_HOME", "SPMMCRCMD", "FORCE_SPMMCR", "MCR_HOME", "MCRROOT"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("PATH", str(tmp_path / "empty"))
    monkeypatch.setenv("TEMPLATEFLOW_HOME", str(tmp_path / "templateflow"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr("bids_alphagan.templates.fetch.reachable", lambda: True)


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
    assert found["TEMPLATEFLOW_HOME"] == ("missing", f"{tmp_path / 'templateflow'} does not exist")


def test_optional_pieces_may_be_missing(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", "/nonexistent")
    monkeypatch.setattr("sys.executable", "/nonexistent/python")
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    code, found = check(capsys)
    assert code == 0
    states = {what for what, (state, _) in found.items() if state == "missing"}
    assert states == {"GPU", "BIDS validator", "SPM", "template", "TEMPLATEFLOW_HOME", "home"}
    assert found["template"][1].startswith("A run would fetch it.")
    assert "tpl-Fischer344_T2w.nii.gz" in found["template"][1]


def test_without_a_template_and_a_network_no_run_is_possible(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, template: Path, tmp_path: Path
) -> None:
    monkeypatch.setattr("bids_alphagan.templates.fetch.reachable", lambda: False)
    assert check_cli.main([]) == 1
    said = capsys.readouterr().out
    assert said.endswith("A run is not possible: see template.\n")
    assert table(said)["template"][1].startswith("TemplateFlow's archive does not answer.")
    assert check_cli.main(["--template", str(template)]) == 0
    (tmp_path / "cache" / "templateflow").mkdir(parents=True)
    shutil.copytree(template, tmp_path / "cache" / "templateflow" / "tpl-Fischer344")
    for path in (tmp_path / "cache/templateflow/tpl-Fischer344").iterdir():
        path.rename(path.with_name(path.name.replace("RatPhantom", "Fischer344")))
    assert check_cli.main([]) == 0


def test_a_damaged_default_template_stops_a_run(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    folder = tmp_path / "templateflow" / "tpl-Fischer344"
    folder.mkdir(parents=True)
    for part in ("T2w", "desc-brain_mask", *(f"label-{tissue}_probseg" for tissue in ("GM", "WM", "CSF"))):
        (folder / f"tpl-Fischer344_{part}.nii.gz").write_text("no image")
    code, found = check(capsys)
    assert (code, found["template"][0]) == (1, "broken")


@pytest.mark.parametrize(("port", "answers"), [(None, True), (9, False)])
def test_whether_the_archive_answers(
    port: int | None, answers: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.undo()  # of `bare`
    for name in ("http_proxy", "HTTP_PROXY", "ALL_PROXY", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
    with http.server.HTTPServer(("127.0.0.1", 0), http.server.SimpleHTTPRequestHandler) as server:
        threading.Thread(target=server.handle_request, daemon=True).start()
        url = f"http://127.0.0.1:{port or server.server_address[1]}"
        monkeypatch.setattr(fetch, "ARCHIVE", url)
        assert fetch.reachable() is answers


def test_what_may_not_be_accessed_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    with folder_for_all() as place:
        for folder in ("closed", "closed/home"):
            monkeypatch.setenv("TEMPLATEFLOW_HOME", str(place / folder))
            findings = {finding.what: finding for finding in as_user(check_cli.findings)}
            assert findings["TEMPLATEFLOW_HOME"].state == "missing"
            assert re.search(r"cannot be (accessed|written to)", findings["TEMPLATEFLOW_HOME"].text)


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
