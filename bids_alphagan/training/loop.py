"""Training an alpha-GAN: `train` reads in the order in which things happen."""

import logging
import math
import shutil
import time
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from bids_alphagan.errors import UserError
from bids_alphagan.files import write_json
from bids_alphagan.models import ModelSpec
from bids_alphagan.models.networks import Networks
from bids_alphagan.models.trained import (
    GENERATOR_FILE,
    TrainedGenerator,
    draw_latent,
    for_sampling,
    generate,
    save_generator,
)
from bids_alphagan.training import checkpoint, distributed
from bids_alphagan.training.batches import Batches, check
from bids_alphagan.training.identity import TrainSettings, configuration, refuse_another_run
from bids_alphagan.training.interrupt import Interrupted, requests
from bids_alphagan.training.phases import Terms, initial_networks, iteration, new_optimisers
from bids_alphagan.training.record import LOSSES, Record, Unrecorded

SHOWN = 4  # samples in TensorBoard

logger = logging.getLogger(__name__)


class TrainResult(NamedTuple):
    """step: iterations done in all. seconds: what this call took. generator: the file that was written."""

    step: int
    seconds: float
    generator: Path


def train(
    volumes: np.ndarray | Tensor,
    spec: ModelSpec,
    settings: TrainSettings,
    folder: Path,
    device: torch.device | str = "cpu",
    resume: bool = True,
) -> TrainResult:
    """Train `spec` on volumes (n, 1, N, N, N), float32 in [-1, 1], and write into `folder`.

    Written: config.json, losses.tsv, tensorboard/, checkpoints/ and, at the end, generator.safetensors. With
    `resume` the run goes on from the newest checkpoint that is whole, and on one CPU machine it ends, bit for
    bit, where an uninterrupted one does; without it, what is in `folder` from an earlier run is removed.

    In a team (training.distributed) every process calls it with the same arguments; the leader writes.

    Raises UserError without scans, where the numbers make no network, where the checkpoint belongs to other
    data or settings (only `MAY_CHANGE` may differ) and where a loss is not finite; Interrupted after SIGINT
    or SIGTERM, with the state saved.
    """
    began, device = time.perf_counter(), torch.device(device)
    check(volumes)
    latent = settings.latent or spec.latent
    config = configuration(volumes, spec, settings)
    networks = initial_networks(spec, settings, size=volumes.shape[-1]).to(device)
    optimisers = new_optimisers(networks, spec, settings)
    checkpoints = folder / "checkpoints"

    step = 0
    found = checkpoint.newest(checkpoints) if resume else None
    distributed.check_same({**config, "step": found and found.step}, folder)
    leader = distributed.is_leader()  # writes; on one device it is the only process
    if found:
        refuse_another_run(found.info, config, folder)
        checkpoint.restore(found, vars(networks), optimisers)
        step = found.step
        logger.info("%s goes on from its checkpoint at iteration %d", spec.name, step)
    elif leader:
        _clear(folder)
    if leader:
        write_json(folder / "config.json", config)

    batches = Batches(volumes, settings.batch_size, settings.seed, device)
    written = Record(folder, spec.name, step, settings.iterations) if leader else Unrecorded()
    with requests() as request, written as record:
        while step < settings.iterations:
            terms = iteration(networks, optimisers, batches, spec, settings, step)
            step += 1
            record.advance()
            # read once: a signal that comes later waits for the next iteration
            stopping = distributed.agreed(request.by)
            saving = stopping or step % settings.checkpoint_every == 0 or step == settings.iterations
            if saving or step == 1 or step % settings.log_every == 0:
                values = _finite(terms, step, checkpoints)
            if step == 1 or step % settings.log_every == 0:
                record.losses(step, values)
            if saving:
                _check_weights(networks, step, checkpoints)
                if leader:
                    checkpoint.save(checkpoints, vars(networks), optimisers, {**config, "step": step})
                    record.samples(step, _samples(networks, latent))
                distributed.wait()
            if stopping:
                message = f"{spec.name} stopped at iteration {step} by {stopping.name}; the state is saved"
                raise Interrupted(message, stopping)

    info = {"model": spec.name, "latent": latent, "channels": settings.channels, "size": volumes.shape[-1]}
    if leader:
        generator = for_sampling(networks.generator, latent)
        save_generator(folder, generator, {**info, "step": step, "seed": settings.seed})
    distributed.wait()
    return TrainResult(step, time.perf_counter() - began, folder / GENERATOR_FILE)


def _clear(folder: Path) -> None:
    """Remove an earlier run's files, and nothing else."""
    for name in ("checkpoints", "tensorboard"):
        shutil.rmtree(folder / name, ignore_errors=True)
    for name in (LOSSES, GENERATOR_FILE):
        (folder / name).unlink(missing_ok=True)
    folder.mkdir(parents=True, exist_ok=True)


def _finite(terms: Terms, step: int, checkpoints: Path) -> dict[str, float]:
    """The losses as numbers; this is where the loop waits for the device."""
    values = dict(zip(terms, torch.stack(list(terms.values())).tolist(), strict=True))
    if broken := [name for name, value in values.items() if not math.isfinite(value)]:
        raise _diverged(broken, step, checkpoints)
    return values


def _check_weights(networks: Networks, step: int, checkpoints: Path) -> None:
    """An update after finite losses can break the weights; that state must not replace a checkpoint."""
    for name, network in vars(networks).items():
        if not all(parameter.isfinite().all() for parameter in network.parameters()):
            raise _diverged([f"a weight of the {name}"], step, checkpoints)


def _diverged(broken: list[str], step: int, checkpoints: Path) -> UserError:
    return UserError(
        f"Training diverged: at iteration {step} {', '.join(broken)} is not a finite number. Checkpoints in "
        f"{checkpoints} are from before. Train again with another seed (--resume never --seed N)."
    )


def _samples(networks: Networks, latent: int) -> np.ndarray:
    """The same few latents each time, so that TensorBoard shows how they change."""
    latents = np.stack([draw_latent(seed, latent) for seed in range(SHOWN)])
    return generate(TrainedGenerator(for_sampling(networks.generator, latent), latent, {}), latents)
