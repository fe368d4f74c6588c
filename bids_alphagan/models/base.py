"""The interface of models: fitting, sampling, and the phases of training.

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
# a statistic of one device's share of the batch -> the stacked statistics of all shares; twice differentiable
Across = Callable[[Tensor], Tensor]


class Sampler(Protocol):
    """A fitted model. info: JSON with "model", "size" (N) and further facts."""

    @property
    def info(self) -> dict[str, Any]: ...

    def draw(self, seeds: Sequence[int]) -> np.ndarray:
        """A sample for each seed: (n, C, N, N, N) float32 in [-1, 1]. It depends on its seed alone."""
        ...


class Settings(Protocol):
    """The settings of training that a model may read (`training.settings.TrainSettings`)."""

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
    """A model with its own `fit`. name: its key in MODELS."""

    name: str

    @abstractmethod
    def record(self) -> dict[str, Any]:
        """The model as JSON for config.json. A run with another record counts as another run."""

    def fit(self, volumes: np.ndarray, settings: Settings, folder: Path, device: torch.device) -> None:
        """Fit to volumes (n, C, N, N, N) and write the entry's parameter file to `folder`, complete or not at all."""
        raise NotImplementedError("The shared loop fits a NetworkModel; others define fit.")

    @abstractmethod
    def load(self, folder: Path, device: torch.device | str = "cpu") -> Sampler:
        """Read the fitted model. Raises UserError if there is none."""

    def methods(self, training: Mapping[str, Any], info: Mapping[str, Any]) -> str:
        """A paragraph for a manuscript, with citations as in `report.methods.compose`; "[@NAME source]" is the entry's.

        training: config.json of the run. info: `Sampler.info`.
        """
        return f"{self.name} [@{self.name} source] was fitted to the scans."


@dataclass
class Batch:
    """The input of a phase.

    real: scans (B, C, N, N, N), augmented. one_pass: whether several batches may go through a network at once.
    normal: L -> (B, L), normal random numbers. uniform: n -> (n, B), uniform in [0, 1). handed: tensors that the
    phases of an iteration share, detached after each phase.
    """

    real: Tensor
    one_pass: bool
    normal: Callable[[int], Tensor]
    uniform: Callable[[int], Tensor]
    handed: dict[str, Tensor] = field(default_factory=dict)


@dataclass(frozen=True)
class Phase:
    """One update: the networks that are trained, and the terms whose weighted sum they minimise.

    uses: the networks that take part. weights: of terms, 1 by default. sums: terms that are a sum over the batch; all
    others are a mean. without_gradient: terms that are added to the loss without a gradient. updates: steps per network
    and iteration, 1 by default. new_scans: True draws a new batch of scans; False uses that of the previous phase.
    in_bf16: False if bf16 would save nothing and cost precision.
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
    """A model that the shared loop trains, phase by phase, with checkpoints, losses and health.

    phases: of an iteration, in order. drawn: the network that draws samples, of whose weights an EMA may be kept.
    augmentations: names in `training.augment.AUGMENTATIONS`, in order. drift: the loss (PHASE_TERM) that rates scans
    above samples, by which divergence is detected; None: none.
    """

    phases: tuple[Phase, ...]
    drawn: str
    augmentations: tuple[str, ...] = ()
    drift: str | None = None

    @abstractmethod
    def networks(self, size: int, settings: Settings, across: Across | None = None) -> Networks:
        """New networks for volumes with N = `size`, with weights from torch's global random state.

        across: for normalisation over a batch that several devices share. Raises UserError if no network can be built.
        """

    @abstractmethod
    def optimisers(self, networks: Networks, settings: Settings) -> Optimisers:
        """An optimiser for each trained network."""

    @abstractmethod
    def sampler(self, network: nn.Module, settings: Settings) -> Sampler:
        """A sampler with a copy of the current `network`, which stays unchanged."""

    @abstractmethod
    def save(self, network: nn.Module, settings: Settings, folder: Path, info: dict[str, Any]) -> Path:
        """Write the entry's parameter file and return its path; info: JSON to store in it."""

    def kept(self, networks: Networks, size: int, scans: int, settings: Settings) -> list[tuple[str, Tensor]]:
        """For the memory estimate: pairs of a network's name and an input on the device "meta".

        The outputs of these networks' layers are kept for the backward pass. An empty list means no estimate.
        """
        return []
