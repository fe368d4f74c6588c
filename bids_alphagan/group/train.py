"""Which models are to be trained, on what and with what settings, and by which processes."""

import logging
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any, NoReturn

import numpy as np

from bids_alphagan.bids.derivatives import model_folder
from bids_alphagan.bids.prepared import PreparedScan, prepared_scans
from bids_alphagan.bids.split import split
from bids_alphagan.common.errors import Stopped
from bids_alphagan.common.files import read_json
from bids_alphagan.common.logs import errors_only
from bids_alphagan.config import Config
from bids_alphagan.config.run import keep_aside

log = logging.getLogger(__name__)


def follows() -> bool:
    """Whether torchrun or srun started this process beside a leader, which does all that is not training."""
    from bids_alphagan.training import distributed

    place = distributed.started_by()
    return place is not None and place.rank > 0


def follow(config: Config) -> NoReturn:
    """Train with the leader; write and say nothing but errors."""
    from bids_alphagan.training import distributed

    errors_only()
    code = 0
    try:
        if "train" in config.steps:
            train(config, split(config, prepared_scans(config)).training)
    except Stopped as stopped:  # of which the leader tells
        code = 128 + stopped.by
    distributed.leave(code)


def train(config: Config, scans: Sequence[PreparedScan]) -> None:
    """Train the models on the prepared scans, or go on with what an earlier run left, on all devices."""
    from bids_alphagan.training import distributed
    from bids_alphagan.training.launch import launch

    with distributed.joined(device(config)):
        for model in config.model:
            if distributed.from_leader(partial(is_to_train, config, model, scans)):
                log.info("%s: training on %d scans, on %s", model, len(scans), device(config))
                launch(config.devices, device(config), train_model, config, model, scans)


def is_to_train(config: Config, model: str, scans: Sequence[PreparedScan]) -> bool:
    """Whether something is left to do; a former run that cannot go on is put aside."""
    from bids_alphagan import training
    from bids_alphagan.common.process.lock import alone_in
    from bids_alphagan.models.alphagan.generator import GENERATOR_FILE

    inputs = training_inputs(config, model, scans)  # here, so that no other process has to write them
    folder = model_folder(config.output_dir, model)
    if config.resume == "never":
        if folder.is_dir():
            with alone_in(folder):  # not from under a run that is still at it
                pass
        keep_aside(folder)
    elif (folder / GENERATOR_FILE).is_file():
        before = read_json(folder / "config.json")
        now = training.configuration(*inputs)
        if changed := training.differences(before, now):
            log.warning("%s is trained again, for the run has changed: %s", model, "; ".join(changed))
            keep_aside(folder)
        elif (done := trained_iterations(folder, config.use_checkpoint)) >= config.iterations:
            more = f" (it has {done} iterations)" if done > config.iterations else ""
            log.info("%s: nothing has changed, kept as it is%s", model, more)
            return False
    return True


def train_model(config: Config, model: str, scans: Sequence[PreparedScan]) -> None:
    """Train one model in this process, which may be one of several that share each batch."""
    from bids_alphagan import training

    inputs = training_inputs(config, model, scans)
    training.train(*inputs, model_folder(config.output_dir, model), device(config), resume=True)


def training_inputs(config: Config, model: str, scans: Sequence[PreparedScan]) -> tuple[np.ndarray, Any, Any]:
    """Volumes, model and settings of a training run."""
    from bids_alphagan import training
    from bids_alphagan.models import MODELS, variant

    volumes = training.prepared([scan.preproc for scan in scans], config.work / "scans")
    return volumes, variant(MODELS[model], config.variant), train_settings(config)


def train_settings(config: Config) -> Any:
    """The options of training, as the training engine knows them (`training.TrainSettings`)."""
    from bids_alphagan.training import TrainSettings, precision

    return TrainSettings(
        iterations=config.iterations,
        batch_size=config.batch_size,
        seed=config.seed,
        channels=config.channels,
        latent=config.latent_size,
        learning_rate=config.learning_rate,
        adam_betas=tuple(config.adam_betas),
        ema_decay=config.ema_decay,
        precision=precision(config.precision, device(config)),
        speedups=tuple(config.speedups),
        log_every=config.log_every,
        checkpoint_every=config.checkpoint_every,
        keep_checkpoints=config.keep_checkpoints,
        on_divergence=config.on_divergence,
        use_checkpoint=config.use_checkpoint,
    )


def trained_iterations(folder: Path, checkpoint: str) -> int:
    """How far the run got whose generator is in `folder`; 0 where that is of another `checkpoint`."""
    from bids_alphagan.models.alphagan.generator import load_generator

    info = load_generator(folder).info
    return info.get("trained", info["step"]) if info.get("checkpoint", "last") == checkpoint else 0


def device(config: Config) -> str:
    """'cuda' or 'cpu': a GPU where there is one, unless the CPU was asked for."""
    import torch

    from bids_alphagan.training import distributed

    torch.set_num_threads(config.omp_nthreads or max(1, config.processes // distributed.sharing()))
    return "cuda" if config.device != "cpu" and torch.cuda.is_available() else "cpu"
