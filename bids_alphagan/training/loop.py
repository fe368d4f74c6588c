"""The training of a model. `train` reads in the order of execution."""

import logging
import shutil
import time
from contextlib import nullcontext, suppress
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from bids_alphagan.common.errors import UserError
from bids_alphagan.common.files import remove_unfinished, write_json
from bids_alphagan.common.process.interrupt import Interrupted, requests
from bids_alphagan.common.process.lock import lock
from bids_alphagan.models import MODELS
from bids_alphagan.models.base import Model, NetworkModel, Networks, Optimisers
from bids_alphagan.training import checkpoint, distributed, ema, health, resources
from bids_alphagan.training.configuration import configuration, refuse_another_run
from bids_alphagan.training.data import Batches, Volumes
from bids_alphagan.training.health import DivergenceError, Health
from bids_alphagan.training.logger import HEALTH, LOSSES, SAMPLES, Logger, NoLogger
from bids_alphagan.training.phases import batches_in, initial_networks, iteration
from bids_alphagan.training.settings import TrainSettings
from bids_alphagan.training.state import State, stream

SHOWN = 4  # samples in TensorBoard and samples/
ROLLBACKS = 3  # per run
AT_RISK = 600.0  # s between extra saves if --checkpoint-every takes longer, so that a crash costs little

logger = logging.getLogger(__name__)


class TrainResult(NamedTuple):
    """step: iterations in total. seconds: duration of this call. parameters: the parameter file."""

    step: int
    seconds: float
    parameters: Path


@resources.explain_memory_errors()
def train(
    volumes: Volumes | np.ndarray | Tensor,
    model: Model,
    settings: TrainSettings,
    folder: Path,
    device: torch.device | str = "cpu",
    resume: bool = True,
) -> TrainResult:
    """Fit a model to volumes (n, C, N, N, N), float32 in [-1, 1], and write the results to `folder`.

    Written are config.json and, at the end, the model's parameter file. A `NetworkModel` is trained here and also
    writes losses.tsv, health.tsv, samples/, tensorboard/ and checkpoints/. With `resume` its run continues from the
    newest intact checkpoint; on one CPU machine with the same number of threads the result equals, bit for bit, that
    of an uninterrupted run, however often and whenever it was killed. Without `resume`, the files of an earlier run in
    `folder` are removed.

    In a process group (training.distributed) every process calls it with the same arguments; rank 0 writes.

    Raises UserError if there are no scans or they have other channels than the model, if another process trains in
    `folder`, if no network can be built, if the checkpoint belongs to other data or settings (only `MAY_CHANGE` may
    differ), if memory runs out and if the disk is full; DivergenceError if a loss is not finite, or earlier depending
    on settings.on_divergence; Interrupted after SIGINT, SIGTERM or SIGUSR1, with the state saved.
    """
    checked = volumes if isinstance(volumes, Volumes) else Volumes.of(volumes)
    channels, shape = MODELS[model.name].channels, checked.array.shape
    if shape[1] != len(channels):
        raise UserError(
            f"Scans of shape {shape} cannot be trained on: {model.name} learns {len(channels)} channels "
            f"({', '.join(channels)})."
        )
    with lock(folder) if distributed.is_rank_0() else nullcontext():
        if isinstance(model, NetworkModel):
            return _train(checked, model, settings, folder, torch.device(device), resume)
        return _fit(checked, model, settings, folder, torch.device(device))


def _fit(
    volumes: Volumes, model: Model, settings: TrainSettings, folder: Path, device: torch.device
) -> TrainResult:
    """Fit a model with its own `fit`, in rank 0 alone."""
    began = time.perf_counter()
    parameters = folder / MODELS[model.name].parameters
    if distributed.is_rank_0():
        remove_unfinished(folder)
        _clear(folder)
        parameters.unlink(missing_ok=True)
        write_json(folder / "config.json", configuration(volumes, model, settings))
        model.fit(volumes.array, settings, folder, device)
    distributed.barrier()
    return TrainResult(0, time.perf_counter() - began, parameters)


def _train(
    volumes: Volumes,
    model: NetworkModel,
    settings: TrainSettings,
    folder: Path,
    device: torch.device,
    resume: bool,
) -> TrainResult:
    """`train` for a model of networks and phases, with `folder` locked."""
    began = saved = time.perf_counter()
    size = volumes.array.shape[-1]
    config = configuration(volumes, model, settings)
    networks = initial_networks(model, settings, size)
    resources.log_memory(model, networks, size, settings, device)
    networks = {name: network.to(device) for name, network in networks.items()}
    held = ema.with_ema(networks, model.drawn, settings.ema_decay)
    optimisers = model.optimisers(networks, settings)
    checkpoints = folder / "checkpoints"

    state = State()
    latest = checkpoint.newest(checkpoints) if resume else None
    distributed.check_same({**config, "step": latest and latest.step}, folder)
    main = distributed.is_rank_0()  # rank 0 writes; on one device it is the only process
    if main:
        remove_unfinished(folder)
    if latest:
        refuse_another_run(latest.info, config, folder)
        checkpoint.restore(latest, held, optimisers)
        state = State.read(latest.info)
        if main:
            checkpoint.prune(checkpoints, state.kept(settings.keep_checkpoints), below=state.step)
        logger.info("%s resumes from its checkpoint at iteration %d", model.name, state.step)
    elif main:
        _clear(folder)
        (folder / MODELS[model.name].parameters).unlink(missing_ok=True)
    if main:
        write_json(folder / "config.json", config)

    def write() -> None:
        log.to_disk()
        checkpoint.save(checkpoints, held, optimisers, {**config, **state.info(batches_in(model))})
        checkpoint.prune(checkpoints, state.kept(settings.keep_checkpoints))

    def save() -> None:
        if main:
            write()
        distributed.barrier()

    batches = Batches(volumes.array, settings.batch_size, settings.seed, device)
    monitor = Health(volumes.array, settings.on_divergence, model.drift)
    forecast = resources.Forecast(model.name, device)
    logged = Logger(folder, model.name, state.step, settings.iterations) if main else NoLogger()
    with requests() as request, logged as log:
        if settings.on_divergence == "rollback" and not state.regular:
            state.saved(settings.keep_checkpoints)  # a checkpoint to roll back to
            save()
        while state.step < settings.iterations:
            numbers = stream(settings, state.rollbacks)
            terms = iteration(networks, optimisers, batches, model, numbers, state.step)
            state.step += 1
            ema.update(held, model.drawn, settings.ema_decay, state.step)
            log.advance()
            forecast.advance(settings.iterations - state.step)
            # read once: a later signal waits for the next iteration
            stopping = distributed.all_reduce_signal(request.by)
            reading = state.step == 1 or state.step % settings.log_every == 0
            regular = state.step % settings.checkpoint_every == 0
            last = state.step == settings.iterations
            looking = regular or last or _milestone(state.step)
            try:
                if reading or looking or stopping:
                    values = health.finite(terms, state.step)
                if reading:
                    monitor.losses(state, values)
                    log.losses(state.step, values)
                if looking or stopping:
                    health.check_weights(networks, state.step)
                if looking:
                    samples = _samples(model, held, settings, health.SAMPLES if regular else SHOWN)
                    log.samples(state.step, samples[:SHOWN], keep=last or _milestone(state.step))
                if regular:
                    log.health(state.step, monitor.samples(state, samples)._asdict())
                    state.saved(settings.keep_checkpoints)
                if regular or last or stopping:
                    save()
                    saved = time.perf_counter()
                elif main and time.perf_counter() - saved > AT_RISK and health.sound(networks, terms):
                    write()
                    saved = time.perf_counter()
            except DivergenceError as problem:
                state = _back(problem, state, settings, checkpoints, held, optimisers)
                log.rewind(state.step)
            if stopping:
                break
        else:
            if main:
                _write_parameters(folder, model, held, state, settings, size)
    if by := distributed.all_reduce_signal(request.by):
        message = f"{model.name} stopped at iteration {state.step} by {by.name}; the state is saved"
        raise Interrupted(message, by)
    return TrainResult(state.step, time.perf_counter() - began, folder / MODELS[model.name].parameters)


def _clear(folder: Path) -> None:
    """Remove an earlier run's files, and nothing else."""
    for name in ("checkpoints", "tensorboard", SAMPLES):
        shutil.rmtree(folder / name, ignore_errors=True)
    for name in (LOSSES, HEALTH):
        (folder / name).unlink(missing_ok=True)
    folder.mkdir(parents=True, exist_ok=True)


def _milestone(step: int) -> bool:
    """Whether samples of this step are kept: 10, 20, 50, 100, 200 ... show a training in a few pictures."""
    return step >= 10 and str(step).rstrip("0") in ("1", "2", "5")


def _back(
    problem: DivergenceError,
    state: State,
    settings: TrainSettings,
    checkpoints: Path,
    networks: Networks,
    optimisers: Optimisers,
) -> State:
    """Restore the last regular checkpoint; the run continues with other random numbers.

    Raises the problem, with advice, if rollback is not enabled or was done too often.
    """
    if settings.on_divergence != "rollback" or state.rollbacks == ROLLBACKS:
        tries = f" It was rolled back {state.rollbacks} times." if state.rollbacks else ""
        advice = "" if tries else " continue from one with --on-divergence rollback, or"
        raise DivergenceError(
            f"{problem}{tries} The checkpoints in {checkpoints} are older than that:{advice} train again "
            "(--resume never) with another --seed or a smaller --learning-rate."
        ) from problem
    target = checkpoint.newest(checkpoints, state.regular)
    assert target, "a run with rollback has a regular checkpoint from its start"
    checkpoint.restore(target, networks, optimisers)
    before = State.read(target.info)
    before.rollbacks = state.rollbacks + 1
    logger.warning(
        "%s Rolling back to iteration %d, with other random numbers from there (%d of %d times)",
        *(problem, before.step, before.rollbacks, ROLLBACKS),
    )
    return before


def _samples(model: NetworkModel, networks: Networks, settings: TrainSettings, n: int) -> np.ndarray:
    """Scans (n, N, N, N) from the same seeds each time, so that their changes are visible."""
    return model.sampler(ema.drawn_from(networks, model.drawn), settings).draw(range(n))[:, 0]


def _write_parameters(
    folder: Path, model: NetworkModel, networks: Networks, state: State, settings: TrainSettings, size: int
) -> Path:
    """Write the parameters of the last network, or of the best, which is then restored (settings.use_checkpoint)."""
    step = state.step
    if settings.use_checkpoint == "best" and state.best and state.best["step"] != step:
        with suppress(UserError):  # the checkpoint is damaged
            if best := checkpoint.newest(folder / "checkpoints", [state.best["step"]]):
                checkpoint.restore(best, networks, {})
                step = best.step
        if step != state.best["step"]:
            logger.warning("The best checkpoint cannot be read: using the last generator")
    info = {
        "size": size,
        "step": step,
        "seed": settings.seed,
        "trained": state.step,
        "checkpoint": settings.use_checkpoint,
        "ema_decay": settings.ema_decay,
    }
    return model.save(ema.drawn_from(networks, model.drawn), settings, folder, info)
