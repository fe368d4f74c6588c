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
STAND_IN = ".lock-file"  # where the system gives no lock

logger = logging.getLogger(__name__)


@contextmanager
def lock(folder: Path) -> Iterator[None]:
    """Raise UserError where another process that lives is in here with the same folder.

    The system lets go of the lock however a process ends. A disk that knows no locks gets a file that stands for
    one; where a process on another machine left such a file, the message says how old it is and what to do.
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
    """Raises UserError where another process has the lock."""
    path = folder / LOCK
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of a disk without locks, for which filelock takes a file
            return _acquired(FileLock(path))
    except Timeout as error:
        raise UserError(_taken(path)) from error
    except (OSError, NotImplementedError) as error:
        logger.debug("%s: no lock of the system (%s), a file stands for it", path, error)
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
    """Who has the lock, and what to do. The file is empty where the system holds the lock."""
    words = f"Another run is training in {path.parent}"
    with suppress(OSError, ValueError):
        pid, host = path.read_text(encoding="utf-8").split("\n")[:2]
        minutes = (time.time() - path.stat().st_mtime) / 60
        age = f"{minutes / 60:.0f} h" if minutes >= 120 else f"{minutes:.0f} min"
        where = "this machine" if host == socket.gethostname() else host
        return (
            f"{words}: process {int(pid)} on {where}, since {age}. Let it end, or end it, or give another output "
            f"folder. If it has died there, remove {path}."
        )
    return f"{words}. Let it end, or end it, or give another output folder."
