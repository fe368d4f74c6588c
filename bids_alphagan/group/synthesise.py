"""Step synthesise: draw a cohort from each model; scans that fail quality control are drawn again."""

import json
import logging
import math
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, ClassVar, NamedTuple, Self

from bids_alphagan.bids.derivatives import SYNTHESIS_RECORD
from bids_alphagan.bids.study import Study
from bids_alphagan.common.errors import UserError
from bids_alphagan.config import Config
from bids_alphagan.group import ledger
from bids_alphagan.group.step import Quality, Step
from bids_alphagan.models import MODELS, load_model
from bids_alphagan.qc import rejected
from bids_alphagan.qc.rejected import NonePassedError
from bids_alphagan.qc.verdicts import QualityControl
from bids_alphagan.segmenters import NONE, resolve_segmenter
from bids_alphagan.segmenters.base import Segmenter
from bids_alphagan.segmenters.consistency import check_alike
from bids_alphagan.segmenters.methods import mask_facts
from bids_alphagan.segmenters.options import MaskOptions
from bids_alphagan.synthesis.cohort import Cohort, synthesise
from bids_alphagan.templates import Template, find_template
from bids_alphagan.training.device import choose_device

log = logging.getLogger(__name__)


class Masks(NamedTuple):
    """Template and segmenter of the synthetic scans' masks; both None for no masks."""

    template: Template | None = None
    segmenter: Segmenter | None = None


class Draws(NamedTuple):
    """Number of scans, seed, most draws per scan, and whether to keep every rejected draw."""

    n: int
    seed: int
    most: int
    keep_rejected: bool


class Machine(NamedTuple):
    """The device, the number of parallel processes, and the memory for masks in GB."""

    device: str
    processes: int
    memory_gb: float

    def processes_of(self, gigabytes: float) -> int:
        """Number of parallel processes of that size, at least one."""
        return max(1, min(self.processes, int(self.memory_gb / gigabytes)))


@dataclass
class Synthesise(Step):
    """segmenter, template: as in the options; `check` loads them into `masks`."""

    name: ClassVar[str] = "synthesise"
    models: tuple[str, ...]
    draws: Draws
    quality: Quality
    machine: Machine
    segmenter: str
    template: str
    mask_options: MaskOptions
    masks: Masks = field(default_factory=Masks)

    @classmethod
    def with_options(cls, config: Config) -> Self:
        return cls(
            tuple(config.model),
            Draws(config.n_synthetic, config.seed, config.max_draws, config.keep_rejected),
            Quality(config.gate_width, config.gate_limits),
            Machine(choose_device(config.device), config.processes, config.memory_gb),
            config.segmenter,
            config.template,
            config.mask_options,
        )

    def check(self, study: Study) -> None:
        with_masks = {scan.name.stem: scan.segmentation for scan in study.scans if scan.masks}
        if not with_masks:
            return
        if self.segmenter == NONE:
            for model in self.models:
                drawn = len(MODELS[model].channels) > 1
                masks = "are those that it draws, without quality control" if drawn else "are not made"
                log.warning("%s: tissue masks of synthetic scans %s: --segmenter none", model, masks)
            return
        template = find_template(self.template)
        segmenter = resolve_segmenter(self.segmenter, template, self.mask_options)
        check_alike(with_masks, segmenter)
        self.masks = Masks(template, segmenter)

    def run(self, study: Study) -> None:
        study.cohorts = None
        quality = QualityControl.of(study, *self.quality)
        for index, model in enumerate(self.models):
            try:
                self._draw(study, model, quality)
            except NonePassedError as error:
                drawn = {name: ledger.cohort_record(study, name) for name in self.models[:index]}
                table = quality.write_table(drawn, {model: error.draws})
                raise UserError(f"{error} {table} has every draw with its reasons.") from error
        cohorts = ledger.find_cohorts(study, self.models, self.draws.seed)
        quality.write_table({model: ledger.cohort_record(study, model) for model in cohorts})
        ledger.cohorts(study, self.models, self.draws.seed)

    def _draw(self, study: Study, model: str, quality: QualityControl) -> None:
        folder, entry = study.model_folder(model), MODELS[model]
        sampler = load_model(model).load(folder, self.machine.device)
        template, segmenter = self.masks
        parameters = study.digest(folder / entry.parameters)
        cohort = Cohort(
            folder=study.cohort_folder(model),
            output_dir=study.output_dir,
            like=tuple(study.training),
            seed=self.draws.seed,
            facts={"Model": model, "ModelInformation": sampler.info, "GeneratorSHA256": parameters},
            segment=segmenter,
            segment_id=masks_id(study, template, segmenter),
            limits=quality.limits if segmenter else {},
            rejected=rejected.folder_of(folder),
            keep_rejected=self.draws.keep_rejected,
            channels=entry.channels,
        )

        def work() -> dict[str, Any]:
            largest = max(math.prod(scan.record["SourceGrid"]) for scan in study.training)
            processes = self.machine.processes
            if segmenter:
                processes = self.machine.processes_of(segmenter.memory_gb(largest))
            drawn = synthesise(cohort, self.draws.n, self.draws.most, sampler.draw, study.bids_dir, processes)
            masks = mask_facts(segmenter, template)
            return {
                **drawn,
                **ledger.origin(study, model, self.draws.seed),
                "step": sampler.info.get("step"),
                "gate_width": self.quality.width,
                "limits": {name: limit.record() for name, limit in cohort.limits.items()},
                "masks": asdict(masks) if masks else None,
            }

        inputs = {"cohort": cohort.settings(), "n": self.draws.n, "max_draws": self.draws.most}
        record = ledger.cached(
            f"synthesis of {model}", folder / SYNTHESIS_RECORD, inputs, [cohort.folder], work
        )
        log.info(
            "%s: %d scans accepted, %d draws rejected", model, record["n_accepted"], record["n_rejected"]
        )


def masks_id(study: Study, template: Template | None, segmenter: Segmenter | None) -> str:
    """Everything that determines the masks: method, parameters, and the template's content."""
    if template is None or segmenter is None:
        return "none"
    images: list[Path] = [template.t2w, template.brain_mask, template.gm, template.wm, template.csf]
    return json.dumps([segmenter.describe(), [study.digest(path) for path in images]])
