"""Where a run stands, beside its tensors: the part of a checkpoint that is JSON and changes."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Self

import numpy as np

from bids_alphagan.training.settings import TrainSettings

ROLLBACK_STREAM = 2  # key of the seeds after a rollback; `phases` and `data` have the others


@dataclass
class State:
    """step: finished iterations. rollbacks: how often the run went back (--on-divergence rollback).

    regular: steps of the last regular checkpoints, those at multiples of --checkpoint-every. What is decided
    on checkpoints (the best, where to go back to) is decided on these alone, so that a run that was
    interrupted, which leaves one more, takes the same way as one that was not.
    best: the regular checkpoint of the least `health` distance, {"step", "distance"}.
    drift, apart, collapsed: see `health`: a moving average, what it is measured by since the last look, and
    at how many checkpoints running samples were alike.
    """

    step: int = 0
    rollbacks: int = 0
    regular: list[int] = field(default_factory=list)
    best: dict[str, Any] | None = None
    drift: float | None = None
    apart: float | None = None
    collapsed: int = 0

    def info(self, batches: int) -> dict[str, Any]:
        """All of it as JSON, with the sampler's position: the next batch of scans, `batches` in an iteration."""
        return {**asdict(self), "next_batch": batches * self.step}

    @classmethod
    def read(cls, info: Mapping[str, Any]) -> Self:
        """The state in a checkpoint's info."""
        return cls(**{name: info[name] for name in cls.__dataclass_fields__ if name in info})

    def saved(self, keep: int) -> None:
        """Note that the regular checkpoint of this step is being written."""
        self.regular = [*self.regular, self.step][-keep:]

    def kept(self, keep: int) -> set[int]:
        """Steps of the checkpoints to keep: the last `keep`, this one among them, and the best."""
        last = sorted({*self.regular, self.step})[-keep:]
        return {*last, *([self.best["step"]] if self.best else [])}


def stream(settings: TrainSettings, rollbacks: int) -> TrainSettings:
    """Settings with the seed of what is drawn after so many rollbacks; the run's own before the first."""
    if not rollbacks:
        return settings
    seed = np.random.SeedSequence((settings.seed, ROLLBACK_STREAM, rollbacks)).generate_state(1)[0]
    return replace(settings, seed=int(seed) >> 1)
