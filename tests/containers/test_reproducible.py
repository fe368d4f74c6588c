"""The same recipe gives the same files: two builds of the Dockerfile, and Singularity.def's %post."""

import hashlib
import os
import stat
from collections.abc import Callable
from pathlib import Path

import pytest
from engine import Engine

# What may differ between two builds: files that the engine itself writes for each container.
EXCEPTIONS = {"etc/hostname", "etc/hosts", "etc/resolv.conf"}


def files(root: Path) -> dict[str, str]:
    """Every path below `root`: its kind and mode, owner, and what it holds."""
    found = {}
    for folder, names, leaves in os.walk(root):
        for name in (*names, *leaves):
            path = Path(folder) / name
            told = path.lstat()
            holds = ""
            if stat.S_ISLNK(told.st_mode):
                holds = str(path.readlink())
            elif stat.S_ISREG(told.st_mode):
                with path.open("rb") as file:
                    holds = hashlib.file_digest(file, "sha256").hexdigest()
            found[str(path.relative_to(root))] = f"{told.st_mode:o} {told.st_uid}:{told.st_gid} {holds}"
    return found


def differences(first: dict[str, str], second: dict[str, str]) -> list[str]:
    return sorted(path for path in first.keys() | second.keys() if first.get(path) != second.get(path))


def test_two_builds_give_the_same_files(
    engine: Engine, build: Callable[[str], str], contents: Path, tmp_path: Path
) -> None:
    second = build("localhost/bids-alphagan:again")
    again = engine.unpack(second, tmp_path / "again")
    engine.remove(second)
    first = files(contents)
    assert len(first) > 10_000
    assert set(differences(first, files(again))) <= EXCEPTIONS


@pytest.mark.parametrize("change", ["content", "mode", "new", "link"])
def test_a_difference_is_seen(change: str, tmp_path: Path) -> None:
    for name in ("one", "two"):
        (tmp_path / name / "folder").mkdir(parents=True)
        (tmp_path / name / "folder" / "file").write_text("x")
        (tmp_path / name / "link").symlink_to("folder")
    one, two = tmp_path / "one", tmp_path / "two"
    assert differences(files(one), files(two)) == []
    if change == "content":
        (two / "folder" / "file").write_text("y")
    elif change == "mode":
        (two / "folder" / "file").chmod(0o700)
    elif change == "new":
        (two / "folder" / "other").touch()
    else:
        (two / "link").unlink()
        (two / "link").symlink_to("elsewhere")
    assert len(differences(files(one), files(two))) == 1
