"""Temporary files and other libraries' caches, where their usual places cannot be written.

A container with a read-only root may have no /tmp, and a user whom the system does not know has no home.
"""

import os
import tempfile
from pathlib import Path

from bids_alphagan.common.errors import unwritable

# Each library's variable, and its place below the home where the variable is not set.
CACHES = {
    "XDG_CACHE_HOME": ".cache",
    "MPLCONFIGDIR": ".config/matplotlib",
    "NIPYPE_CONFIG_DIR": ".nipype",
    "TRITON_CACHE_DIR": ".triton/cache",
    "CUDA_CACHE_PATH": ".nv/ComputeCache",
}
TEMPORARY = ("/tmp", "/var/tmp")
CONTAINER = "BIDS_ALPHAGAN_CONTAINER"  # set in our images


def use_scratch(folder: Path) -> None:
    """Send to folders below `folder` what has no place to be written to. What has one is left alone.

    In our images all caches go there, but those whose variable the user has set: a home that is mounted is
    not the container's to write to. To be called before nipype, matplotlib and the like are imported: they
    look for their places only once.

    Raises UserError where `folder` is needed and cannot be written.
    """
    wanted = os.environ.get("TMPDIR")
    usual = [wanted, *map(os.environ.get, ("TEMP", "TMP")), *TEMPORARY]
    usable = next((place for place in usual if place and _tried(Path(place)) is None), None)
    if usable is None:
        temporary = _within(folder, "tmp")
        temporary.mkdir(parents=True, exist_ok=True)
        usable = wanted = str(temporary)
    if wanted:  # other programs do not look for another place
        os.environ["TMPDIR"] = usable
        tempfile.tempdir = None  # it is looked for anew
    home = user_home()
    if home is None or not _searchable(home):
        home = _within(folder, "cache/home")
        os.environ["HOME"] = str(home)
    templates = Path(os.environ.get("XDG_CACHE_HOME") or home / CACHES["XDG_CACHE_HOME"]) / "templateflow"
    if os.access(templates, os.R_OK | os.X_OK):  # a home that can only be read may have them
        os.environ.setdefault("TEMPLATEFLOW_HOME", str(templates))
    for variable, below in CACHES.items():
        given = os.environ.get(variable)
        moved = trouble(Path(given)) if given else CONTAINER in os.environ or trouble(home / below)
        if moved:
            os.environ[variable] = str(_within(folder, f"cache/{variable.lower()}"))


def user_home() -> Path | None:
    """The user's home; None where HOME is not set and the system does not know the user."""
    try:
        return Path.home()
    except RuntimeError:
        return None


def trouble(place: Path) -> OSError | None:
    """Why `place` is no folder to write to, nor can be made one; None where it can. Nothing is left of it."""
    place = place.absolute()
    return _tried(next(path for path in (place, *place.parents) if os.path.lexists(path)))


def _tried(folder: Path) -> OSError | None:
    """What comes of writing a file there: permissions alone do not tell it of every kind of disk."""
    try:
        with tempfile.TemporaryFile(dir=folder):
            return None
    except OSError as error:
        return error


def _searchable(folder: Path) -> bool:
    """Whether one can look for files in a folder, which need not be there."""
    try:
        (folder / CACHES["XDG_CACHE_HOME"]).stat()
    except (FileNotFoundError, NotADirectoryError):
        return True
    except OSError:
        return False
    return True


def _within(folder: Path, name: str) -> Path:
    """A place below the work folder. Raises UserError where it cannot be written."""
    place = (folder / name).absolute()
    for path in (folder, place):
        if error := trouble(path):
            raise unwritable(path, error)
    return place
