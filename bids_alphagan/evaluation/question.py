"""What a statistic is and gives: rows of tables, notes, and more for the report."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from bids_alphagan.evaluation.scans import Scans

Columns = Mapping[str, Mapping[str, Any]]  # name -> description, as in a BIDS sidecar


@dataclass(frozen=True)
class Finding:
    """What was found.

    tables: rows by table, as `Statistic.tables`. notes: what limits the numbers, in plain words.
    more: what else the report draws, as JSON. pictures: arrays for it, by name.
    """

    tables: dict[str, list[dict[str, Any]]]
    notes: list[str] = field(default_factory=list)
    more: dict[str, Any] = field(default_factory=dict)
    pictures: dict[str, np.ndarray] = field(default_factory=dict)


@dataclass(frozen=True)
class Statistic:
    """A statistic of cohorts.

    find: computes it. version: changes where the same scans would give other numbers. tables: the columns of
    each table group_<name>.tsv.
    """

    find: Callable[[Scans], Finding]
    version: int
    tables: Mapping[str, Columns]


def number(value: float) -> float | None:
    """As JSON and tables want it: None where it is undefined."""
    return float(value) if np.isfinite(value) else None


AGAINST: Mapping[str, Any] = {
    "Description": "The real scans that the synthetic ones are compared with.",
    "Levels": {
        "held-out": "Animals that no model has seen.",
        "training": "The scans that the models learned from: a model that copies them passes best.",
    },
}
