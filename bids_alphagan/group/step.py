"""What a step of the group level is, and what its steps share."""

from pathlib import Path
from typing import ClassVar, NamedTuple, Protocol, Self

from bids_alphagan.bids.study import Study
from bids_alphagan.config import Config


class Step(Protocol):
    """name: as --steps knows it."""

    name: ClassVar[str]

    @classmethod
    def with_options(cls, config: Config) -> Self:
        """The step with its options; a step sees no others."""
        ...

    def check(self, study: Study) -> None:
        """UserError where the step cannot be done; nothing is written."""
        ...

    def run(self, study: Study) -> None:
        """Do the step, as far as the ledger finds work."""
        ...


class Cohorts(NamedTuple):
    """Which cohorts a step needs. models: asked for. seed: of their draws.

    first: whether no step before it draws them, so that they must be there already.
    """

    models: tuple[str, ...]
    seed: int
    first: bool

    @classmethod
    def of(cls, models: list[str], seed: int, steps: list[str]) -> "Cohorts":
        """From the options of these names."""
        return cls(tuple(models), seed, not {"train", "synthesise"} & set(steps))


class Quality(NamedTuple):
    """Options of quality control: the limits' width in robust standard deviations, and a file of own limits."""

    width: float
    limits_file: Path | None
