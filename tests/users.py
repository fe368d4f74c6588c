"""What another user than root may do, shown by another user: what root may says nothing of it."""

import multiprocessing
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from paths import ROOT

UNKNOWN = 4321  # the system has no name and no home for this number


@contextmanager
def folder_for_all() -> Iterator[Path]:
    """A new folder that any user may write to; pytest's own are for one user alone.

    In it, `closed` may not be looked into, `fixed` not be written to, and `home` and `out` may both.
    """
    place = Path(tempfile.mkdtemp()).resolve()
    try:
        for name, mode in (("closed", 0), ("fixed", 0o555), ("home", 0o777), ("out", 0o777)):
            (place / name).mkdir()
            (place / name).chmod(mode)
        place.chmod(0o777)
        yield place
    finally:
        for name in ("closed", "fixed"):
            (place / name).chmod(0o700)
        shutil.rmtree(place)


def as_user(function: Callable[[], Any]) -> Any:
    """What `function` returns or raises in a process of its own, not root's."""

    def work(answer: Any) -> None:
        if os.geteuid() == 0:
            os.setgroups([])
            os.setresgid(UNKNOWN, UNKNOWN, UNKNOWN)
            os.setresuid(UNKNOWN, UNKNOWN, UNKNOWN)
        try:
            answer.send((function(), None))
        except Exception as error:
            answer.send((None, error))

    processes = multiprocessing.get_context("fork")
    mine, its = processes.Pipe()
    process = processes.Process(target=work, args=(its,))
    process.start()
    its.close()
    value, error = mine.recv()
    process.join()
    if error:
        raise error
    return value


def python_of_unknown_user(
    *words: str | Path, cwd: Path, **environment: str | None
) -> "subprocess.CompletedProcess[str]":
    """Run a new Python as a user whom the system does not know; a variable that is None is taken away.

    Skips where that is not possible: the tests are not run by root, or their packages are root's alone.
    """
    python = f"/usr/bin/python3.{sys.version_info[1]}"  # the tests' own may lie in root's home
    packages = [path for path in sys.path if path.endswith("site-packages")]
    if os.geteuid() != 0 or not shutil.which("setpriv"):
        pytest.skip("becoming another user needs root and setpriv")
    if not all(map(_is_for_all, (python, str(ROOT), *packages))):
        pytest.skip(f"another user has no {python}, or may not read this folder or the packages")
    values = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), *packages]), **environment}
    values["PYTHONDONTWRITEBYTECODE"] = "1"
    user = ["setpriv", f"--reuid={UNKNOWN}", f"--regid={UNKNOWN}", "--clear-groups"]
    return subprocess.run(
        [*user, python, *map(str, words)],
        cwd=cwd,
        env={name: value for name, value in values.items() if value is not None},
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )


def _is_for_all(path: str) -> bool:
    """Whether others may read what is there, through all folders above it."""
    real = Path(path).resolve()
    return real.exists() and all(place.stat().st_mode & 0o005 == 0o005 for place in (real, *real.parents))
