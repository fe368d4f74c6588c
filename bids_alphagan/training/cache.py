"""Prepared scans in one file, which every model and every run after the first opens at once.

scans/<key>.npy in the work folder: a NumPy array (n, 1, N, N, N) of float32 as `numpy.save` writes it, then
the 32 bytes of its `data_hash`. The key follows from the paths of the scans, their sizes and times.
"""

import os
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import numpy as np
from numpy.lib import format as npy

from bids_alphagan.common.errors import UserError
from bids_alphagan.common.files import digest, replacing
from bids_alphagan.common.volume import read_cube
from bids_alphagan.training.augment import data_hash

FORMAT = 1  # raised when the file's content changes in kind
KEPT = 2  # sets of scans, so that two runs with other scans do not undo each other's
LEFT_BEHIND = 24 * 3600  # s; a file still being written after that belongs to a process that was killed


def prepared(paths: Sequence[Path], folder: Path) -> np.ndarray:
    """The scans of `paths` (desc-preproc) as (n, 1, N, N, N) float32 in [-1, 1], memory-mapped, read only.

    `folder` holds the file that is mapped; it is made where it is missing, damaged or out of date, and those
    of other scans are removed, save the last used. Several processes may do so at once: each renames a whole
    file into place, and a file that is mapped stays until it is let go.

    Raises UserError without scans, for a scan that cannot be read and where `folder` cannot be written.
    """
    if not paths:
        raise UserError("There is no scan to train on: at least one is needed.")
    path = folder / f"{_key(paths)}.npy"
    volumes = _opened(path)
    if volumes is None:
        try:
            volumes = _write(paths, path)
        except OSError as error:
            raise UserError(
                f"{folder}: the scans cannot be put together there ({error.strerror or error}). Make room, "
                "or give another folder with --work-dir."
            ) from error
    with suppress(OSError):  # another user's, or another process is faster
        os.utime(path)
        _remove_others(folder)
    return volumes


def _key(paths: Sequence[Path]) -> str:
    """ctime cannot be set, so that a file changed behind its mtime's back is seen, too."""
    try:
        facts = [(str(path), path.stat()) for path in paths]
    except OSError as error:
        raise UserError(
            f"{error.filename}: cannot be read ({error.strerror}). Run participant again."
        ) from error
    return digest([FORMAT, [[name, s.st_size, s.st_mtime_ns, s.st_ctime_ns] for name, s in facts]])[:32]


def _opened(path: Path) -> np.ndarray | None:
    """The volumes in a file; None where it is not there or damaged."""
    try:
        volumes = _mapped(path)
        with path.open("rb") as stream:
            stream.seek(-32, os.SEEK_END)
            expected = stream.read().hex()
    except (OSError, ValueError, TypeError, OverflowError):
        return None
    return volumes if data_hash(volumes) == expected else None


def _mapped(path: Path) -> np.ndarray:
    return npy.open_memmap(path, mode="r")  # knows no pickles


def _write(paths: Sequence[Path], path: Path) -> np.ndarray:
    """Plain writes, one scan at a time: where the disk is full they raise, where a mapped file kills."""
    first = read_cube(paths[0])
    shape = (len(paths), 1, *first.shape)
    with replacing(path) as temporary, temporary.open("wb") as stream:
        header = {"descr": "<f4", "fortran_order": False, "shape": shape}
        npy.write_array_header_1_0(stream, header)
        for source in paths:
            cube = read_cube(source)
            if cube.shape != first.shape:
                raise UserError(
                    f"{source} has shape {cube.shape}, the scans before it {first.shape}. Prepare all "
                    "scans with one --grid."
                )
            stream.write(np.ascontiguousarray(cube, dtype="<f4").data)
        stream.flush()
        volumes = _mapped(temporary)  # now: once in place, another process may remove it
        stream.write(bytes.fromhex(data_hash(volumes)))
    return volumes


def _remove_others(folder: Path) -> None:
    """The files that were used last stay."""
    used = {path: path.stat().st_mtime for path in folder.glob("*.npy")}
    half = {path for path in used if path.name.startswith(".")}  # being written
    whole = sorted(used.keys() - half, key=lambda path: used[path], reverse=True)
    for path in [*whole[KEPT:], *(path for path in half if used[path] < time.time() - LEFT_BEHIND)]:
        path.unlink(missing_ok=True)
