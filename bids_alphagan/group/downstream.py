"""Step downstream: do segmentation networks improve with the cohorts? Takes hours at full size."""

from dataclasses import dataclass
from typing import ClassVar

from bids_alphagan.evaluation import DOWNSTREAM
from bids_alphagan.group.evaluate import Evaluate


@dataclass(frozen=True)
class Downstream(Evaluate):
    """Like `Evaluate`, for the questions and options of this step."""

    name: ClassVar[str] = DOWNSTREAM
