"""Do synthetic scans help? The experiment for each cohort, and its tables, one of them in the paper's layout."""

import logging
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from bids_alphagan.bids.names import TISSUES, ScanName
from bids_alphagan.bids.prepared import PreparedScan, scan_masks
from bids_alphagan.bids.prepared import synthetic_scans as scans_of_cohort
from bids_alphagan.bids.split import animals_of
from bids_alphagan.bids.study import Study
from bids_alphagan.common.errors import UserError
from bids_alphagan.common.files import read_json
from bids_alphagan.evaluation.downstream import section
from bids_alphagan.evaluation.downstream.arms import PAPER_TESTS, Arm, check_split, read_arm
from bids_alphagan.evaluation.downstream.experiment import Result, run
from bids_alphagan.evaluation.downstream.measures import GLOBAL
from bids_alphagan.evaluation.downstream.network import Settings
from bids_alphagan.evaluation.downstream.scans import real_scans, synthetic_scans
from bids_alphagan.evaluation.downstream.summary import (
    hardly_learned,
    headline,
    scan_columns,
    summary_columns,
)
from bids_alphagan.evaluation.question import Answer, Columns, Headline, Question
from bids_alphagan.evaluation.scans import Scans
from bids_alphagan.models import MODELS
from bids_alphagan.training.cache import prepared_volumes

log = logging.getLogger(__name__)

_MODEL = {
    "model": {"Description": "The model that drew the synthetic scans; n/a for training sets without any."}
}


class Gain(Question):
    """Does a segmentation network gain from synthetic scans?

    The results of finished networks are kept in models/downstream, from where a stopped run resumes.
    """

    depends = ("content", "held out", "trained on", "grid", "intensity percentile", "seed")
    content = ("content",)
    options = (
        "downstream_arms",
        "downstream_steps",
        "downstream_seeds",
        "downstream_batch_size",
        "downstream_channels",
        "downstream_residual_units",
        "downstream_learning_rate",
    )
    template = "evaluation/downstream/section.html.j2"
    optional = False

    def columns(self) -> Mapping[str, Columns]:
        return {
            "downstream": _MODEL | summary_columns(),
            "downstream_scans": _MODEL | scan_columns(),
            "table4": paper_columns(),
        }

    def check(self, study: Study, settings: Mapping[str, Any]) -> None:
        settings_of(settings)
        if not any("dseg" in scan.masks for scan in study.scans):
            raise UserError(
                "downstream: no real scan has tissue masks, which the networks need. Make them first: run "
                "participant with --segmenter ants or spm."
            )
        if not study.held_out:
            raise UserError(
                "downstream: no animal is held out to test on. Give --held-out a share above 0, leave out "
                "--protocol paper, and have at least 4 animals; then --steps train synthesise downstream."
            )
        check_split(with_masks(study.scans), with_masks(study.held_out), ())

    def facts(self, scans: Scans) -> dict[str, Any]:
        trained_on = {model: animals_of(seen(scans.study, model)) for model in scans.cohorts}
        for model, folder in scans.cohorts.items():
            check_masks(model, folder)
        grid = {"grid": scans.study.grid, "intensity percentile": scans.study.intensity_percentile}
        return {"trained on": trained_on, **grid}

    def answer(self, scans: Scans, settings: Mapping[str, Any]) -> Answer:
        study, options = scans.study, settings_of(settings)
        held_out = with_masks(study.held_out)
        real = real_scans(study.scans, scans.box)
        results, models = {}, {}
        for model, folder in scans.cohorts.items():
            log.info("downstream: with the synthetic scans of %s", model)
            synthetic = synthetic_scans(folder, scans.box, study.grid, study.intensity_percentile)
            trained_on, jobs = animals_of(seen(study, model)), study.record_file("downstream")
            result = run(real, synthetic, held_out, trained_on, options, jobs, scans.seed, scans.device)
            leading = headline([read_arm(name) for name in result.record["settings"]["arms"]]).name
            keys = {"arm": leading, "compared_with": "r1", "tissue": GLOBAL, "measure": "dice"}
            first = next(row for row in result.sentences if keys.items() <= row.items())
            log.info("%s: %s", model, first["text"])
            limits = hardly_learned(result.summary, options.steps)
            models[model] = {
                **result.record,
                "headline": first,
                "sentences": result.sentences,
                "notes": limits,
            }
            results[model] = result
        # real scans alone are the same for all models, so their notes are listed once
        notes = list(dict.fromkeys(note for record in models.values() for note in record["notes"]))
        return Answer(tables_of(results), notes, {"models": models})

    def view(self, answer: Answer, labels: Mapping[str, str], pictures: Path) -> Mapping[str, Any]:
        shown = {"notes": answer.notes, "reason": answer.reason}
        return shown if answer.reason else shown | section.view(self._section(answer, labels))

    def methods(self, answer: Answer, study: Study) -> str:
        return "" if answer.reason else section.methods(self._section(answer, {}))

    def headlines(self, model: str, answers: Mapping[str, Answer | None]) -> list[Headline]:
        own = answers["downstream"]
        return [section.headline(model, None if own is None or own.reason else self._section(own, {}))]

    def _section(self, answer: Answer, labels: Mapping[str, str]) -> section.DownstreamSection:
        return section.section_of(answer, labels, self.columns()["downstream"])


def settings_of(options: Mapping[str, Any]) -> Settings:
    """The experiment's settings from the options of the step (downstream_...)."""
    return Settings(
        arms=tuple(dict.fromkeys([Arm(1), *map(read_arm, options["downstream_arms"])])),
        steps=options["downstream_steps"],
        seeds=options["downstream_seeds"],
        batch_size=options["downstream_batch_size"],
        channels=tuple(options["downstream_channels"]),
        residual_units=options["downstream_residual_units"],
        learning_rate=options["downstream_learning_rate"],
    )


def with_masks(scans: Sequence[PreparedScan]) -> set[str]:
    """The animals of the scans that have labels."""
    return set(animals_of([scan for scan in scans if "dseg" in scan.masks]))


def seen(study: Study, model: str) -> list[PreparedScan]:
    """The scans that a model was fitted to: those whose content its training record names.

    Raises UserError unless they are all scans or the current training scans; otherwise it may have seen any scan.
    """
    path = study.model_folder(model) / "config.json"
    retrain = f"retrain it: --steps train synthesise downstream --model {model}."
    try:
        sha256 = read_json(path)["data"]["sha256"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(
            f"{path}: does not say on which scans {model} was trained ({error}). To be sure, {retrain}"
        ) from error
    for scans in (study.training, study.scans):
        if prepared_volumes(scans, study.work_dir / "scans", MODELS[model].channels).sha256 == sha256:
            return scans
    raise UserError(
        f"{path}: {model} was trained on other scans than the current training scans. They may include "
        "held-out animals, and a test on these would prove nothing. Use the original labels and --held-out, "
        f"or {retrain}"
    )


def check_masks(model: str, cohort: Path) -> None:
    """Raise UserError if none of a cohort's scans has labels."""
    scans = scans_of_cohort(cohort)
    if not any("dseg" in scan_masks(cohort, ScanName.parse(path.name), "synthetic") for path in scans):
        raise UserError(
            f"{cohort}: the {len(scans)} synthetic scans of {model} have no tissue masks, which the "
            f"networks need. Make them: --steps synthesise downstream --segmenter ants --model {model}."
        )


def tables_of(results: Mapping[str, Result]) -> dict[str, list[dict[str, Any]]]:
    """The gains, every scan's numbers, and the paper's table.

    results: by model, all with the same real scans and settings. Arms without synthetic scans appear once.
    """
    summary = joined((model, result.summary) for model, result in results.items())
    scans = joined((model, result.rows) for model, result in results.items())
    return {"downstream": summary, "downstream_scans": scans, "table4": paper_rows(summary, results)}


def joined(tables: Iterable[tuple[str, Sequence[Mapping[str, Any]]]]) -> list[dict[str, Any]]:
    """Rows of all models with a first column `model`, None for arms without synthetic scans."""
    rows, first = [], True
    for model, table in tables:
        for row in table:
            synthetic = read_arm(row["arm"]).synthetic
            if synthetic or first:
                rows.append({"model": model if synthetic else None, **row})
        first = False
    return rows


def paper_rows(summary: Sequence[Mapping[str, Any]], results: Mapping[str, Result]) -> list[dict[str, Any]]:
    """Table 4 of Ferreira et al. 2022 (doi 10.3390/app12104844): mean Dice of each training set.

    summary: of `joined`. Four decimals, as in the paper.
    """
    tests = {arm.name: number for number, arm in enumerate(PAPER_TESTS, start=1)}
    sizes = {model: result.record["sizes"] for model, result in results.items()}
    lines: dict[tuple[str | None, str], dict[str, Any]] = {}
    for row in summary:
        if row["measure"] == "dice":
            n = sizes[row["model"] or next(iter(sizes))][row["arm"]]
            line = lines.setdefault(
                (row["model"], row["arm"]),
                {
                    "test": tests.get(row["arm"]),
                    "model": row["model"],
                    "training_set": training_set(row["arm"], *n),
                    **dict.fromkeys((GLOBAL, *TISSUES)),
                    "n_animals": row["n_animals"],
                    "n_seeds": row["n_seeds"],
                },
            )
            line[row["tissue"]] = f"{row['mean']:.4f}"
    return list(lines.values())


def training_set(arm: str, n_real: int, n_synthetic: int) -> str:
    """An arm by its numbers of scans, as in the paper: r174 + s87."""
    parts = [f"{letter}{n}" for letter, n in (("r", n_real), ("s", n_synthetic)) if n]
    return " + ".join(parts) + (", augmented" if read_arm(arm).augment else "")


def paper_columns() -> dict[str, Any]:
    """Describe the columns of `paper_rows`, in the form of a BIDS sidecar."""
    dice = "Mean Dice over held-out real animals (seeds and scans averaged within each)"
    return {
        "test": {"Description": "Number of the test in table 4 of doi:10.3390/app12104844; n/a: not in it."},
        **_MODEL,
        "training_set": {
            "Description": "Numbers of real (r) and synthetic (s) scans; means over seeds if they differ."
        },
        GLOBAL: {"Description": f"{dice}, of all three tissues, weighted by their voxels."},
        **{tissue: {"Description": f"{dice}, of {tissue}."} for tissue in TISSUES},
        "n_animals": {"Description": "Number of held-out animals."},
        "n_seeds": {"Description": "Number of trainings, averaged."},
    }
