"""Whether an earlier result is still valid. Only this module decides it.

| result | record | valid while |
|---|---|---|
| a fitted model | models/MODEL/config.json | model, settings, data are the same; it has enough iterations |
| a cohort | models/MODEL/synthesis.json | everything that determines a draw is the same; the cohort exists |
| an answer | models/QUESTION.json | the question's facts are the same |

Records identify their inputs by digests (`Study.digest`, `Study.contents`). The meaning of a record never changes: a
finished result is not computed again because of a new option, default or speedup.
"""

import csv
import logging
import re
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from bids_alphagan.bids.derivatives import SYNTHESIS_RECORD
from bids_alphagan.bids.prepared import PreparedScan, synthetic_scans
from bids_alphagan.bids.study import Study
from bids_alphagan.common.errors import ScanError, UserError
from bids_alphagan.common.files import digest, read_json, read_tsv, write_json
from bids_alphagan.common.process.lock import lock
from bids_alphagan.common.volume import read_reference
from bids_alphagan.evaluation import QUESTIONS, record_name
from bids_alphagan.evaluation.question import Answer, Question
from bids_alphagan.models import MODELS
from bids_alphagan.models.base import Model
from bids_alphagan.training.configuration import configuration, differences
from bids_alphagan.training.data import Volumes
from bids_alphagan.training.settings import TrainSettings

log = logging.getLogger(__name__)

_NUMBER = re.compile(r"-?(\d+|\d*\.\d+|\d+\.\d*)(e[-+]?\d+)?", re.IGNORECASE)
_TEXT = {"unit", "animal", "scan", "model", "arm"}  # columns of tables whose values stay text


# Any result


def cached(
    name: str,
    record_file: Path,
    inputs: Mapping[str, Any],
    outputs: Sequence[Path],
    work: Callable[[], dict[str, Any]],
) -> dict[str, Any]:
    """Do `work` unless it was done with the same `inputs` and its `outputs` still exist.

    name: of the result, for the log. Returns the result of `work`, new or stored; it is kept in `record_file` (JSON).
    """
    fingerprint = digest(inputs)
    former = _read(record_file)
    if former.get("fingerprint") == fingerprint and all(path.exists() for path in outputs):
        log.info("%s: nothing has changed, kept as it is", name)
        return dict(former["record"])
    record = work()  # its outputs replace the earlier ones only at its end
    write_json(record_file, {"fingerprint": fingerprint, "record": record})
    return record


def _read(record_file: Path) -> dict[str, Any]:
    """A record with its fingerprint; empty if there is none, or if it is damaged (with a warning)."""
    if not record_file.is_file():
        return {}
    try:
        content = read_json(record_file)
        if not isinstance(content["record"], dict):
            raise TypeError("its record is no JSON object")
        return {"fingerprint": content["fingerprint"], "record": content["record"]}
    except (OSError, ValueError, KeyError, TypeError) as error:
        _warn_of_damage(record_file, error)
        return {}


def _warn_of_damage(file: Path, error: Exception) -> None:
    log.warning("%s is damaged and not used (%s: %s)", file, type(error).__name__, error)


# Fitted models


def is_to_train(
    study: Study, name: str, model: Model, volumes: Volumes, settings: TrainSettings, resume: bool
) -> bool:
    """Whether training is left to do. A backup is made of an earlier run that cannot continue."""
    folder = study.model_folder(name)
    if not resume:
        if folder.is_dir():
            with lock(folder):  # raises UserError if another process trains there
                pass
        backup(folder)
    elif (folder / MODELS[name].parameters).is_file():
        now = configuration(volumes, model, settings)
        try:
            changed = differences(read_json(folder / "config.json"), now)
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            _warn_of_damage(folder / "config.json", error)
            return True  # a checkpoint records its run, too
        if changed:
            log.warning("%s is trained again because the run has changed: %s", name, "; ".join(changed))
            backup(folder)
        elif (done := _iterations(model, folder, settings)) >= settings.iterations:
            more = f" (it has {done} iterations)" if done > settings.iterations else ""
            log.info("%s: nothing has changed, kept as it is%s", name, more)
            return False
    return True


def _iterations(model: Model, folder: Path, settings: TrainSettings) -> int:
    """Number of iterations of the run in `folder`; 0 if its parameters are from another --use-checkpoint.

    A model with its own `fit` has no iterations and counts as finished.
    """
    info = model.load(folder).info
    if "step" not in info:
        return settings.iterations
    same = info.get("checkpoint", "last") == settings.use_checkpoint
    return int(info.get("trained", info["step"])) if same else 0


def backup(folder: Path) -> None:
    """Rename a folder, so that no trained model is ever lost."""
    if folder.is_dir() and any(folder.iterdir()):
        aside = folder.with_name(f"{folder.name}.{time.strftime('%Y%m%d-%H%M%S')}")
        folder.rename(aside)
        log.warning("a backup of the earlier run is in %s", aside)


# Cohorts


def origin(study: Study, model: str, seed: int) -> dict[str, Any]:
    """The origin of a cohort: digest of the model's parameters, names of real scans, seed."""
    parameters = study.model_folder(model) / MODELS[model].parameters
    return {
        "generator": study.digest(parameters) if parameters.is_file() else None,
        "scans": _names(study.training),
        "seed": seed,
    }


def cohort_record(study: Study, model: str) -> dict[str, Any]:
    """The record of a model's cohort; empty if there is none or if it is damaged."""
    file = study.model_folder(model) / SYNTHESIS_RECORD
    record: dict[str, Any] = _read(file).get("record", {})
    if record and not {"generator", "scans", "seed"} <= set(record):
        _warn_of_damage(file, KeyError("generator, scans, seed"))
        return {}
    return record


def cohorts(study: Study, models: Sequence[str], seed: int) -> dict[str, Path]:
    """The cohorts that match the current models, scans and seed, by model in the order of MODELS.

    They are determined once per run (`Study.cohorts`); outdated tables are then removed.

    Raises UserError if the cohort of one of `models` is missing, and if synthetic scans are damaged.
    """
    if study.cohorts is None:
        study.cohorts = find_cohorts(study, models, seed)
        check_synthetic(study.cohorts)
        remove_outdated(study)
    return study.cohorts


def find_cohorts(study: Study, models: Sequence[str], seed: int) -> dict[str, Path]:
    """Like `cohorts`, but changes nothing."""
    valid = {}
    for model in MODELS:
        folder = study.cohort_folder(model)
        record = cohort_record(study, model) if folder.is_dir() else {}
        now = origin(study, model, seed)
        changed = [key for key in now if record and record[key] != now[key]]
        if record and not changed:
            valid[model] = folder
            continue
        problem = f"were made with other {' and '.join(changed)}" if changed else "do not exist"
        if model in models:
            options = _former_options(record, now, study) if record else ""
            redo = f"--steps train synthesise --model {model}."
            remedy = f"{options}, or draw them again: {redo}" if options else f"Draw them first: {redo}"
            raise UserError(f"{folder}: synthetic scans of {model} {problem}. {remedy}")
        if changed:
            log.warning("%s is left out: its synthetic scans %s", model, problem)
    return valid


def _former_options(record: Mapping[str, Any], now: Mapping[str, Any], study: Study) -> str:
    """The options that make a cohort valid again, from its record; "" if there are none."""
    options = []
    if record["scans"] != now["scans"]:
        numbers = f"({len(record['scans'])} training scans, not {len(now['scans'])})"
        available = set(record["scans"]) <= set(_names(study.scans))
        labels = "" if available else "labels, --suffix, "
        options.append(f"the original {labels}--protocol and --held-out {numbers}")
    if record["seed"] != now["seed"]:
        options.append(f"--seed {record['seed']}")
    return f"Use {' and '.join(options)}" if options else ""


def _names(scans: Sequence[PreparedScan]) -> list[str]:
    """The names of scans, as in a cohort's record."""
    return [f"{scan.name.stem}_{scan.name.suffix}" for scan in scans]


def check_synthetic(cohorts: Mapping[str, Path]) -> None:
    """Raise UserError, naming all of them, if synthetic scans are damaged, before any is used.

    None is left out: a smaller cohort would contradict its sidecars and tables, and the same scans can be drawn again.
    """
    for model, folder in cohorts.items():
        damaged = []
        for path in synthetic_scans(folder):
            try:
                read_reference(path)
            except ScanError as error:
                damaged.append(str(error))
        if damaged:
            more = f" And {len(damaged) - 3} more." if len(damaged) > 3 else ""
            raise UserError(
                f"{len(damaged)} synthetic scan{'s' if len(damaged) > 1 else ''} of {model} cannot be used. "
                f"{' '.join(damaged[:3])}{more} To draw the same scans again, remove the folder {folder} and "
                "run --steps synthesise with the original options. If they are damaged again, "
                "retrain the model."
            )


# Answers


def facts(
    study: Study, cohorts: Mapping[str, Path], settings: Mapping[str, Any], seed: int
) -> dict[str, Any]:
    """Everything that answers may depend on (`Question.depends`)."""
    return {
        **study.contents(cohorts),
        "settings": dict(settings),
        "held out": [scan.name.stem for scan in study.held_out],
        "seed": seed,
        "preparation": [study.grid, study.intensity_percentile],
    }


def answered(
    study: Study, name: str, question: Question, work: Callable[[], Answer], dependencies: Mapping[str, Any]
) -> Answer:
    """The answer to a question: a stored one if its dependencies are the same, else that of `work`.

    dependencies: values by name, from which `question.depends` and `question.content` choose; "settings" are the values
    of `question.options`.
    """
    file = study.record_file(record_name(name))
    inputs = {key: dependencies[key] for key in question.depends}
    inputs |= {"settings": dependencies["settings"]} if question.options else {}
    content = {key: dependencies[key] for key in question.content}
    former = _answer_record(file)
    outputs = [file.with_suffix(".npz")] if former.get("pictures") else []
    if "tables" not in former:  # from a version that kept tables only as files
        outputs += [table for table in tables_of(study, question) if not table.stem.endswith("table2")]

    def make() -> dict[str, Any]:
        return {**content, **work().record()}

    if not former:  # damaged, perhaps
        file.unlink(missing_ok=True)
    return _answer(study, question, cached(name, file, inputs, outputs, make))


def forget_answer(study: Study, name: str) -> None:
    """Remove the stored answer, so that the next run computes it again."""
    study.record_file(record_name(name)).unlink(missing_ok=True)


def current_answers(study: Study, cohorts: Mapping[str, Path]) -> dict[str, Answer | None]:
    """The stored answers about the current scans and cohorts, by question; None if there is none."""
    now = study.contents(cohorts)
    answers: dict[str, Answer | None] = {}
    for name, entry in QUESTIONS.items():
        question = entry.load()
        record = _answer_record(study.record_file(record_name(name)))
        same = bool(record) and all(record.get(key) == now[key] for key in question.content)
        complete = "tables" in record or all(path.is_file() for path in tables_of(study, question)[:1])
        answers[name] = _answer(study, question, record) if same and complete else None
    return answers


def _answer_record(file: Path) -> dict[str, Any]:
    """The record of an answer; empty if there is none or if it is damaged, which is logged."""
    record: dict[str, Any] = _read(file).get("record", {})
    tables, notes = record.get("tables") or {}, record.get("notes", [])
    try:
        rows = [row for table in tables.values() for row in table]
        if not all(isinstance(part, dict) for part in (record.get("more", {}), *rows)):
            raise TypeError("its tables are no lists of rows")
        if not isinstance(notes, list) or not isinstance(record.get("reason"), str | None):
            raise TypeError("its notes are no texts")
    except (TypeError, AttributeError) as error:
        _warn_of_damage(file, error)
        return {}
    return record


def _answer(study: Study, question: Question, record: Mapping[str, Any]) -> Answer:
    """The answer in a record. Records of older versions lack tables, which are files, and "more"."""
    tables = record.get("tables")
    if tables is None:
        tables = {path.stem.removeprefix("group_"): _rows(path) for path in tables_of(study, question)}
    more = record.get("more", {key: value for key, value in record.items() if key != "notes"})
    notes = record.get("notes", [])
    return Answer(tables, list(notes), dict(more), {}, record.get("reason"))


def tables_of(study: Study, question: Question) -> list[Path]:
    """The paths of a question's tables, which may not exist."""
    return [study.output_dir / f"group_{table}.tsv" for table in question.columns()]


def _rows(table: Path) -> list[dict[str, Any]]:
    """The rows of a table that this app wrote: None for n/a, and numbers where possible."""
    try:
        rows = read_tsv(table) if table.is_file() else []
    except (OSError, ValueError, csv.Error) as error:
        raise UserError(f"{table}: cannot be read ({error}). Make it again: --steps evaluate.") from error
    return [{key: _value(key, text) for key, text in row.items()} for row in rows]


def _value(column: str, text: str) -> Any:
    if text == "n/a":
        return None
    if column in _TEXT or not _NUMBER.fullmatch(text):
        return text
    number = int(text) if text.lstrip("-").isdecimal() else float(text)
    return number if str(number) == text else text  # other spellings stay text


def remove_outdated(study: Study) -> None:
    """Remove tables of other scans or masks than the current ones, with a warning.

    Slow results are kept in models/, so a step restores its tables quickly if the earlier scans are used again.
    """
    now = study.contents(study.cohorts or {})
    removed: dict[str, list[str]] = {}
    for name, entry in QUESTIONS.items():
        question = entry.load()
        record = _read(study.record_file(record_name(name))).get("record", {})
        if all(record.get(key) == now[key] for key in question.content):
            continue
        for table in tables_of(study, question):
            if table.is_file():
                table.unlink()
                table.with_suffix(".json").unlink(missing_ok=True)
                removed.setdefault(entry.step, []).append(table.name)
    for step, names in removed.items():
        log.warning(
            "removed outdated tables of other scans: %s (--steps %s makes them again)",
            *(", ".join(names), step),
        )
