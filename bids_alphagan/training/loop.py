"""Training an alpha-GAN: `train` reads in the order in which things happen."""

import logging
import shutil
import time
from contextlib import nullcontext, suppress
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from bids_alphagan.common.errors import UserError
from bids_alphagan.common.files import remove_unfinished, write_json
from bids_alphagan.common.process.interrupt import Interrupted, requests
from bids_alphagan.common.process.lock import alone_in
from bids_alphagan.models import ModelSpec
from bids_alphagan.models.alphagan.generator import (
    GENERATOR_FILE,
    TrainedGenerator,
    draw_latent,
    for_sampling,
    generate,
    save_generator,
)
from bids_alphagan.training import checkpoint, distributed, health
from bids_alphagan.training import ema as average
from bids_alphagan.training import resources as means
from bids_alphagan.training.data import Batches, check
from bids_alphagan.training.health import DivergenceError, Health
from bids_alphagan.training.logger import HEALTH, LOSSES, SAMPLES, Record, Unrecorded
from bids_alphagan.training.phases import Optimisers, initial_networks, iteration, new_optimisers
from bids_alphagan.training.settings import TrainSettings, configuration, refuse_another_run
from bids_alphagan.training.state import State, stream

SHOWN = 4  # samples to be looked at
ROLLBACKS = 3  # in a run
AT_RISK = 600.0  # s of work that a power cut may cost, where --checkpoint-every is longer

logger = logging.getLogger(__name__)


class TrainResult(NamedTuple):
    """step: iterations done in all. seconds: what this call took. generator: the file that was written."""

    step: int
    seconds: float
    generator: Path


@means.enough_memory()
def train(
    volumes: np.ndarray | Tensor,
    spec: ModelSpec,
    settings: TrainSettings,
    folder: Path,
    device: torch.device | str = "cpu",
    resume: bool = True,
) -> TrainResult:
    """Train `spec` on volumes (n, 1, N, N, N), float32 in [-1, 1], and write into `folder`.

    Written: config.json, losses.tsv, health.tsv, samples/, tensorboard/, checkpoints/ and, at the end,
    generator.safetensors. With `resume` the run goes on from the newest checkpoint that is whole, and on one
    CPU machine with as many threads it ends, bit for bit, where an uninterrupted one does, however often and
    at whatever moment it was killed; without it, what is in `folder` from an earlier run is removed.

    In a team (training.distributed) every process calls it with the same arguments; the leader writes.

    Raises UserError without scans, where another run is in `folder`, where the numbers make no network, where
    the checkpoint belongs to other data or settings (only `MAY_CHANGE` may differ), where memory runs out and
    where the disk is full; DivergenceError where a loss is not finite, or for less if settings.on_divergence
    says so; Interrupted after SIGINT, SIGTERM or SIGUSR1, with the state saved.
    """
    check(volumes)
    with alone_in(folder) if distributed.is_leader() else nullcontext():
        return _train(volumes, spec, settings, folder, torch.device(device), resume)


def _train(
    volumes: np.ndarray | Tensor,
    spec: ModelSpec,
    settings: TrainSettings,
    folder: Path,
    device: torch.device,
    resume: bool,
) -> TrainResult:
    """`train`, with `folder` for itself."""
    began = saved = time.perf_counter()
    latent = settings.latent or spec.latent
    config = configuration(volumes, spec, settings)
    networks = initial_networks(spec, settings, size=volumes.shape[-1])
    means.tell_memory(spec.name, networks, latent, volumes.shape[-1], settings, device)
    networks = networks.to(device)
    held = average.with_average(networks, settings.ema_decay)
    optimisers = new_optimisers(networks, spec, settings)
    checkpoints = folder / "checkpoints"

    state = State()
    found = checkpoint.newest(checkpoints) if resume else None
    distributed.check_same({**config, "step": found and found.step}, folder)
    leader = distributed.is_leader()  # writes; on one device it is the only process
    if leader:
        remove_unfinished(folder)
    if found:
        refuse_another_run(found.info, config, folder)
        checkpoint.restore(found, held, optimisers)
        state = State.read(found.info)
        if leader:
            checkpoint.prune(checkpoints, state.kept(settings.keep_checkpoints), below=state.step)
        logger.info("%s goes on from its checkpoint at iteration %d", spec.name, state.step)
    elif leader:
        _clear(folder)
    if leader:
        write_json(folder / "config.json", config)

    def write() -> None:
        record.to_disk()
        checkpoint.save(checkpoints, held, optimisers, {**config, **state.info()})
        checkpoint.prune(checkpoints, state.kept(settings.keep_checkpoints))

    def save() -> None:
        if leader:
            write()
        distributed.wait()

    batches = Batches(volumes, settings.batch_size, settings.seed, device)
    judge, forecast = Health(volumes, settings.on_divergence), means.Forecast(spec.name, device)
    written = Record(folder, spec.name, state.step, settings.iterations) if leader else Unrecorded()
    with requests() as request, written as record:
        if settings.on_divergence == "rollback" and not state.regular:
            state.saved(settings.keep_checkpoints)  # a place to go back to
            save()
        while state.step < settings.iterations:
            numbers = stream(settings, state.rollbacks)
            terms = iteration(networks, optimisers, batches, spec, numbers, state.step)
            state.step += 1
            average.advance(held, settings.ema_decay, state.step)
            record.advance()
            forecast.advance(settings.iterations - state.step)
            # read once: a signal that comes later waits for the next iteration
            stopping = distributed.agreed(request.by)
            reading = state.step == 1 or state.step % settings.log_every == 0
            regular = state.step % settings.checkpoint_every == 0
            last = state.step == settings.iterations
            looking = regular or last or _milestone(state.step)
            try:
                if reading or looking or stopping:
                    values = health.finite(terms, state.step)
                if reading:
                    judge.losses(state, values)
                    record.losses(state.step, values)
                if looking or stopping:
                    health.check_weights(networks, state.step)
                if looking:
                    samples = _samples(held, latent, health.SAMPLES if regular else SHOWN)
                    record.samples(state.step, samples[:SHOWN], keep=last or _milestone(state.step))
                if regular:
                    record.health(state.step, judge.samples(state, samples)._asdict())
                    state.saved(settings.keep_checkpoints)
                if regular or last or stopping:
                    save()
                    saved = time.perf_counter()
                elif leader and time.perf_counter() - saved > AT_RISK and health.sound(networks, terms):
                    write()
                    saved = time.perf_counter()
            except DivergenceError as problem:
                state = _back(problem, state, settings, checkpoints, held, optimisers)
                record.rewind(state.step)
            if stopping:
                break
        else:
            if leader:
                _write_generator(folder, held, state, spec, settings, volumes.shape[-1])
    if by := distributed.agreed(request.by):
        words = f"{spec.name} stopped at iteration {state.step} by {by.name}; the state is saved"
        raise Interrupted(words, by)
    return TrainResult(state.step, time.perf_counter() - began, folder / GENERATOR_FILE)


def _clear(folder: Path) -> None:
    """Remove an earlier run's files, and nothing else."""
    for name in ("checkpoints", "tensorboard", SAMPLES):
        shutil.rmtree(folder / name, ignore_errors=True)
    for name in (LOSSES, HEALTH, GENERATOR_FILE):
        (folder / name).unlink(missing_ok=True)
    folder.mkdir(parents=True, exist_ok=True)


def _milestone(step: int) -> bool:
    """Whether samples of this step are kept: 10, 20, 50, 100, 200 ... show a training on a few pictures."""
    return step >= 10 and str(step).rstrip("0") in ("1", "2", "5")


def _back(
    problem: DivergenceError,
    state: State,
    settings: TrainSettings,
    checkpoints: Path,
    networks: dict[str, nn.Module],
    optimisers: Optimisers,
) -> State:
    """Put the run back to its last regular checkpoint, from where it goes on with other random numbers.

    Raises the problem, with advice, where that is not asked for or was done too often.
    """
    if settings.on_divergence != "rollback" or state.rollbacks == ROLLBACKS:
        tried = f" It was rolled back {state.rollbacks} times." if state.rollbacks else ""
        advice = "" if tried else " go on from there with --on-divergence rollback, or"
        raise DivergenceError(
            f"{problem}{tried} Checkpoints in {checkpoints} are from before:{advice} train again "
            "(--resume never) with another --seed or a smaller --learning-rate."
        ) from problem
    found = checkpoint.newest(checkpoints, state.regular)
    assert found, "a run that may roll back has a regular checkpoint from its start on"
    checkpoint.restore(found, networks, optimisers)
    before = State.read(found.info)
    before.rollbacks = state.rollbacks + 1
    logger.warning(
        "%s Going back to iteration %d and on with other random numbers (%d of %d times)",
        *(problem, before.step, before.rollbacks, ROLLBACKS),
    )
    return before


def _samples(networks: dict[str, nn.Module], latent: int, n: int) -> np.ndarray:
    """Samples (n, N, N, N) of the same latents each time, so that one can see how they change."""
    latents = np.stack([draw_latent(seed, latent) for seed in range(n)])
    return generate(TrainedGenerator(for_sampling(average.drawn_from(networks), latent), latent, {}), latents)


def _write_generator(
    folder: Path,
    networks: dict[str, nn.Module],
    state: State,
    spec: ModelSpec,
    settings: TrainSettings,
    size: int,
) -> Path:
    """Write the last generator, or the best (settings.use_checkpoint), which then takes its place."""
    latent, step = settings.latent or spec.latent, state.step
    if settings.use_checkpoint == "best" and state.best and state.best["step"] != step:
        with suppress(UserError):  # it is damaged
            if found := checkpoint.newest(folder / "checkpoints", [state.best["step"]]):
                checkpoint.restore(found, networks, {})
                step = found.step
        if step != state.best["step"]:
            logger.warning("The best checkpoint cannot be read: the last generator is taken")
    info = {"model": spec.name, "latent": latent, "channels": settings.channels, "size": size, "step": step}
    info |= {
        "variant": spec.variant,
        "seed": settings.seed,
        "trained": state.step,
        "checkpoint": settings.use_checkpoint,
        "ema_decay": settings.ema_decay,
    }
    return save_generator(folder, for_sampling(average.drawn_from(networks), latent), info)
