"""The same recipe gives the same files: two builds of the Dockerfile, and Singularity.def's %post."""

from collections.abc import Callable
from pathlib import Path

import pytest
from engine import Engine
from trees import differences, files

# What may differ between two builds: files that the engine itself writes for each container.
EXCEPTIONS = {"etc/hostname", "etc/hosts", "etc/resolv.conf"}


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
