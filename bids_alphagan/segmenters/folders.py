"""Folders for programs that cannot quote paths: SPM's batch, and ANTs, which interprets some characters."""

import os
import re
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

PLAIN = re.compile(r"[A-Za-z0-9_./-]+")  # needs no quoting in MATLAB code, SPM's batch, ANTs and the shell


@contextmanager
def private_folder(scratch: Path) -> Iterator[Path]:
    """A new folder whose path has no blanks, quotes, brackets or other characters that those programs interpret.

    It is created in `scratch` if that path allows, else in the folder of temporary files, and removed at the end.
    Raises OSError if no such folder can be written.
    """
    for parent in (scratch.absolute(), Path(tempfile.gettempdir()), Path("/tmp"), Path("/var/tmp")):
        if PLAIN.fullmatch(str(parent)) and os.access(parent, os.W_OK | os.X_OK):
            break
    else:
        raise OSError(
            f"Masks need a writable folder whose path has only the characters {PLAIN.pattern}. Set TMPDIR to one."
        )
    with tempfile.TemporaryDirectory(prefix="masks-", dir=parent, ignore_cleanup_errors=True) as folder:
        yield Path(folder)
