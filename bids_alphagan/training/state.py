"""The state of a run except its tensors: the changing JSON part of a checkpoint."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Self

import numpy as np

from bids_alphagan.training.settings import TrainSettings

ROLLBACK_STREAM = 2  # key of the seeds after a rollback; the other keys are in `phases` and `data`


@dataclass
class State:
    """step: finished iterations. rollbacks: how often the run was rolled back (--on-divergence rollback).

    regular: steps of the last regular checkpoints, at multiples of --checkpoint-every. Decisions about checkpoints (the
    best, the target of a rollback) consider these alone, so that an interrupted run, which has one more checkpoint,
    continues like an uninterrupted one.
    best: the regular checkpoint with the smallest `health` distance, {"step", "distance"}.
    drift, apart, collapsed: see `health`: the moving average of the drift, the distance that scales it, measured at the
    last regular checkpoint, and the number of consecutive checkpoints with samples that look alike.
    """

    step: int = 0
    rollbacks: int = 0
    regular: list[int] = field(default_factory=list)
    best: dict[str, Any] | None = None
    drift: float | None = None
    apart: float | None = None
    collapsed: int = 0

    def info(self, batches: int) -> dict[str, Any]:
        """The state as JSON, with the next batch of scans, for `batches` per iteration."""
        return {**asdict(self), "next_batch": batches * self.step}

    @classmethod
    def read(cls, info: Mapping[str, Any]) -> Self:
        """The state from a checkpoint's info."""
        return cls(**{name: info[name] for name in cls.__dataclass_fields__ if name in info})

    def saved(self, keep: int) -> None:
        """Record that the regular checkpoint of this step is being written."""
        self.regular = [*self.regular, self.step][-keep:]

    def kept(self, keep: int) -> set[int]:
        """Steps of the checkpoints to keep: the last `keep`, including this one, and the best."""
        last = sorted({*self.regular, self.step})[-keep:]
        return {*last, *([self.best["step"]] if self.best else [])}


def stream(settings: TrainSettings, rollbacks: int) -> TrainSettings:
    """The settings with the seed of the random numbers after so many rollbacks; before the first, the run's own."""
    if not rollbacks:
        return settings
    seed = np.random.SeedSequence((settings.seed, ROLLBACK_STREAM, rollbacks)).generate_state(1)[0]
    return replace(settings, seed=int(seed) >> 1)
