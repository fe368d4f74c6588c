"""One run at a time in a folder."""

import logging
import socket
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import BaseFileLock, FileLock, SoftFileLock, Timeout

from bids_alphagan.common.errors import UserError

LOCK = ".lock"
STAND_IN = ".lock-file"  # on disks without system locks

logger = logging.getLogger(__name__)


@contextmanager
def lock(folder: Path) -> Iterator[None]:
    """Hold the lock of a folder. Raises UserError if another running process holds it.

    The system releases the lock however a process ends. On a disk without locks, a file stands in for it; if a
    process on another machine left such a file, the message says how old it is and what to do.
    """
    new = not folder.is_dir()
    folder.mkdir(parents=True, exist_ok=True)
    held = _acquire(folder)
    try:
        yield
    finally:
        for name in (LOCK, STAND_IN):
            (folder / name).unlink(missing_ok=True)
        held.release()
        if new:
            with suppress(OSError):  # something was written
                folder.rmdir()


def _acquire(folder: Path) -> BaseFileLock:
    """Raises UserError if another process holds the lock."""
    path = folder / LOCK
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # filelock warns of a disk without locks
            return _acquired(FileLock(path))
    except Timeout as error:
        raise UserError(_taken(path)) from error
    except (OSError, NotImplementedError) as error:
        logger.debug("%s: the system has no locks here (%s), a lock file is used", path, error)
        path.unlink(missing_ok=True)
    path = folder / STAND_IN
    try:
        return _acquired(SoftFileLock(path))
    except Timeout as error:
        raise UserError(_taken(path)) from error


def _acquired(held: BaseFileLock) -> BaseFileLock:
    held.acquire(timeout=0)
    return held


def _taken(path: Path) -> str:
    """Which process holds the lock, and what to do. The file is empty if the system holds the lock."""
    message = f"Another run is training in {path.parent}"
    with suppress(OSError, ValueError):
        pid, host = path.read_text(encoding="utf-8").split("\n")[:2]
        minutes = (time.time() - path.stat().st_mtime) / 60
        age = f"{minutes / 60:.0f} h" if minutes >= 120 else f"{minutes:.0f} min"
        where = "this machine" if host == socket.gethostname() else host
        return (
            f"{message}: process {int(pid)} on {where}, since {age}. Wait for it, stop it, or give another output "
            f"folder. If that process no longer runs, remove {path}."
        )
    return f"{message}. Wait for it, stop it, or give another output folder."
