"""What a question is, and its answer: tables, notes, pictures; a section of the report, methods text, headline."""

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

    tables: rows by table, group_<name>.tsv. notes: what limits the numbers, in plain words. more: what else the
    report shows, as JSON. pictures: arrays for it, by name. reason: why there is no answer, else None.
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
    """For a question that was not asked of these scans."""
    return Headline(question, UNASKED, f"Not asked: run --steps {step} report.", None)


class Question(ABC):
    """A question about synthetic cohorts.

    version: changes where the same scans would give another answer. depends: names in `facts`, the answer is
    computed again when one of them changes. content: those of them that say which files the answer is of; a
    report shows it as long as they are the same. optional: whether a failure leaves the question out, with the
    reason, instead of ending the run.
    """

    version = 1
    depends: tuple[str, ...] = ("compared", "masks", "held out", "seed", "preparation", "version")
    content: tuple[str, ...] = ("compared", "masks")
    template = TABLES
    optional = True

    @abstractmethod
    def columns(self) -> Mapping[str, Columns]:
        """The columns of each table group_<name>.tsv that the answer may have."""

    @abstractmethod
    def answer(self, scans: Scans, settings: Mapping[str, Any]) -> Answer:
        """Compute it. settings: the options of the question's step. UserError where these scans allow none."""

    def check(self, study: Study, settings: Mapping[str, Any]) -> None:
        """UserError where the real scans or the options allow no answer; before anything is trained."""

    def facts(self, scans: Scans, settings: Mapping[str, Any]) -> dict[str, Any]:
        """What `depends` may name beside `group.ledger.facts`. UserError where these scans allow no answer."""
        return {}

    def publish(self, scans: Scans, answer: Answer) -> None:
        """Write more than tables, such as sidecars of synthetic scans."""

    def view(self, answer: Answer, labels: Mapping[str, str], pictures: Path) -> Mapping[str, Any]:
        """What the section's template shows; labels: the models' names in print; pictures: an .npz file."""
        return {"notes": answer.notes, "reason": answer.reason, "tables": answer.tables}

    def methods(self, answer: Answer, study: Study) -> str:
        """A paragraph for a manuscript, citing as `report.methods.compose` says; "" for none."""
        return ""

    def headlines(self, model: str, answers: Mapping[str, Answer | None]) -> list[Headline]:
        """The answers in one line for a model; answers: of all questions, None where one was not asked."""
        return []


def number(value: float) -> float | None:
    """As JSON and tables want it: None where it is undefined."""
    return float(value) if np.isfinite(value) else None


def row_of(rows: Sequence[Mapping[str, Any]], model: str) -> Mapping[str, Any] | None:
    """The row of a model; None where there is none."""
    return next((row for row in rows if row["model"] == model), None)


AGAINST: Mapping[str, Any] = {
    "Description": "The real scans that the synthetic ones are compared with.",
    "Levels": {
        "held-out": "Animals that no model has seen.",
        "training": "The scans that the models learned from: a model that copies them passes best.",
    },
}
