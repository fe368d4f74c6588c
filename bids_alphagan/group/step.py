"""The interface of a step of the group level, and options that steps share."""

from pathlib import Path
from typing import ClassVar, NamedTuple, Protocol, Self

from bids_alphagan.bids.study import Study
from bids_alphagan.config import Config


class Step(Protocol):
    """name: its value in --steps."""

    name: ClassVar[str]

    @classmethod
    def with_options(cls, config: Config) -> Self:
        """The step with its options; it uses no others."""
        ...

    def check(self, study: Study) -> None:
        """Raise UserError if the step cannot be done. Writes nothing."""
        ...

    def run(self, study: Study) -> None:
        """Do the step, unless the ledger finds its results valid."""
        ...


class Cohorts(NamedTuple):
    """The cohorts that a step needs. models: whose cohorts must exist. seed: of their draws.

    first: whether no earlier step draws them, so that they must exist already.
    """

    models: tuple[str, ...]
    seed: int
    first: bool

    @classmethod
    def of(cls, models: list[str], seed: int, steps: list[str]) -> "Cohorts":
        """From the options of these names."""
        return cls(tuple(models), seed, not {"train", "synthesise"} & set(steps))


class Quality(NamedTuple):
    """Options of quality control: the limits' width in robust standard deviations, and a file of limits."""

    width: float
    limits_file: Path | None
