"""Folders for programs that cannot quote paths: SPM's batch, and ANTs, which reads some signs as its own."""

import os
import re
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

PLAIN = re.compile(r"[A-Za-z0-9_./-]+")  # needs no quoting in MATLAB code, SPM's batch, ANTs and the shell


@contextmanager
def private_folder(scratch: Path) -> Iterator[Path]:
    """A new folder whose path has no blanks, quotes, brackets or other signs that those programs read.

    It is made in `scratch` where that has such a path, else where temporary files go, and removed in the end.
    Raises OSError where there is no such place to write to.
    """
    for place in (scratch.absolute(), Path(tempfile.gettempdir()), Path("/tmp"), Path("/var/tmp")):
        if PLAIN.fullmatch(str(place)) and os.access(place, os.W_OK | os.X_OK):
            break
    else:
        raise OSError(f"Masks need a folder to write to whose path is plain ({PLAIN.pattern}): set TMPDIR.")
    with tempfile.TemporaryDirectory(prefix="masks-", dir=place, ignore_cleanup_errors=True) as folder:
        yield Path(folder)
