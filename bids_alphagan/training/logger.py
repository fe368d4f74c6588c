"""The readable output of a training: tables, TensorBoard's log, samples, and the progress bar."""

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Self

import numpy as np
from torch.utils.tensorboard import SummaryWriter
from tqdm import tqdm

from bids_alphagan.common.files import atomic_write, to_disk

LOSSES, HEALTH, SAMPLES = "losses.tsv", "health.tsv", "samples"
LINES = "{desc}: {n_fmt}/{total_fmt} [{elapsed}<{remaining}, {rate_fmt}{postfix}]"


class Logger:
    """Writes folder/losses.tsv, health.tsv, samples/ and tensorboard/ and shows progress on stderr.

    step: iterations done before. Entries of an earlier run after that step are dropped, so that the tables of a resumed
    run equal those of an uninterrupted one.
    """

    def __init__(self, folder: Path, name: str, step: int, iterations: int) -> None:
        self._folder = folder
        shown = {"total": iterations, "initial": step, "desc": name, "unit": "it"}
        if sys.stderr.isatty():
            self._bar = tqdm(**shown, mininterval=0.2, ncols=110)
        else:
            self._bar = tqdm(**shown, mininterval=30, miniters=1, bar_format=LINES, file=_Lines())
        self._open(step)

    def _open(self, step: int) -> None:
        self._losses, self._health = (_Table(self._folder / name, step) for name in (LOSSES, HEALTH))
        for path in (self._folder / SAMPLES).glob("step-*.npy"):
            if int(path.stem.split("-")[1]) > step:
                path.unlink()
        self._board = SummaryWriter(str(self._folder / "tensorboard"), purge_step=step + 1)

    def _close(self) -> None:
        for part in (self._losses, self._health, self._board):
            part.close()

    def rewind(self, step: int) -> None:
        """Drop all entries after `step`, from which the run continues."""
        self._close()
        self._open(step)
        self._bar.n = step

    def advance(self) -> None:
        self._bar.update()

    def losses(self, step: int, losses: Mapping[str, float]) -> None:
        """Add one row of losses. Every call must have the same names, which are the table's columns."""
        self._losses.add(step, losses)
        for name, value in losses.items():
            self._board.add_scalar("loss/" + name.replace("_loss", ""), value, step)
        totals = {name[0].upper(): f"{value:.3g}" for name, value in losses.items() if name.endswith("_loss")}
        self._bar.set_postfix(totals, refresh=False)

    def health(self, step: int, measures: Mapping[str, float | None]) -> None:
        """Add one row to the table of `health.Measures`."""
        self._health.add(step, measures)
        for name, value in measures.items():
            if value is not None:
                self._board.add_scalar("health/" + name, value, step)

    def samples(self, step: int, volumes: np.ndarray, keep: bool) -> None:
        """Show the middle slices of volumes (n, N, N, N) in [-1, 1] in TensorBoard: volumes as rows, planes as columns.

        If `keep`, they are also written to samples/step-XXXXXX.npy: (n, 3, N, N) uint8, the slices across x,
        y and z, with [-1, 1] mapped to 0 to 255.
        """
        planes = slices(volumes)
        rows = [[np.rot90(plane) for plane in volume] for volume in planes]
        self._board.add_image("samples", np.block(rows), step, dataformats="HW")
        if keep:
            with atomic_write(self._folder / SAMPLES / f"step-{step:06d}.npy") as temporary:
                with temporary.open("wb") as stream:
                    np.save(stream, planes, allow_pickle=False)
                to_disk(temporary)

    def to_disk(self) -> None:
        """Flush the tables to disk: after a power failure a checkpoint must not be ahead of them."""
        for table in (self._losses, self._health):
            to_disk(table.path)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self._bar.close()
        self._close()


def slices(volumes: np.ndarray) -> np.ndarray:
    """The middle slices of (n, N, N, N) in [-1, 1]: (n, 3, N, N) uint8."""
    middle = volumes.shape[-1] // 2
    planes = np.stack([volumes.take(middle, axis) for axis in (1, 2, 3)], axis=1)
    return (127.5 * (planes.clip(-1, 1) + 1)).round().astype(np.uint8)


class _Table:
    """A .tsv file to which rows are appended, each with its step. Existing rows up to `step` are kept."""

    def __init__(self, path: Path, step: int) -> None:
        self.path = path
        text = path.read_text(encoding="utf-8", errors="replace") if path.is_file() else ""
        # a kill cuts the last line; a power failure can leave anything after what was flushed
        rows = [line for line in text.splitlines(keepends=True) if line.endswith("\n")]
        kept = [row for row in rows[1:] if (at := row.split("\t")[0]).isdecimal() and int(at) <= step]
        if not path.is_file() or "".join(rows[:1] + kept) != text:
            with atomic_write(path) as temporary:
                temporary.write_text("".join(rows[:1] + kept), encoding="utf-8")
                to_disk(temporary)
        self._stream = path.open("a", encoding="utf-8", buffering=1)

    def add(self, step: int, values: Mapping[str, float | None]) -> None:
        if self._stream.tell() == 0:
            self._stream.write("\t".join(["step", *values]) + "\n")
        words = ("n/a" if value is None else f"{value:.6g}" for value in values.values())
        self._stream.write("\t".join([str(step), *words]) + "\n")

    def close(self) -> None:
        self._stream.close()


class _Lines:
    """Standard error as a stream for a progress bar that writes whole lines, for log files."""

    def write(self, text: str) -> None:
        if text.strip():
            sys.stderr.write(text.strip() + "\n")

    def flush(self) -> None:
        sys.stderr.flush()


class NoLogger:
    """The logger of a process that writes nothing."""

    def advance(self) -> None: ...

    def losses(self, step: int, losses: Mapping[str, float]) -> None: ...

    def health(self, step: int, measures: Mapping[str, float | None]) -> None: ...

    def samples(self, step: int, volumes: np.ndarray, keep: bool = False) -> None: ...

    def rewind(self, step: int) -> None: ...

    def to_disk(self) -> None: ...

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None: ...
