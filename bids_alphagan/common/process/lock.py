"""One run at a time in a folder."""

import fcntl
import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from bids_alphagan.common.errors import UserError

LOCK = ".lock"

logger = logging.getLogger(__name__)


@contextmanager
def lock(folder: Path) -> Iterator[None]:
    """Raise UserError where another process that lives is in here with the same folder.

    The system lets go of the lock however a process ends. Where a disk knows no locks, nothing is checked.
    """
    new = not folder.is_dir()
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / LOCK
    with path.open("w") as stream:
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise UserError(
                f"Another run is training in {folder}. Let it end, or end it, or give another output folder."
            ) from error
        except OSError as error:
            logger.debug("no lock on %s: %s", folder, os.strerror(error.errno or 0))
        try:
            yield
        finally:
            path.unlink(missing_ok=True)
            if new:
                with suppress(OSError):  # something was written
                    folder.rmdir()
