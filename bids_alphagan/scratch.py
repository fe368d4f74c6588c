"""Temporary files and other libraries' caches, where their usual places cannot be written.

A container with a read-only root may have no /tmp, and a user whom the system does not know has no home.
"""

import os
import tempfile
from pathlib import Path

from bids_alphagan.errors import unwritable

# Each library's variable, and its place below the home where the variable is not set.
CACHES = {
    "XDG_CACHE_HOME": ".cache",
    "MPLCONFIGDIR": ".config/matplotlib",
    "NIPYPE_CONFIG_DIR": ".nipype",
    "TRITON_CACHE_DIR": ".triton/cache",
    "CUDA_CACHE_PATH": ".nv/ComputeCache",
}


def use_scratch(folder: Path) -> None:
    """Send to folders below `folder` what has no place to be written to. What has one is left alone.

    To be called before nipype, matplotlib and the like are imported: they look for their places only once.

    Raises UserError where `folder` is needed and cannot be written.
    """
    usual = [*map(os.environ.get, ("TMPDIR", "TEMP", "TMP")), "/tmp", "/var/tmp"]
    if not any(_writable(Path(place)) for place in usual if place):
        temporary = (folder / "tmp").absolute()
        try:
            temporary.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise unwritable(folder, error) from error
        os.environ["TMPDIR"] = str(temporary)
        tempfile.tempdir = None  # it is looked for anew
    home = Path(os.environ.get("HOME") or "/nonexistent")
    templates = Path(os.environ.get("XDG_CACHE_HOME") or home / CACHES["XDG_CACHE_HOME"]) / "templateflow"
    if templates.is_dir():  # a home that can only be read may have them
        os.environ.setdefault("TEMPLATEFLOW_HOME", str(templates))
    for variable, place in CACHES.items():
        if not _writable(Path(os.environ.get(variable) or home / place)):
            os.environ[variable] = str((folder / "cache" / variable.lower()).absolute())


def _writable(place: Path) -> bool:
    """Whether it is a folder to write to, or could be made one."""
    nearest = next(path for path in (place.absolute(), *place.absolute().parents) if path.exists())
    return nearest.is_dir() and os.access(nearest, os.W_OK | os.X_OK)
