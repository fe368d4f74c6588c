"""Training an alpha-GAN: `train` reads in the order in which things happen.

One iteration goes through `PHASES`: encoder and generator, then discriminator, then code discriminator, once
each (Ferreira et al. 2022, doi:10.3390/app12104844, equations (1) to (6)). All outside a phase is frozen.
"""

import logging
import math
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from bids_alphagan.errors import UserError
from bids_alphagan.files import write_json
from bids_alphagan.models import ModelSpec, losses
from bids_alphagan.models.networks import Networks, build_networks
from bids_alphagan.models.trained import (
    GENERATOR_FILE,
    TrainedGenerator,
    draw_latent,
    for_sampling,
    generate,
    save_generator,
)
from bids_alphagan.training import checkpoint
from bids_alphagan.training.data import augment, batch_indices, random_source
from bids_alphagan.training.identity import TrainSettings, configuration, refuse_another_run
from bids_alphagan.training.interrupt import Interrupted, requests
from bids_alphagan.training.record import LOSSES, Record

BETAS, EPSILON = (0.9, 0.999), 1e-8  # of Adam and AdamW, the paper's
ITERATION_STREAM = 1  # key of the iterations' random numbers; 0 is the order of the scans
SHOWN = 4  # samples in TensorBoard

logger = logging.getLogger(__name__)


class TrainResult(NamedTuple):
    """step: iterations done in all. seconds: what this call took. generator: the file that was written."""

    step: int
    seconds: float
    generator: Path


class Batch(NamedTuple):
    """What a phase sees: scans (B, 1, N, N, N), their codes E(scans) (B, L), random codes (B, L)."""

    real: Tensor
    encoded: Tensor
    random: Tensor
    source: torch.Generator


Terms = dict[str, Tensor]


def generator_terms(networks: Networks, batch: Batch, spec: ModelSpec) -> Terms:
    """The terms of equations (2), (5) and (6)."""
    reconstruction = networks.generator(batch.encoded)
    scores = networks.discriminator(reconstruction), networks.discriminator(networks.generator(batch.random))
    return {
        "adversarial": losses.adversarial(*scores),
        "code_adversarial": losses.code_adversarial(networks.code_discriminator(batch.encoded)),
    } | {name: losses.RECONSTRUCTION[name](batch.real, reconstruction) for name in spec.reconstruction}


def discriminator_terms(networks: Networks, batch: Batch, spec: ModelSpec) -> Terms:
    """The terms of equation (4); the penalty is the sum of two."""
    critic = networks.discriminator
    encoded, random = networks.generator(batch.encoded), networks.generator(batch.random)
    return {
        "wasserstein": losses.discriminator(critic(batch.real), critic(encoded), critic(random)),
        "penalty": _penalty(critic, batch.real, random, batch) + _penalty(critic, batch.real, encoded, batch),
    }


def code_discriminator_terms(networks: Networks, batch: Batch, spec: ModelSpec) -> Terms:
    """The terms of equation (3); the random codes are the real ones."""
    critic = networks.code_discriminator
    return {
        "wasserstein": losses.code_discriminator(critic(batch.encoded), critic(batch.random)),
        "penalty": _penalty(critic, batch.random, batch.encoded, batch),
    }


@dataclass(frozen=True)
class Phase:
    """One update: the networks that learn, and the terms whose weighted sum they minimise.

    new_scans: True draws a batch of scans; False goes on with the codes of the phase before.
    """

    name: str
    networks: tuple[str, ...]
    terms: Callable[[Networks, Batch, ModelSpec], Terms]
    new_scans: bool = True


PHASES = (
    Phase("generator", ("generator", "encoder"), generator_terms),
    Phase("discriminator", ("discriminator",), discriminator_terms),
    Phase("code_discriminator", ("code_discriminator",), code_discriminator_terms, new_scans=False),
)
Optimisers = dict[str, torch.optim.Optimizer]


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

    Raises UserError where the numbers make no network, where the checkpoint belongs to other data or settings
    (only `MAY_CHANGE` may differ) and where a loss is not finite; Interrupted after SIGINT or SIGTERM, with
    the state saved.
    """
    began, device = time.perf_counter(), torch.device(device)
    latent = settings.latent or spec.latent
    config = configuration(volumes, spec, settings)
    networks = _initial_networks(spec, settings, size=volumes.shape[-1]).to(device)
    optimisers = {phase.name: _optimiser(phase, networks, spec, settings) for phase in PHASES}
    checkpoints = folder / "checkpoints"

    step = 0
    if resume and (found := checkpoint.newest(checkpoints)):
        refuse_another_run(found.info, config, folder)
        checkpoint.restore(found, vars(networks), optimisers)
        step = found.step
        logger.info("%s goes on from its checkpoint at iteration %d", spec.name, step)
    else:
        _clear(folder)
    write_json(folder / "config.json", config)

    scans = torch.as_tensor(volumes).to(device)
    with requests() as request, Record(folder, spec.name, step, settings.iterations) as record:
        while step < settings.iterations:
            terms = iteration(networks, optimisers, scans, spec, settings, step)
            step += 1
            record.advance()
            stopping = request.by  # read once: a signal that comes later waits for the next iteration
            saving = stopping or step % settings.checkpoint_every == 0 or step == settings.iterations
            if saving or step == 1 or step % settings.log_every == 0:
                values = _finite(terms, step, checkpoints)
            if step == 1 or step % settings.log_every == 0:
                record.losses(step, values)
            if saving:
                _check_weights(networks, step, checkpoints)
                checkpoint.save(checkpoints, vars(networks), optimisers, {**config, "step": step})
                record.samples(step, _samples(networks, latent))
            if stopping:
                message = f"{spec.name} stopped at iteration {step} by {stopping.name}; the state is saved"
                raise Interrupted(message, stopping)

    info = {"model": spec.name, "latent": latent, "channels": settings.channels, "size": volumes.shape[-1]}
    generator = for_sampling(networks.generator, latent)
    path = save_generator(folder, generator, {**info, "step": step, "seed": settings.seed})
    return TrainResult(step, time.perf_counter() - began, path)


def iteration(
    networks: Networks,
    optimisers: Optimisers,
    scans: Tensor,
    spec: ModelSpec,
    settings: TrainSettings,
    step: int,
) -> Terms:
    """Iteration number `step` (from 0): one update of each phase. Returns losses and unweighted terms.

    Every random number follows from settings.seed and `step`.
    """
    source = random_source(settings.seed, ITERATION_STREAM, step)
    results: Terms = {}
    drawn = 0
    for phase in PHASES:
        for name, network in vars(networks).items():
            network.requires_grad_(name in phase.networks)
        if phase.new_scans:
            number = 2 * step + drawn
            chosen = batch_indices(len(scans), settings.batch_size, settings.seed, number).to(scans.device)
            real = augment(scans[chosen], spec.augmentations, source)
            encoded = networks.encoder(real)
            drawn += 1
        random = torch.randn(encoded.shape, generator=source).to(scans.device)

        terms = phase.terms(networks, Batch(real, encoded, random, source), spec)
        loss = total(terms, spec)
        optimisers[phase.name].zero_grad()
        loss.backward()
        optimisers[phase.name].step()

        results[f"{phase.name}_loss"] = loss.detach()
        results |= {f"{phase.name}_{name}": term.detach() for name, term in terms.items()}
    return results


def total(terms: Terms, spec: ModelSpec) -> Tensor:
    """The weighted sum of a phase's terms; a term that the model gives no weight counts once."""
    weights = {"penalty": spec.gradient_penalty, **spec.reconstruction}
    return torch.stack([weights.get(name, 1) * term for name, term in terms.items()]).sum()


def _penalty(critic: torch.nn.Module, real: Tensor, fake: Tensor, batch: Batch) -> Tensor:
    mix = torch.rand(len(real), generator=batch.source).to(real.device)
    return losses.gradient_penalty(critic, real, fake, mix)


def _initial_networks(spec: ModelSpec, settings: TrainSettings, size: int) -> Networks:
    if spec.code_discriminator.normalisation == "batch" and settings.batch_size < 2:
        raise UserError(f"{spec.name} normalises codes over the batch: the batch size must be at least 2")
    # drawn on the CPU, so that every device starts from the same weights
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(settings.seed)
        try:
            return build_networks(spec, size, settings.channels, settings.latent)
        except ValueError as error:
            raise UserError(str(error)) from error


def _optimiser(
    phase: Phase, networks: Networks, spec: ModelSpec, settings: TrainSettings
) -> torch.optim.Optimizer:
    kind = {"Adam": torch.optim.Adam, "AdamW": torch.optim.AdamW}[spec.optimiser]
    parameters = [p for name in phase.networks for p in getattr(networks, name).parameters()]
    return kind(parameters, settings.learning_rate, BETAS, EPSILON, spec.weight_decay)


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
