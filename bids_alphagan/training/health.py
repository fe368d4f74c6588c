"""The health of a training: finite losses, a critic within its bound, and diverse samples.

Checked when losses are read and at regular checkpoints, so that no iteration waits for it:

| what | how it is measured | bad |
|---|---|---|
| finite | losses and weights | NaN or infinity |
| `drift` | how far the critic rates scans above samples, divided by their distance (`apart`) | > 1 |
| `diversity` | how much samples differ, divided by how much scans do | < `FLOOR`, `PATIENCE` times in a row |
| `distance` | between the samples' and the scans' features; the smallest marks the best checkpoint | |
"""

import logging
import math
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from bids_alphagan.common.errors import UserError
from bids_alphagan.models.base import Networks, Terms
from bids_alphagan.training.state import State

SAMPLES = 32  # from the same latents each time
NEAR = 8  # samples whose distance to the scans is measured
BLOCKS = 8  # along each axis
FLOOR = 0.05
PATIENCE = 3
SMOOTHING = 0.1  # weight of the newest value in the moving average of the drift

logger = logging.getLogger(__name__)


class DivergenceError(UserError):
    """The training diverged at an iteration; its checkpoints are older than that."""


class Measures(NamedTuple):
    """One row of health.tsv; see the module's table. diversity: None if the scans do not differ."""

    drift: float | None
    diversity: float | None
    distance: float


class Health:
    """Monitors a run with the scans in the first channel of volumes (n, C, N, N, N) in [-1, 1].

    on_divergence: "warn", "stop" or "rollback". drift: the loss that rates scans above samples; None: no such loss, and
    no drift.
    """

    def __init__(self, volumes: np.ndarray | Tensor, on_divergence: str, drift: str | None) -> None:
        self._on_divergence, self._drift = on_divergence, drift
        volumes = volumes[:, :1]
        self._farthest = farthest(volumes.shape[-1])
        self._volumes = np.asarray(volumes[:SAMPLES])
        self._scans = features(volumes)
        self._warned: set[str] = set()

    def losses(self, state: State, values: Mapping[str, float]) -> None:
        """Update the drift, whose moving average is in `state` so that a resumed run continues it."""
        if self._drift is None:
            return
        drift = abs(values[self._drift]) / 2 / (state.apart or self._farthest)
        before = drift if state.drift is None else state.drift
        state.drift = SMOOTHING * drift + (1 - SMOOTHING) * before
        self._check(
            "drift",
            state.drift > 1,
            f"at iteration {state.step} the networks drift apart: {self._drift} rates scans above samples by "
            f"{state.drift:.3g} times what a gradient penalty allows",
        )

    def samples(self, state: State, volumes: np.ndarray) -> Measures:
        """Measure samples (n, N, N, N) in [-1, 1] of a regular checkpoint, and record the best in `state`."""
        sample_features = features(volumes[:, None])
        reference, spread = _spread(self._scans), _spread(sample_features)
        diversity = spread / reference if reference else None
        measures = Measures(state.drift, diversity, distance(sample_features, self._scans))
        state.apart = apart(self._volumes[:, 0], volumes)
        collapsed = diversity is not None and diversity < FLOOR
        state.collapsed = state.collapsed + 1 if collapsed else 0
        self._check(
            "collapse",
            state.collapsed >= PATIENCE,
            f"at iteration {state.step} the samples look alike (mode collapse): at {PATIENCE} checkpoints "
            f"in a row they differ by less than {FLOOR:.0%} of what scans do, now by {diversity or 0:.1%}",
        )
        if state.best is None or measures.distance < state.best["distance"]:
            state.best = {"step": state.step, "distance": measures.distance}
        return measures

    def _check(self, what: str, bad: bool, message: str) -> None:
        if bad and self._on_divergence != "warn":
            raise DivergenceError(f"Training diverged: {message}.")
        if bad and what not in self._warned:  # once, until the problem is gone
            logger.warning("%s. Use --on-divergence stop or rollback to act on it.", message)
        self._warned = self._warned | {what} if bad else self._warned - {what}


def finite(terms: Terms, step: int) -> dict[str, float]:
    """The losses as numbers; here the loop waits for the device. Raises DivergenceError for NaN and infinity."""
    values = dict(zip(terms, torch.stack(list(terms.values())).tolist(), strict=True))
    _refuse([name for name, value in values.items() if not math.isfinite(value)], step)
    return values


def check_weights(networks: Networks, step: int) -> None:
    """Raise DivergenceError if weights are not finite after an update with finite losses; they must not be saved."""
    for name, network in networks.items():
        if not all(parameter.isfinite().all() for parameter in network.parameters()):
            _refuse([f"a weight of the {name}"], step)


def sound(networks: Networks, terms: Terms) -> bool:
    """Whether all losses and weights are finite and may be saved."""
    values = [*terms.values(), *(p for network in networks.values() for p in network.parameters())]
    return all(bool(value.isfinite().all()) for value in values)


def _refuse(broken: list[str], step: int) -> None:
    if broken:
        more = [f"{len(broken) - 2} more"] if len(broken) > 3 else []
        names = ", ".join(broken[: 2 if more else 3] + more)
        finite_not = "is not a finite number" if len(broken) == 1 else "are not finite numbers"
        raise DivergenceError(f"Training diverged: at iteration {step} {names} {finite_not}.")


def farthest(size: int) -> float:
    """The largest distance between two volumes in [-1, 1] with N = `size`."""
    return 2 * size**1.5


def apart(scans: np.ndarray, samples: np.ndarray) -> float:
    """Mean Euclidean distance between a scan and a sample, (n, N, N, N) each.

    A critic whose gradient norm is at most 1, as the gradient penalty requires (Gulrajani et al. 2017,
    arXiv:1704.00028), cannot rate scans above samples by more than this. If it does, it has left its bound, and its
    loss and the generator's grow without limit: the divergence by which Ferreira et al. 2022
    (doi:10.3390/app12104844, Figure 8) recognise mode collapse. The losses themselves are no criterion: a constant
    added to all scores changes the generator's loss without any meaning.
    """
    distances = [np.linalg.norm(scan - sample) for scan in scans for sample in samples[:NEAR]]
    return float(np.mean(distances, dtype=np.float64))


def features(volumes: np.ndarray | Tensor) -> Tensor:
    """Volumes (n, 1, N, N, N) -> (n, 2, 8, 8, 8): mean and standard deviation in each of 8 x 8 x 8 blocks.

    Means describe anatomy and contrast, standard deviations detail, blur and noise. The features are so coarse that a
    few dozen samples suffice.
    """
    # Allocated at once: results of single volumes would fragment the memory that the volumes free.
    result = torch.empty(len(volumes), 2, BLOCKS, BLOCKS, BLOCKS)
    for start in range(0, len(volumes), 8):
        part = torch.tensor(np.asarray(volumes[start : start + 8]), dtype=torch.float32)
        mean = F.adaptive_avg_pool3d(part, BLOCKS)
        square = F.adaptive_avg_pool3d(part.square(), BLOCKS)
        result[start : start + 8] = torch.cat([mean, (square - mean.square()).clamp(min=0).sqrt()], dim=1)
    return result


def distance(left: Tensor, right: Tensor) -> float:
    """Distance between two sets of features, per feature, in units of intensity.

    sqrt(mean((m1 - m2)^2 + (s1 - s2)^2)) with each feature's mean m and standard deviation s over the set:
    the 2-Wasserstein distance between normal distributions without covariances, the idea of the Frechet
    inception distance (Heusel et al. 2017, arXiv:1706.08500). It is smooth because each checkpoint uses the same few
    latents. It compares checkpoints of a run; it does not measure finer detail or memorisation.
    """
    means = (left.mean(0) - right.mean(0)).square()
    spreads = (left.std(0, correction=0) - right.std(0, correction=0)).square()
    return float((means + spreads).mean().sqrt())


def _spread(values: Tensor) -> float:
    """Mean absolute difference between the block means of two members of a set; 0 for a set of one.

    Not the root mean square, in which a few bright voxels would hide that all others are the same.
    """
    blocks = values[:, 0].flatten(1)
    return float(torch.pdist(blocks, p=1).mean() / blocks.shape[1]) if len(values) > 1 else 0.0
