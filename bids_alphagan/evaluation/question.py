"""The interface of questions, and answers: tables, notes, pictures; report section, methods text, headline."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from bids_alphagan.bids.study import Study
from bids_alphagan.evaluation.scans import Scans
from bids_alphagan.report.html import TABLES

Columns = Mapping[str, Mapping[str, Any]]  # name -> description, as in a BIDS sidecar
Rows = list[dict[str, Any]]
GOOD, BAD, OPEN, UNASKED = "✓", "✗", "?", "–"
_TONES = {GOOD: "ok", BAD: "failed", OPEN: "warned", UNASKED: "soft"}
CHANCE = 0.05


@dataclass(frozen=True)
class Answer:
    """The answer to a question, for all cohorts.

    tables: rows by table, group_<name>.tsv. notes: limitations of the numbers, as text. more: further JSON for the
    report. pictures: arrays for it, by name. reason: why there is no answer, else None.
    """

    tables: dict[str, Rows]
    notes: list[str] = field(default_factory=list)
    more: dict[str, Any] = field(default_factory=dict)
    pictures: Mapping[str, np.ndarray] = field(default_factory=dict)
    reason: str | None = None

    def record(self) -> dict[str, Any]:
        """As JSON, without the pictures."""
        record = {"tables": self.tables, "notes": self.notes, "more": self.more, "reason": self.reason}
        return record | {"pictures": bool(self.pictures)}


class Headline(NamedTuple):
    """An answer in one line. mark: GOOD, BAD, OPEN or UNASKED. section: the id of the section with its numbers."""

    question: str
    mark: str
    text: str
    section: str | None

    @property
    def tone(self) -> str:
        return _TONES[self.mark]


def unasked(question: str, step: str) -> Headline:
    """The headline of a question without an answer for these scans."""
    return Headline(question, UNASKED, f"Not asked: run --steps {step} report.", None)


class Question(ABC):
    """A question about synthetic cohorts.

    version: to be changed when the same scans would give another answer. depends: names of facts; the answer is
    computed again if one of them changes. Facts are the digests "compared", "masks" and "content" (`Study.contents`),
    "held out", "seed", "preparation", "version", and those of the method `facts`. content: those of them that identify
    the files of an answer; a report shows it as long as they are the same. options: names of options (of the
    question's step); the answer is computed again if one of them changes, and it gets these and no others, so that a
    further option of the step leaves finished answers valid. optional: whether a failure leaves the question out, with
    the reason, instead of ending the run.
    """

    version = 1
    depends: tuple[str, ...] = ("compared", "masks", "held out", "seed", "preparation", "version")
    content: tuple[str, ...] = ("compared", "masks")
    options: tuple[str, ...] = ()
    template = TABLES
    optional = True

    @abstractmethod
    def columns(self) -> Mapping[str, Columns]:
        """The columns of each table group_<name>.tsv that the answer may have."""

    @abstractmethod
    def answer(self, scans: Scans, settings: Mapping[str, Any]) -> Answer:
        """Compute the answer. settings: the values of `options`. Raises UserError if it is impossible."""

    def check(self, study: Study, settings: Mapping[str, Any]) -> None:
        """Raise UserError if the real scans or the options allow no answer. Called before anything is trained."""

    def facts(self, scans: Scans) -> dict[str, Any]:
        """Facts for `depends` beside `group.ledger.facts`. Raises UserError if these scans allow no answer."""
        return {}

    def publish(self, scans: Scans, answer: Answer) -> None:
        """Write results other than tables, such as sidecars of synthetic scans."""

    def view(self, answer: Answer, labels: Mapping[str, str], pictures: Path) -> Mapping[str, Any]:
        """The data for the section's template. labels: the models' printed names; pictures: an .npz file."""
        return {"notes": answer.notes, "reason": answer.reason, "tables": answer.tables}

    def methods(self, answer: Answer, study: Study) -> str:
        """A paragraph for a manuscript, with citations as in `report.methods.compose`; "" for none."""
        return ""

    def headlines(self, model: str, answers: Mapping[str, Answer | None]) -> list[Headline]:
        """The answers for a model in one line each; answers: of all questions, None if not answered."""
        return []


def number(value: float) -> float | None:
    """The value for JSON and tables: None if it is undefined."""
    return float(value) if np.isfinite(value) else None


def row_of(rows: Sequence[Mapping[str, Any]], model: str) -> Mapping[str, Any] | None:
    """The row of a model, or None."""
    return next((row for row in rows if row["model"] == model), None)


AGAINST: Mapping[str, Any] = {
    "Description": "The real scans that the synthetic ones are compared with.",
    "Levels": {
        "held-out": "Animals that no model was trained on.",
        "training": "The training scans: a model that copies them scores best.",
    },
}
