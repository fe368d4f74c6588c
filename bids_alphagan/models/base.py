"""What a model is: how it is fitted, how it samples, and what a training phase is.

Volumes are (n, C, N, N, N) float32 in [-1, 1]: the scan, then the further channels of the model's entry.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor, nn

Networks = dict[str, nn.Module]
Optimisers = dict[str, torch.optim.Optimizer]
Terms = dict[str, Tensor]
# a statistic of one device's share of the batch -> those of all shares, stacked; differentiable twice
Across = Callable[[Tensor], Tensor]


class Sampler(Protocol):
    """A fitted model. info: JSON, with "model", "size" (N) and what else it says of itself."""

    @property
    def info(self) -> dict[str, Any]: ...

    def draw(self, seeds: Sequence[int]) -> np.ndarray:
        """A sample for each seed: (n, C, N, N, N) float32 in [-1, 1]; it follows from its seed alone."""
        ...


class Settings(Protocol):
    """What a model may read of the training's settings (`training.settings.TrainSettings`)."""

    @property
    def batch_size(self) -> int: ...
    @property
    def channels(self) -> int: ...
    @property
    def latent(self) -> int | None: ...
    @property
    def learning_rate(self) -> float: ...
    @property
    def adam_betas(self) -> tuple[float, ...]: ...
    @property
    def speedups(self) -> tuple[str, ...]: ...
    @property
    def seed(self) -> int: ...


class Model(ABC):
    """A model with a fit of its own. name: its key in MODELS."""

    name: str

    @abstractmethod
    def record(self) -> dict[str, Any]:
        """What the model is, as JSON for config.json: a run with another record is another run."""

    def fit(self, volumes: np.ndarray, settings: Settings, folder: Path, device: torch.device) -> None:
        """Learn from volumes (n, C, N, N, N) and write the entry's parameter file into `folder`, as a whole."""
        raise NotImplementedError("The shared loop fits a NetworkModel; others define fit.")

    @abstractmethod
    def load(self, folder: Path, device: torch.device | str = "cpu") -> Sampler:
        """Read the fitted model; UserError where there is none."""

    def methods(self, training: Mapping[str, Any], info: Mapping[str, Any]) -> str:
        """A paragraph for a manuscript, citing as `report.methods.compose` says; "[@NAME source]" is the entry's.

        training: config.json of the run. info: `Sampler.info`.
        """
        return f"{self.name} [@{self.name} source] was fitted to the scans."


@dataclass
class Batch:
    """What a phase sees.

    real: scans (B, C, N, N, N), augmented. one_pass: whether several batches may go through a network at once.
    normal: L -> (B, L), normal random numbers. uniform: n -> (n, B), uniform in [0, 1). handed: what the phases
    of an iteration hand on to one another, detached after each.
    """

    real: Tensor
    one_pass: bool
    normal: Callable[[int], Tensor]
    uniform: Callable[[int], Tensor]
    handed: dict[str, Tensor] = field(default_factory=dict)


@dataclass(frozen=True)
class Phase:
    """One update: the networks that learn, and the terms whose weighted sum they minimise.

    uses: the networks that take part. weights: of terms, 1 where none is given. sums: terms that are a sum over
    the batch; all others are a mean. without_gradient: terms that count as numbers and train nothing.
    updates: how often a network's optimiser steps, once where it is not named. new_scans: True draws a batch of
    scans; False goes on with that of the phase before. in_bf16: False where that saves nothing and costs exactness.
    """

    name: str
    networks: tuple[str, ...]
    uses: tuple[str, ...]
    terms: Callable[[Networks, Batch], Terms]
    weights: Mapping[str, float] = field(default_factory=dict)
    sums: frozenset[str] = frozenset()
    without_gradient: frozenset[str] = frozenset()
    updates: Mapping[str, int] = field(default_factory=dict)
    new_scans: bool = True
    in_bf16: bool = True


class NetworkModel(Model):
    """A model that the shared loop trains: phase by phase, with checkpoints, losses and health.

    phases: of an iteration, in order. drawn: the network that samples come from, whose weights are averaged
    where that is asked for. augmentations: names in `training.augment.AUGMENTATIONS`, in order.
    drift: the loss (PHASE_TERM) that rates scans above samples, by which a run that diverges is seen; None: none.
    """

    phases: tuple[Phase, ...]
    drawn: str
    augmentations: tuple[str, ...] = ()
    drift: str | None = None

    @abstractmethod
    def networks(self, size: int, settings: Settings, across: Across | None = None) -> Networks:
        """New networks for volumes with an edge of `size`, from torch's global random state.

        across: for normalisation over a batch that several devices share. Raises UserError where the numbers make
        none.
        """

    @abstractmethod
    def optimisers(self, networks: Networks, settings: Settings) -> Optimisers:
        """An optimiser for each network that learns."""

    @abstractmethod
    def sampler(self, network: nn.Module, settings: Settings) -> Sampler:
        """Draw from a copy of `drawn` as it is now; the network itself is left alone."""

    @abstractmethod
    def save(self, network: nn.Module, settings: Settings, folder: Path, info: dict[str, Any]) -> Path:
        """Write the entry's parameter file; info: JSON to be kept in it."""

    def kept(self, networks: Networks, size: int, scans: int, settings: Settings) -> list[tuple[str, Tensor]]:
        """For the estimate of memory: networks by name, and inputs on the device "meta" whose layers' outputs
        an iteration keeps for going back. None: no estimate."""
        return []
