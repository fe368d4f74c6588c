"""Limits of quality control: the range of each measure that the real scans allow, and which scans fail.

The paper discarded by hand the scans that SPM failed on. Here a scan passes if every measure is within limits that
come from the real scans by robust statistics, or from the user.
"""

import json
import math
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from bids_alphagan.common.errors import UserError
from bids_alphagan.qc.measures import MEASURES

FEW = 8  # training scans; fewer are too few to estimate the spread
Bounds = tuple[float | None, float | None]
_LEAST, _MOST = 1e-9, 300.0  # of a size, and of its logarithm: outside all real values, and still finite
_ORIGINS = {
    "spread": "the real scans' spread",
    "floor": "the least spread that is assumed",
    "user": "--qc-limits",
}


@dataclass(frozen=True)
class Limit:
    """Lowest and highest acceptable value of the measure `name` (None: no limit), and their origin.

    median: of the real scans. sd: their robust standard deviation, or the floor if that is larger; never 0.
    For a size (`Measure.relative`) sd is that of the logarithm. origin: 'spread', 'floor' (the larger of the
    two) or 'user'.
    """

    name: str
    low: float | None
    high: float | None
    median: float
    sd: float
    origin: str

    @property
    def bounds(self) -> Bounds:
        return self.low, self.high

    def deviation(self, value: float) -> float:
        """Distance of a value from the real scans' median, in robust standard deviations."""
        return (_scaled(self.name, value) - _scaled(self.name, self.median)) / self.sd

    def beyond(self, value: float) -> float:
        """How far a value is outside the limits, in robust standard deviations; 0 inside, inf for NaN."""
        if not math.isfinite(value):
            return math.inf
        at = self.deviation(value)
        below = self.deviation(self.low) - at if self.low is not None else 0.0
        above = at - self.deviation(self.high) if self.high is not None else 0.0
        return max(below, above, 0.0)

    def record(self) -> dict[str, Any]:
        """As JSON, for sidecars and records."""
        return {
            "Low": self.low,
            "High": self.high,
            "RealMedian": self.median,
            "RealSD": self.sd,
            "From": _ORIGINS[self.origin],
        }


Limits = dict[str, Limit]


def thresholds(
    real: Iterable[Mapping[str, float]], width: float, own: Mapping[str, Bounds] | None = None
) -> Limits:
    """The limit of each measure, from the real scans' measures; empty without real scans.

    median +- width * max(1.4826 * MAD, floor), on the sides that MEASURES calls bad, with its floors; for sizes, of the
    logarithm. `own` replaces the limits of single measures. A measure that no real scan has, as in outputs of older
    versions, has no limit.
    """
    rows = list(real)
    limits: Limits = {}
    for name, what in MEASURES.items():
        values = np.array([row[name] for row in rows if name in row and math.isfinite(row[name])])
        if not len(values):
            continue
        scaled = np.array([_scaled(name, value) for value in values])
        middle = float(np.median(scaled))
        spread = 1.4826 * float(np.median(np.abs(scaled - middle)))
        sd = max(spread, what.floor)
        low = _unscaled(name, middle - width * sd) if what.bad != "high" else None
        high = _unscaled(name, middle + width * sd) if what.bad != "low" else None
        origin = "spread" if sd == spread else "floor"
        if own and name in own:
            (low, high), origin = own[name], "user"
        limits[name] = Limit(name, low, high, _unscaled(name, middle), sd, origin)
    return limits


def _scaled(name: str, value: float) -> float:
    return math.log(max(value, _LEAST)) if MEASURES[name].relative else value


def _unscaled(name: str, value: float) -> float:
    return math.exp(min(value, _MOST)) if MEASURES[name].relative else value


def failures(measures: Mapping[str, float], limits: Mapping[str, Limit]) -> list[str]:
    """Names of the measures outside their limits, worst first; empty if the scan passes."""
    far = {name: limit.beyond(measures[name]) for name, limit in limits.items() if name in measures}
    return sorted((name for name in far if far[name] > 0), key=lambda name: -far[name])


def reasons(measures: Mapping[str, float], limits: Mapping[str, Limit]) -> list[str]:
    """Why a scan fails, as text, worst first; empty if it passes."""
    return [_reason(name, measures[name], limits[name]) for name in failures(measures, limits)]


def _reason(name: str, value: float, limit: Limit) -> str:
    what = MEASURES[name]
    unit = f" {what.unit}" if what.unit else ""
    by = "by --qc-limits" if limit.origin == "user" else "in real scans"
    if not math.isfinite(value):
        return f"{what.description} is not a number"
    if limit.low is not None and value < limit.low:
        return f"{what.description} is low: {value:.3g}{unit}, at least {limit.low:.3g} {by}"
    return f"{what.description} is high: {value:.3g}{unit}, at most {limit.high:.3g} {by}"


def kind(reason: str) -> str:
    """A reason without its numbers, for counting."""
    return reason.partition(":")[0]


def read_limits(path: Path) -> dict[str, Bounds]:
    """Read limits that replace those of the real scans: JSON or TOML, measure -> [low, high].

    null, -inf or inf in a pair means no limit on that side; null instead of a pair means no limit at all.

    Raises
    ------
    UserError: unreadable; an unknown measure (the known ones are listed); anything but two numbers in order.
    """
    try:
        text = path.read_text(encoding="utf-8")
        content = tomllib.loads(text) if path.suffix.lower() == ".toml" else json.loads(text)
    except (OSError, ValueError) as error:
        raise UserError(f"--qc-limits {path}: cannot be read as JSON or TOML ({error}).") from error
    if not isinstance(content, dict):
        raise UserError(
            f'--qc-limits {path}: must hold measures and their limits, such as {{"entropy": [0, 1]}}.'
        )
    for name in content:
        if name not in MEASURES:
            raise UserError(
                f"--qc-limits {path}: unknown measure '{name}'. Known measures: {', '.join(MEASURES)}."
            )
    return {name: _bounds(path, name, value) for name, value in content.items()}


def _bounds(path: Path, name: str, value: Any) -> Bounds:
    pair = [None, None] if value is None else value
    if isinstance(pair, list) and len(pair) == 2 and all(_is_bound(bound) for bound in pair):
        low, high = (None if bound is None or math.isinf(bound) else float(bound) for bound in pair)
        if low is None or high is None or low <= high:
            return low, high
    raise UserError(
        f"--qc-limits {path}: '{name}' must be [low, high], two numbers in order, either of them null, or "
        f"null for no limit; not {value!r}."
    )


def _is_bound(value: Any) -> bool:
    number = isinstance(value, int | float) and not isinstance(value, bool)
    return value is None or (number and not math.isnan(value))


def few_note(n: int, limits: Mapping[str, Limit]) -> str | None:
    """A warning if the limits come from `n` scans, too few to estimate their spread; else None."""
    if not limits or n >= FEW:
        return None
    on_floors = sum(limit.origin == "floor" for limit in limits.values())
    return (
        f"The limits of quality control come from only {n} training scan{'' if n == 1 else 's'}, too few to "
        f"estimate their spread: {on_floors} of {len(limits)} use the smallest spread that is assumed for any "
        "data set. Check them, and replace those that do not fit with --qc-limits."
    )
