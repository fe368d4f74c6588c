"""Temporary files and caches go to the work folder where, and only where, they have no other place."""

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from users import as_user, folder_for_all, python_of_unknown_user

from bids_alphagan.common.errors import UserError
from bids_alphagan.common.process import scratch
from bids_alphagan.common.process.scratch import CACHES, CONTAINER, trouble, use_scratch
from bids_alphagan.templates import templateflow_homes


@pytest.fixture
def folder() -> Iterator[Path]:
    with folder_for_all() as path:
        yield path


@pytest.fixture
def no_tmp(monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a system whose root cannot be written."""
    monkeypatch.setattr(scratch, "TEMPORARY", ())


def after(work: Path, **environment: object) -> dict[str, str]:
    """The environment that use_scratch makes of this one, for a user who is not root; and where files go."""

    def program() -> dict[str, str]:
        os.environ.clear()
        os.environ.update({name: str(value) for name, value in environment.items()})
        tempfile.tempdir = None
        use_scratch(work)
        homes = os.pathsep.join(map(str, templateflow_homes()))
        return {**os.environ, "temporary": tempfile.gettempdir(), "templates": homes}

    return dict(as_user(program))


def test_what_can_be_written_is_left_alone(folder: Path) -> None:
    home = folder / "home"
    environment = after(folder / "work", HOME=home, TMPDIR=home)
    where = {"temporary": str(home), "templates": f"{home}/.cache/templateflow"}
    assert environment == {"HOME": str(home), "TMPDIR": str(home), **where}
    assert not (folder / "work").exists()
    assert list(home.iterdir()) == []


@pytest.mark.usefixtures("no_tmp")
def test_without_a_place_to_write_all_goes_to_the_work_folder(folder: Path) -> None:
    work = folder / "out" / ".work"
    environment = after(work, HOME=folder / "fixed")
    assert environment["temporary"] == environment["TMPDIR"] == str(work / "tmp")
    assert all(Path(environment[name]).is_relative_to(work / "cache") for name in CACHES)
    assert (work / "tmp").is_dir()


@pytest.mark.parametrize("name", ["HOME", "XDG_CACHE_HOME", "TMPDIR", "TEMP", *list(CACHES)[1:]])
@pytest.mark.parametrize("below", ["", "new/er"])
def test_a_folder_that_may_not_be_searched_is_not_used(name: str, below: str, folder: Path) -> None:
    environment = after(
        folder / "out" / "wk", **({"HOME": folder / "home"} | {name: folder / "closed" / below})
    )
    used = [environment[variable] for variable in ("HOME", "TMPDIR", *CACHES) if variable in environment]
    assert not [
        path for path in (*used, environment["temporary"], environment["templates"]) if "closed" in path
    ]
    assert name == "TEMP" or environment[name].startswith(tempfile.gettempdir())


def test_a_user_whom_the_system_does_not_know_gets_a_home(folder: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("becoming another user needs root")
    assert after(folder / "out")["HOME"] == str(folder / "out" / "cache" / "home")


def test_one_cache_that_is_writable_stays(folder: Path) -> None:
    environment = after(folder / "out", HOME=folder / "fixed", MPLCONFIGDIR=folder / "home" / "new")
    assert environment["MPLCONFIGDIR"] == str(folder / "home" / "new")
    assert environment["NIPYPE_CONFIG_DIR"] == str(folder / "out" / "cache" / "nipype_config_dir")
    assert not (folder / "home" / "new").exists()


def test_in_an_image_caches_go_to_the_work_folder_unless_told_otherwise(folder: Path) -> None:
    """The home may be mounted, and /tmp be shared with others, who could lay files into a known folder."""
    mine = folder / "home" / "mine"
    image = {CONTAINER: "singularity:bids-alphagan:0.1", "MPLCONFIGDIR": mine}
    environment = after(folder / "out", HOME=folder / "home", **image)
    assert environment["HOME"] == str(folder / "home")
    assert environment["MPLCONFIGDIR"] == str(mine)
    others = [environment[name] for name in CACHES if name != "MPLCONFIGDIR"]
    assert all(path.startswith(f"{folder}/out/cache/") for path in others)


def test_templates_in_a_home_that_can_only_be_read_are_found(folder: Path) -> None:
    """And what is fetched goes elsewhere."""
    (folder / "fixed" / ".cache" / "templateflow" / "tpl-Fischer344").mkdir(parents=True)
    (folder / "fixed" / ".cache").chmod(0o555)
    environment = after(folder / "out", HOME=folder / "fixed")
    fetched = f"{folder}/out/cache/xdg_cache_home/templateflow"
    assert environment["templates"] == f"{folder}/fixed/.cache/templateflow:{fetched}"


@pytest.mark.usefixtures("no_tmp")
@pytest.mark.parametrize("name", ["tmp", "cache"])
def test_a_work_folder_that_is_partly_anothers_is_one_clear_error(name: str, folder: Path) -> None:
    (folder / "out" / name).mkdir(mode=0o555)
    with pytest.raises(UserError, match=rf"out/{name}\S*: cannot be written \(Permission denied\)"):
        after(folder / "out", HOME=folder / "fixed")


@pytest.mark.usefixtures("no_tmp")
def test_nothing_at_all_to_write_to_is_one_clear_error(folder: Path) -> None:
    (folder / "file").touch()
    with pytest.raises(UserError, match=r"file/work: cannot be written \(Not a directory\)"):
        after(folder / "file" / "work", HOME=folder / "fixed")


def _file(folder: Path) -> Path:
    (folder / "file").touch()
    return folder / "file"


def _dead_link(folder: Path) -> Path:
    (folder / "link").symlink_to(folder / "home" / "nowhere")
    return folder / "link"


@pytest.mark.parametrize(
    ("make", "good"),
    [
        (lambda folder: folder / "home", True),
        (lambda folder: folder / "home" / "a" / "b", True),
        (lambda folder: folder / "fixed", False),
        (lambda folder: folder / "fixed" / "a", False),
        (lambda folder: folder / "closed", False),
        (lambda folder: folder / "closed" / "a" / "b", False),
        (_file, False),
        (_dead_link, False),
        (lambda folder: Path("/proc/a"), False),
    ],
)
def test_where_files_can_be_made(make: Callable[[Path], Path], good: bool, folder: Path) -> None:
    assert (as_user(lambda: trouble(make(folder))) is None) is good
    assert not list((folder / "home").iterdir())


@pytest.mark.slow
@pytest.mark.parametrize(
    "lacks", [{"HOME": "closed"}, {"HOME": None}, {"XDG_CACHE_HOME": "closed/x"}], ids=str
)
def test_a_run_without_a_home(lacks: dict[str, str | None], folder: Path, heads: Path) -> None:
    """pybids, nipype and matplotlib, too, look for one."""
    shutil.copytree(heads, folder / "rats", ignore=shutil.ignore_patterns("derivatives"))
    words = ("--participant-label", "01", "--segmenter", "none", "--preset", "demo", "--skip-bids-validation")
    environment = {name: value and str(folder / value) for name, value in lacks.items()}
    done = python_of_unknown_user(
        "-m", "bids_alphagan", "rats", "out", "participant", *words, cwd=folder, **environment
    )
    assert done.returncode == 0, done.stderr
    assert "1 of 1 scans are ready" in done.stderr


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
