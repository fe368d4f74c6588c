"""Temporary files and caches go to the work folder where, and only where, they have no other place."""

import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from bids_alphagan import scratch
from bids_alphagan.errors import UserError
from bids_alphagan.scratch import CACHES, use_scratch
from bids_alphagan.templates import templateflow_home


@pytest.fixture
def places(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """Home, temporary files and every cache lie in one folder."""
    home = tmp_path / "home"
    home.mkdir()
    for name in (*CACHES, "TEMP", "TMP", "TEMPLATEFLOW_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setenv("TMPDIR", str(home))
    monkeypatch.setattr(tempfile, "tempdir", None)
    for name in (*CACHES, "TEMPLATEFLOW_HOME"):  # so that what use_scratch sets is taken back
        monkeypatch.setenv(name, "")
        del os.environ[name]
    return tmp_path


def _read_only(monkeypatch: pytest.MonkeyPatch, but: Path) -> None:
    """As on a system whose root cannot be written: the tests may run as root, who writes everywhere."""
    writes = os.access
    monkeypatch.setattr(
        scratch.os, "access", lambda path, mode: Path(path).is_relative_to(but) and writes(path, mode)
    )


def test_what_can_be_written_is_left_alone(places: Path) -> None:
    before = dict(os.environ)
    use_scratch(places / "work")
    assert dict(os.environ) == before
    assert not (places / "work").exists()


def test_without_a_place_to_write_all_goes_to_the_work_folder(
    places: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    work = places / "out" / ".work"
    work.mkdir(parents=True)
    _read_only(monkeypatch, but=places / "out")
    use_scratch(work)
    assert tempfile.gettempdir() == str(work / "tmp")
    assert all(Path(os.environ[name]).is_relative_to(work / "cache") for name in CACHES)


def test_one_cache_that_is_writable_stays(places: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (places / "mine").mkdir()
    (places / "out").mkdir()
    monkeypatch.setenv("MPLCONFIGDIR", str(places / "mine" / "new"))
    writes = os.access
    monkeypatch.setattr(
        scratch.os,
        "access",
        lambda path, mode: not Path(path).is_relative_to(places / "home") and writes(path, mode),
    )
    use_scratch(places / "out")
    assert os.environ["MPLCONFIGDIR"] == str(places / "mine" / "new")
    assert os.environ["NIPYPE_CONFIG_DIR"].startswith(str(places / "out"))


def test_templates_in_a_home_that_can_only_be_read_are_found(
    places: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (places / "home/.cache/templateflow/tpl-Fischer344").mkdir(parents=True)
    (places / "out").mkdir()
    _read_only(monkeypatch, but=places / "out")
    use_scratch(places / "out")
    assert Path(os.environ["XDG_CACHE_HOME"]).is_relative_to(places / "out")
    assert templateflow_home() == places / "home/.cache/templateflow"


def test_nothing_at_all_to_write_to_is_one_clear_error(places: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _read_only(monkeypatch, but=places / "out")
    (places / "file").touch()
    with pytest.raises(UserError, match=r"file/work: cannot be written \(Not a directory\)"):
        use_scratch(places / "file" / "work")


def test_the_libraries_write_where_they_are_sent(tmp_path: Path) -> None:
    """matplotlib and nipype read the very variables that CACHES names."""
    program = "import matplotlib, nipype; print(matplotlib.get_configdir(), nipype.config.data_file)"
    environment = {**os.environ, "HOME": "/nonexistent"}
    environment |= {name: str(tmp_path / name) for name in CACHES}
    said = subprocess.run(
        [sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=True
    )
    assert str(tmp_path / "MPLCONFIGDIR") in said.stdout
    assert str(tmp_path / "NIPYPE_CONFIG_DIR" / "nipype.json") in said.stdout
