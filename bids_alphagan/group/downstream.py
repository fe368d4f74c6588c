"""Step downstream: do segmentation networks gain from the cohorts? It takes hours at full size."""

from dataclasses import dataclass
from typing import ClassVar

from bids_alphagan.evaluation import DOWNSTREAM
from bids_alphagan.group.evaluate import Evaluate


@dataclass(frozen=True)
class Downstream(Evaluate):
    """As `Evaluate`, with the questions of this step and its options."""

    name: ClassVar[str] = DOWNSTREAM
