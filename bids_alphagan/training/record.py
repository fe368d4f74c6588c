"""What a training run leaves to be read: the table of losses, TensorBoard's log, the progress bar."""

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Self

import numpy as np
from torch.utils.tensorboard import SummaryWriter
from tqdm import tqdm

from bids_alphagan.files import write_text

LOSSES = "losses.tsv"


class Record:
    """Writes folder/losses.tsv and folder/tensorboard/ and shows progress on stderr.

    step: number of iterations done before. What an earlier run recorded after that step is dropped, so that a
    resumed run leaves the table of an uninterrupted one.
    """

    def __init__(self, folder: Path, name: str, step: int, iterations: int) -> None:
        path = folder / LOSSES
        lines = path.read_text().splitlines(keepends=True) if path.is_file() else []
        whole = [line for line in lines if line.endswith("\n")]  # the last may be cut after a power failure
        write_text(path, "".join(whole[:1] + [row for row in whole[1:] if int(row.split("\t")[0]) <= step]))
        self._table = path.open("a", encoding="utf-8", buffering=1)
        self._board = SummaryWriter(str(folder / "tensorboard"), purge_step=step + 1)
        quiet = not sys.stderr.isatty()
        self._bar = tqdm(
            total=iterations, initial=step, desc=name, unit="it", mininterval=30 if quiet else 0.2, ncols=110
        )

    def advance(self) -> None:
        self._bar.update()

    def losses(self, step: int, losses: Mapping[str, float]) -> None:
        """Add one row; every call has the same names, the table's columns."""
        if self._table.tell() == 0:
            self._table.write("\t".join(["step", *losses]) + "\n")
        self._table.write("\t".join([str(step), *(f"{value:.6g}" for value in losses.values())]) + "\n")
        for name, value in losses.items():
            self._board.add_scalar("loss/" + name.replace("_loss", ""), value, step)
        totals = {name[0].upper(): f"{value:.3g}" for name, value in losses.items() if name.endswith("_loss")}
        self._bar.set_postfix(totals, refresh=False)

    def samples(self, step: int, volumes: np.ndarray) -> None:
        """Show the middle slices of volumes (n, N, N, N) in [-1, 1]: a row each, a column for each plane."""
        middle = volumes.shape[-1] // 2
        planes = [[np.rot90(volume.take(middle, axis)) for axis in range(3)] for volume in volumes]
        self._board.add_image("samples", (np.block(planes) + 1) / 2, step, dataformats="HW")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self._bar.close()
        self._board.close()
        self._table.close()


class Unrecorded:
    """The record of a process that writes nothing."""

    def advance(self) -> None: ...

    def losses(self, step: int, losses: Mapping[str, float]) -> None: ...

    def samples(self, step: int, volumes: np.ndarray) -> None: ...

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None: ...
