"""Step evaluate: answer the questions about the cohorts and write their tables."""

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np

from bids_alphagan.bids.study import Study
from bids_alphagan.common.errors import UserError
from bids_alphagan.common.files import atomic_write, write_json, write_tsv
from bids_alphagan.config import Config
from bids_alphagan.evaluation import EVALUATE, QUESTIONS, record_name
from bids_alphagan.evaluation.question import Answer, Question
from bids_alphagan.evaluation.scans import Scans
from bids_alphagan.group import ledger
from bids_alphagan.group.step import Cohorts, Step
from bids_alphagan.training.device import choose_device

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Evaluate(Step):
    """settings: the options that change answers, by name."""

    name: ClassVar[str] = EVALUATE
    settings: Mapping[str, Any]
    cohorts: Cohorts
    device: str

    @classmethod
    def with_options(cls, config: Config) -> Self:
        cohorts = Cohorts.of(config.model, config.seed, config.steps)
        return cls(config.settings(cls.name), cohorts, choose_device(config.device))

    def check(self, study: Study) -> None:
        for entry in QUESTIONS.values():
            if entry.step == self.name:
                question = entry.load()
                question.check(study, chosen(question, self.settings))
        if self.cohorts.first:
            ledger.find_cohorts(study, self.cohorts.models, self.cohorts.seed)

    def run(self, study: Study) -> None:
        cohorts = ledger.cohorts(study, self.cohorts.models, self.cohorts.seed)
        scans = Scans(study, cohorts, self.cohorts.seed, self.device)
        for name, entry in QUESTIONS.items():
            if entry.step == self.name:
                question = entry.load()
                ask(name, question, scans, chosen(question, self.settings))


def chosen(question: Question, settings: Mapping[str, Any]) -> dict[str, Any]:
    """The values of the question's options."""
    return {name: settings[name] for name in question.options}


def ask(name: str, question: Question, scans: Scans, settings: Mapping[str, Any]) -> Answer:
    """Answer a question, or reuse the answer of an earlier run; write its tables.

    An optional question that fails, or that these scans do not allow, is left out with its reason; the others go on.
    """
    study = scans.study

    def work() -> Answer:
        try:
            answer = question.answer(scans, settings)
        except UserError as error:  # e.g. too few scans; the result would be the same next time
            if not question.optional:
                raise
            return Answer({}, reason=str(error))
        if answer.pictures:
            file = study.record_file(record_name(name)).with_suffix(".npz")
            with atomic_write(file) as path, path.open("wb") as stream:
                np.savez_compressed(stream, allow_pickle=False, **answer.pictures)
        return answer

    facts = ledger.facts(study, scans.cohorts, settings, scans.seed) | {"version": question.version}
    try:
        facts |= question.facts(scans)
        answer = ledger.answered(study, name, question, work, facts)
    except Exception as error:  # a bug, or lack of memory; the other questions go on
        if not question.optional:
            raise
        reason = str(error)
        if not isinstance(error, UserError):
            log.exception("%s failed and is left out", name)
            reason = f"{type(error).__name__}: {reason}"
        ledger.forget_answer(study, name)
        answer = Answer({}, reason=reason)
    for note in [*answer.notes, *([answer.reason] if answer.reason else [])]:
        log.warning("%s: %s", name, note)
    write_tables(study.output_dir, question, answer)
    question.publish(scans, answer)
    return answer


def write_tables(output_dir: Path, question: Question, answer: Answer) -> None:
    """Write group_*.tsv and .json. Tables that the answer lacks are removed, because they are outdated."""
    for table, columns in question.columns().items():
        path = output_dir / f"group_{table}.tsv"
        if answer.tables.get(table):
            write_tsv(path, answer.tables[table], list(columns))
            write_json(path.with_suffix(".json"), columns)
        else:
            path.unlink(missing_ok=True)
            path.with_suffix(".json").unlink(missing_ok=True)
