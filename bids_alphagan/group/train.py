"""Step train: fit the models to the training scans, or resume an earlier run, on all devices."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import ClassVar, NoReturn, Self

from bids_alphagan.bids.prepared import PreparedScan
from bids_alphagan.bids.study import Study
from bids_alphagan.common.errors import Stopped
from bids_alphagan.common.logs import errors_only
from bids_alphagan.config import Config
from bids_alphagan.group import ledger
from bids_alphagan.group.step import Step
from bids_alphagan.models import MODELS, check_batch, load_model
from bids_alphagan.training import distributed
from bids_alphagan.training.cache import check_maps, prepared_volumes
from bids_alphagan.training.device import choose_device, choose_precision
from bids_alphagan.training.launch import launch
from bids_alphagan.training.loop import train
from bids_alphagan.training.settings import TrainSettings

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Train(Step):
    """models: to train, in their variant. resume: False makes a backup of an earlier run and starts again."""

    name: ClassVar[str] = "train"
    models: tuple[str, ...]
    variant: str
    settings: TrainSettings
    device: str
    devices: int
    num_nodes: int
    resume: bool

    @classmethod
    def with_options(cls, config: Config) -> Self:
        device = choose_device(config.device)
        settings = TrainSettings(
            iterations=config.iterations,
            batch_size=config.batch_size,
            seed=config.seed,
            channels=config.channels,
            latent=config.latent_size,
            learning_rate=config.learning_rate,
            adam_betas=tuple(config.adam_betas),
            ema_decay=config.ema_decay,
            precision=choose_precision(config.precision, device),
            speedups=tuple(config.speedups),
            log_every=config.log_every,
            checkpoint_every=config.checkpoint_every,
            keep_checkpoints=config.keep_checkpoints,
            on_divergence=config.on_divergence,
            use_checkpoint=config.use_checkpoint,
        )
        resume = config.resume != "never"
        return cls(
            tuple(config.model), config.variant, settings, device, config.devices, config.num_nodes, resume
        )

    def check(self, study: Study) -> None:
        distributed.check(self.devices, self.num_nodes, self.settings.batch_size, self.device)
        for model in self.models:
            check_batch(model, self.settings.batch_size)
            check_maps(study.training, MODELS[model].channels)

    def run(self, study: Study) -> None:
        with distributed.process_group(self.device):
            for model in self.models:
                if distributed.broadcast_decision(partial(self._is_to_train, study, model)):
                    log.info("%s: training on %d scans, on %s", model, len(study.training), self.device)
                    fit = Fit(
                        model,
                        self.variant,
                        self.settings,
                        study.training,
                        study.model_folder(model),
                        study.work_dir,
                    )
                    launch(self.devices, self.device, fit, self.device)

    def _is_to_train(self, study: Study, model: str) -> bool:
        # The file of volumes is written here, so that no other process has to write it.
        volumes = prepared_volumes(study.training, study.work_dir / "scans", MODELS[model].channels)
        return ledger.is_to_train(
            study, model, load_model(model, self.variant), volumes, self.settings, self.resume
        )


@dataclass(frozen=True)
class Fit:
    """The training of one model in one process, which may be one of several that share each batch."""

    model: str
    variant: str
    settings: TrainSettings
    scans: Sequence[PreparedScan]
    folder: Path
    work_dir: Path

    def __call__(self, device: str) -> None:
        volumes = prepared_volumes(self.scans, self.work_dir / "scans", MODELS[self.model].channels)
        train(volumes, load_model(self.model, self.variant), self.settings, self.folder, device)


def follow(study: Study, steps: Sequence[Step]) -> NoReturn:
    """Train with rank 0, which does everything else. Logs only errors, and ends the process."""
    errors_only()
    code = 0
    try:
        for step in steps:
            if isinstance(step, Train):
                step.run(study)
    except Stopped as stopped:  # rank 0 reports it
        code = 128 + stopped.by
    distributed.leave(code)
