"""The evaluation of synthetic scans: the registry QUESTIONS, one folder per question.

A new question is a folder (or file) with a class like `question.Question`, and an entry here; its tables, section,
methods text and headline follow. No heavy imports here.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from bids_alphagan.common.lazy import Lazy, loaded

if TYPE_CHECKING:
    from bids_alphagan.evaluation.question import Question

EVALUATE, DOWNSTREAM = "evaluate", "downstream"  # steps of the group level
PROTOCOLS = ("held-out", "paper")


@dataclass(frozen=True)
class Entry:
    """The facts about a question that are needed without its code.

    title: of its section. code: the class of the question, or its name. step: the step that answers it.
    record: the file in models/ that stores its answer; NAME.json by default.
    """

    title: str
    code: Lazy | Callable[[], "Question"]
    step: str = EVALUATE
    record: str = ""

    def load(self) -> "Question":
        """An instance of the question."""
        question: Question = loaded(self.code)()
        return question


QUESTIONS: dict[str, Entry] = {
    "pairs": Entry("Metrics", Lazy("bids_alphagan.evaluation.pairs.table:Pairs"), record="evaluation.json"),
    "distribution": Entry("Distribution", Lazy("bids_alphagan.evaluation.distribution.table:Distribution")),
    "anatomy": Entry("Anatomy", Lazy("bids_alphagan.evaluation.anatomy.table:Anatomy")),
    "memorisation": Entry("Memorisation", Lazy("bids_alphagan.evaluation.memorisation.table:Copies")),
    "downstream": Entry(
        "Does it help?", Lazy("bids_alphagan.evaluation.downstream.table:Gain"), step=DOWNSTREAM
    ),
}


def record_name(name: str) -> str:
    """The file in models/ that stores the answer to a question."""
    return QUESTIONS[name].record or f"{name}.json"
