"""Temporary files and the caches of other libraries, if their usual folders cannot be written.

A container with a read-only root may have no /tmp, and a user unknown to the system has no home.
"""

import os
import tempfile
from pathlib import Path

from bids_alphagan.common.errors import unwritable

# Each library's environment variable, and its default folder below the home.
CACHES = {
    "XDG_CACHE_HOME": ".cache",
    "MPLCONFIGDIR": ".config/matplotlib",
    "NIPYPE_CONFIG_DIR": ".nipype",
    "TRITON_CACHE_DIR": ".triton/cache",
    "CUDA_CACHE_PATH": ".nv/ComputeCache",
}
TEMPORARY = ("/tmp", "/var/tmp")
CONTAINER = "BIDS_ALPHAGAN_CONTAINER"  # set in this project's container images


def use_scratch(folder: Path) -> None:
    """Redirect temporary files and caches that have no writable folder to `folder`; others stay where they are.

    In this project's container images all caches are redirected, except those whose variable the user has set: the
    container must not write to a mounted home. Call this before nipype, matplotlib and the like are imported,
    because they look up their folders only once.

    Raises UserError if `folder` is needed and cannot be written.
    """
    tmpdir = os.environ.get("TMPDIR")
    candidates = [tmpdir, *map(os.environ.get, ("TEMP", "TMP")), *TEMPORARY]
    usable = next(
        (candidate for candidate in candidates if candidate and _tried(Path(candidate)) is None), None
    )
    if usable is None:
        temporary = _within(folder, "tmp")
        temporary.mkdir(parents=True, exist_ok=True)
        usable = tmpdir = str(temporary)
    if tmpdir:  # other programs use TMPDIR as it is
        os.environ["TMPDIR"] = usable
        tempfile.tempdir = None  # looked up again on the next use
    home = user_home()
    if home is None or not _searchable(home):
        home = _within(folder, "cache/home")
        os.environ["HOME"] = str(home)
    templates = Path(os.environ.get("XDG_CACHE_HOME") or home / CACHES["XDG_CACHE_HOME"]) / "templateflow"
    if os.access(templates, os.R_OK | os.X_OK):  # a read-only home may have templates
        os.environ.setdefault("TEMPLATEFLOW_HOME", str(templates))
    for variable, below in CACHES.items():
        given = os.environ.get(variable)
        moved = trouble(Path(given)) if given else CONTAINER in os.environ or trouble(home / below)
        if moved:
            os.environ[variable] = str(_within(folder, f"cache/{variable.lower()}"))


def user_home() -> Path | None:
    """The user's home; None if HOME is not set and the system does not know the user."""
    try:
        return Path.home()
    except RuntimeError:
        return None


def trouble(folder: Path) -> OSError | None:
    """The error that prevents writing to `folder` or creating it; None if there is none. Leaves nothing behind."""
    folder = folder.absolute()
    return _tried(next(path for path in (folder, *folder.parents) if os.path.lexists(path)))


def _tried(folder: Path) -> OSError | None:
    """The error of writing a file there. On some file systems permissions alone do not tell."""
    try:
        with tempfile.TemporaryFile(dir=folder):
            return None
    except OSError as error:
        return error


def _searchable(folder: Path) -> bool:
    """Whether files in a folder, which need not exist, can be looked up."""
    try:
        (folder / CACHES["XDG_CACHE_HOME"]).stat()
    except (FileNotFoundError, NotADirectoryError):
        return True
    except OSError:
        return False
    return True


def _within(folder: Path, name: str) -> Path:
    """A subfolder of the work folder. Raises UserError if it cannot be written."""
    subfolder = (folder / name).absolute()
    for path in (folder, subfolder):
        if error := trouble(path):
            raise unwritable(path, error)
    return subfolder
