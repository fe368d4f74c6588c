"""Prepared scans in one file, which every model and every later run opens at once.

scans/<key>.npy in the work folder: a NumPy array (n, C, N, N, N) of float32 in the format of `numpy.save`, then the
32 bytes of its `data_hash`. The key depends on the scans' paths, sizes and times.
"""

import os
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
from numpy.lib import format as npy

from bids_alphagan.bids.prepared import PreparedScan
from bids_alphagan.common.errors import UserError
from bids_alphagan.common.files import atomic_write, digest
from bids_alphagan.common.volume import read_cube, read_map
from bids_alphagan.training.data import Volumes, data_hash

FORMAT = 1  # to be increased when the format of the file changes
KEPT = 2  # sets of scans, so that two runs with different scans do not remove each other's
LEFT_BEHIND = 24 * 3600  # s; an unfinished file older than that is from a killed process

_seen: dict[Path, tuple[int, int, int]] = {}  # of each file whose hash this process has verified, its stamp

Map = tuple[
    Path, Mapping[str, Any]
]  # a tissue map on a scan's own grid, and the record of the scan's preparation


def prepared(paths: Sequence[Path], folder: Path, maps: Sequence[Sequence[Map]] = ()) -> Volumes:
    """Scans (desc-preproc) and their maps as (n, C, N, N, N) float32 in [-1, 1], memory-mapped, read only.

    maps: for each scan, the further channels; none by default. `folder` holds the mapped file, which is written if
    it is missing, damaged or out of date; files of other scans are removed, except the last used one. Several
    processes may do so at once: each renames a complete file into place, and a mapped file persists until released.

    Raises UserError without scans, for a scan that cannot be read, and if `folder` cannot be written.
    """
    if not paths:
        raise UserError("There is no scan to train on: at least one is needed.")
    further = [tuple(of_scan) for of_scan in maps] or [()] * len(paths)
    scans = list(zip(paths, further, strict=True))
    path = folder / f"{_key([*paths, *(file for of_scan in further for file, _ in of_scan)])}.npy"
    volumes = _opened(path)
    if volumes is None:
        try:
            volumes = _write(scans, path)
        except OSError as error:
            raise UserError(
                f"{folder}: the file of all scans cannot be written there ({error.strerror or error}). "
                "Free some space, or give another folder with --work-dir."
            ) from error
    with suppress(OSError):  # another user's file, or another process was faster
        os.utime(path)
        _remove_others(folder)
    _remember(path)
    return volumes


def prepared_volumes(scans: Sequence[PreparedScan], folder: Path, channels: Sequence[str]) -> Volumes:
    """`prepared` for scans with the maps of the further channels ("GM", "WM", "CSF"). Raises as `check_maps` does."""
    check_maps(scans, channels)
    tissues = channels[1:]
    maps = [[(scan.masks[channel], scan.record) for channel in tissues] for scan in scans] if tissues else []
    return prepared([scan.preproc for scan in scans], folder, maps)


def check_maps(scans: Sequence[PreparedScan], channels: Sequence[str]) -> None:
    """Raise UserError if a scan lacks the map of a channel (the first is the scan itself)."""
    for scan in scans:
        if lacking := [channel for channel in channels[1:] if channel not in scan.masks]:
            raise UserError(
                f"{scan.preproc}: has no map of {', '.join(lacking)}, which this model needs. "
                "Run participant with --segmenter ants or spm to make it."
            )


def _key(paths: Sequence[Path]) -> str:
    """Includes ctime, which cannot be set, so that a change that keeps mtime is also detected."""
    try:
        facts = [(str(path), path.stat()) for path in paths]
    except OSError as error:
        raise UserError(
            f"{error.filename}: cannot be read ({error.strerror}). Run participant again."
        ) from error
    return digest([FORMAT, [[name, s.st_size, s.st_mtime_ns, s.st_ctime_ns] for name, s in facts]])[:32]


def _opened(path: Path) -> Volumes | None:
    """The volumes in a file; None if it is missing or damaged. This process hashes a file that stays as it is once."""
    try:
        unchanged = _seen.get(path) == _stamp(path)
        volumes = _mapped(path)
        with path.open("rb") as stream:
            stream.seek(-32, os.SEEK_END)
            expected = stream.read().hex()
    except (OSError, ValueError, TypeError, OverflowError):
        return None
    return Volumes(volumes, expected) if unchanged or data_hash(volumes) == expected else None


def _remember(path: Path) -> None:
    with suppress(OSError):  # another process has removed it, and `volumes` persist
        _seen[path] = _stamp(path)


def _stamp(path: Path) -> tuple[int, int, int]:
    status = path.stat()
    return status.st_ino, status.st_size, status.st_ctime_ns


def _mapped(path: Path) -> np.ndarray:
    return npy.open_memmap(path, mode="r")  # does not read pickles


def _write(scans: Sequence[tuple[Path, Sequence[Map]]], path: Path) -> Volumes:
    """Plain writes, one scan at a time: on a full disk they raise, where writing to a mapped file would kill."""
    first = read_cube(scans[0][0])
    shape = (len(scans), 1 + len(scans[0][1]), *first.shape)
    with atomic_write(path) as temporary, temporary.open("wb") as stream:
        header = {"descr": "<f4", "fortran_order": False, "shape": shape}
        npy.write_array_header_1_0(stream, header)
        for source, maps in scans:
            cube = read_cube(source)
            if cube.shape != first.shape:
                raise UserError(
                    f"{source} has shape {cube.shape}, but the scans before it {first.shape}. Prepare all "
                    "scans with one --grid."
                )
            for channel in (cube, *(read_map(file, record) for file, record in maps)):
                stream.write(np.ascontiguousarray(channel, dtype="<f4").data)
        stream.flush()
        volumes = _mapped(temporary)  # before the renaming, after which another process may remove it
        sha256 = data_hash(volumes)
        stream.write(bytes.fromhex(sha256))
    return Volumes(volumes, sha256)


def _remove_others(folder: Path) -> None:
    """Remove all files but the last used ones."""
    used = {path: path.stat().st_mtime for path in folder.glob("*.npy")}
    half = {path for path in used if path.name.startswith(".")}  # unfinished
    whole = sorted(used.keys() - half, key=lambda path: used[path], reverse=True)
    for path in [*whole[KEPT:], *(path for path in half if used[path] < time.time() - LEFT_BEHIND)]:
        path.unlink(missing_ok=True)
