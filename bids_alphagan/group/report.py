"""Step report: group.html, from the results of the other steps."""

import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, NamedTuple, Self

import numpy as np

from bids_alphagan.bids.names import ScanName
from bids_alphagan.bids.prepared import PreparedScan, scan_masks, synthetic_scans
from bids_alphagan.bids.split import animals_of
from bids_alphagan.bids.study import Study
from bids_alphagan.common.files import read_json, read_tsv
from bids_alphagan.config import Config
from bids_alphagan.config.run import provenance
from bids_alphagan.evaluation import EVALUATE, QUESTIONS, record_name
from bids_alphagan.evaluation.question import Answer, Headline, Question
from bids_alphagan.group import ledger
from bids_alphagan.group.step import Cohorts, Quality, Step
from bids_alphagan.models import MODELS, load_model
from bids_alphagan.qc.limits import few_note
from bids_alphagan.qc.section import qc_section
from bids_alphagan.qc.verdicts import QualityControl
from bids_alphagan.report import charts, figures, scroll
from bids_alphagan.report.html import Section, write_page
from bids_alphagan.report.methods import compose, count
from bids_alphagan.segmenters import masks_text
from bids_alphagan.segmenters.methods import MaskFacts

log = logging.getLogger(__name__)

PAGE = "group.html"
_SHOWN = 4  # scans of each set; more would only make the page larger


class ModelSection(NamedTuple):
    """The content of the report about one model.

    name, label: the model's key and its printed name. training: its config.json. synthesis: the record of its cohort
    (`ledger.cohort_record`). examples, dsegs: synthetic scans and their dsegs (None without one).
    curves, progress: pictures of losses and of samples during training; None without them.
    """

    name: str
    label: str
    training: Mapping[str, Any]
    synthesis: Mapping[str, Any]
    examples: Sequence[Path]
    dsegs: Sequence[Path | None]
    curves: str | None
    progress: str | None

    @property
    def n_accepted(self) -> int:
        return int(self.synthesis["n_accepted"])

    @property
    def n_rejected(self) -> int:
        return int(self.synthesis["n_rejected"])


@dataclass(frozen=True)
class Report(Step):
    """options: every option of the run, for the page's provenance (`Config.record`)."""

    name: ClassVar[str] = "report"
    cohorts: Cohorts
    quality: Quality
    options: Mapping[str, Any]

    @classmethod
    def with_options(cls, config: Config) -> Self:
        cohorts = Cohorts.of(config.model, config.seed, config.steps)
        return cls(cohorts, Quality(config.gate_width, config.gate_limits), config.record())

    def check(self, study: Study) -> None:
        if self.cohorts.first:
            ledger.find_cohorts(study, self.cohorts.models, self.cohorts.seed)

    def run(self, study: Study) -> None:
        cohorts = ledger.cohorts(study, self.cohorts.models, self.cohorts.seed)
        quality = QualityControl.of(study, *self.quality)
        quality.write_table({model: ledger.cohort_record(study, model) for model in cohorts})
        models = [_model_section(study, model, folder) for model, folder in cohorts.items()]
        answers = ledger.current_answers(study, cohorts)
        origin = provenance(self.options)
        examples = _examples(study.scans, models)
        write_page(
            study.output_dir / PAGE,
            "group/group.html.j2",
            n_real=len(study.training),
            galleries=_galleries(examples),
            scroll=_scroll(examples),
            models=models,
            answers=_headlines(models, answers),
            sections=[*qc_section(study, quality, cohorts), *_sections(study, models, answers)],
            provenance=origin,
            methods=_methods(study, models, answers, self.cohorts.seed, origin["Versions"]),
            notes=_notes(study, quality, answers),
        )
        log.info("open %s", study.output_dir / PAGE)


def _model_section(study: Study, model: str, cohort: Path) -> ModelSection:
    folder = study.model_folder(model)
    examples = synthetic_scans(cohort)[:_SHOWN]
    names = [ScanName.parse(path.name) for path in examples]
    samples = sorted((folder / "samples").glob("step-*.npy"), key=figures.step_of)
    return ModelSection(
        name=model,
        label=MODELS[model].title,
        training=read_json(folder / "config.json"),
        synthesis=ledger.cohort_record(study, model),
        examples=examples,
        dsegs=[scan_masks(cohort, name, "synthetic").get("dseg") for name in names],
        curves=_loss_curves(folder / "losses.tsv"),
        progress=figures.progress(samples),
    )


def _loss_curves(table: Path) -> str | None:
    rows = read_tsv(table) if table.is_file() else []
    if not rows:
        return None
    return charts.losses({name: np.array([float(row[name]) for row in rows]) for name in rows[0]})


# Pictures

Examples = tuple[str, Sequence[Path], Sequence[Path | None]]


def _examples(scans: Sequence[PreparedScan], models: Sequence[ModelSection]) -> list[Examples]:
    """For the real scans and each model with scans: the name, and the first scans with their dsegs."""
    real = list(_of_several_animals(scans))
    sets: list[Examples] = [("Real", [s.reference for s in real], [s.masks.get("dseg") for s in real])]
    sets += [(f"Synthetic, {model.label}", model.examples, model.dsegs) for model in models]
    return [(label, paths, dsegs) for label, paths, dsegs in sets if paths]


def _of_several_animals(scans: Sequence[PreparedScan]) -> Iterable[PreparedScan]:
    """A few scans, of different animals if possible."""
    by_animal = {scan.name.subject: scan for scan in reversed(scans)}
    first = list(reversed(by_animal.values()))
    return (first + [scan for scan in scans if scan not in first])[:_SHOWN]


def _galleries(examples: Sequence[Examples]) -> dict[str, list[tuple[str, str]]]:
    """Pictures of scans, and of scans with masks: for each set, its name and its picture."""
    return {
        "scans": [(label, figures.gallery(paths, dsegs, masks=False)) for label, paths, dsegs in examples],
        "masks": [
            (label, figures.gallery(paths, dsegs, masks=True))
            for label, paths, dsegs in examples
            if any(dsegs)
        ],
    }


def _scroll(examples: Sequence[Examples]) -> dict[str, Any]:
    """The data of the page's scrolling view of each set."""
    sets = [(label, scroll.strips(paths, dsegs)) for label, paths, dsegs in examples]
    return {"planes": list(figures.PLANES), "levels": scroll.LEVELS, "sets": sets}


# Texts

Answers = Mapping[str, Answer | None]


def _questions() -> dict[str, Question]:
    return {name: entry.load() for name, entry in QUESTIONS.items()}


def _headlines(models: Sequence[ModelSection], answers: Answers) -> list[tuple[str, list[Headline]]]:
    """For each model, one line per question; empty if no question was asked."""
    if not any(answers.values()):
        return []
    questions = _questions().values()
    return [
        (model.label, [line for question in questions for line in question.headlines(model.name, answers)])
        for model in models
    ]


def _sections(study: Study, models: Sequence[ModelSection], answers: Answers) -> list[Section]:
    """The sections of all questions with an answer, or without one in a step that others have answered."""
    labels = {model.name: model.label for model in models}
    asked = {QUESTIONS[name].step for name, answer in answers.items() if answer}
    sections = []
    for name, question in _questions().items():
        entry, answer = QUESTIONS[name], answers[name]
        if answer is None and entry.step in asked:
            answer = Answer({}, reason=f"Not computed for these scans: run --steps {entry.step} report.")
        if answer is not None:
            pictures = study.record_file(record_name(name)).with_suffix(".npz")
            view = question.view(answer, labels, pictures)
            sections.append(Section(name, entry.title, view, question.template))
    return sections


def _notes(study: Study, quality: QualityControl, answers: Answers) -> list[str]:
    """What a reader must know first."""
    scans, notes = study.training, []
    if not any(answers[name] for name, entry in QUESTIONS.items() if entry.step == EVALUATE):
        notes.append("These scans have not been evaluated: run --steps evaluate report.")
    if not any(scan.masks for scan in scans):
        notes.append("The real scans have no masks, so the synthetic scans have none and were not checked.")
    elif len(scans) < 20:
        notes.append(
            f"Only {len(scans)} training scans: a model trained on so few scans tends to repeat them."
        )
    if not study.held_out:
        notes.append(
            "No animal was held out: the metrics compare with the training scans, and a model that copies "
            "them scores best."
        )
    few = few_note(quality.n_training, quality.limits)
    return [*notes, *([few] if few else [])]


def _methods(
    study: Study, models: Sequence[ModelSection], answers: Answers, seed: int, versions: Mapping[str, str]
) -> str:
    """The methods section of a manuscript: data, models, masks, quality control, and the questions' methods."""
    n_scans, n_animals = len(study.training), len(set(animals_of(study.training)))
    size = "×".join([str(study.grid)] * 3)
    paragraphs = [
        f"Synthetic scans were made with bids-alphagan {versions['bids-alphagan']} after Ferreira et al. "
        f"[@paper], with PyTorch {versions['torch']} [@torch], from {count(n_scans, 'scan')} of "
        f"{count(n_animals, 'animal')} in BIDS format [@bids], as volumes of {size} voxels "
        f"with intensities from -1 to 1 (seed {seed})."
    ]
    citations = {f"{model.name} source": MODELS[model.name].citation for model in models}
    for model in models:
        paragraphs.append(load_model(model.name).methods(model.training, {"step": model.synthesis["step"]}))
    of_masks = [MaskFacts(**model.synthesis["masks"]) for model in models if model.synthesis.get("masks")]
    if of_masks:
        citations |= of_masks[-1].citations
        paragraphs += [masks_text(of_masks[-1]), _qc_methods(models)]
    for name, question in _questions().items():
        if answer := answers[name]:
            paragraphs.append(question.methods(answer, study))
    return compose([paragraph for paragraph in paragraphs if paragraph], citations)


def _qc_methods(models: Sequence[ModelSection]) -> str:
    kept = ", ".join(f"{m.n_accepted} of {m.n_accepted + m.n_rejected} by {m.label}" for m in models)
    widths = " and ".join(dict.fromkeys(f"{m.synthesis['gate_width']:g}" for m in models))
    return (
        "Synthetic scans were saved with the header and affine of a real scan. Where a measure "
        f"of its masks' quality lay more than {widths} robust standard deviations from the real scans' "
        f"median, a scan was discarded and drawn again; {kept} were kept."
    )
