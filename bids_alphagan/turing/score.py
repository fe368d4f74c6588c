"""From answers and key to the paper's Table 3, detectability, agreement and statements in words."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy import stats

from bids_alphagan.turing import statistics
from bids_alphagan.turing.answers import Answers
from bids_alphagan.turing.selection import REAL
from bids_alphagan.turing.statistics import Estimate

EVERYBODY = "all raters"
EVERYTHING = "all"

# Column to description, of turing.tsv.
COLUMNS = {
    "rater": f"name or code; '{EVERYBODY}': together: of these raters, on other scans like these",
    "scans": f"real, a model's name, or '{EVERYTHING}' (every scan of the kit)",
    "measure": "see MEASURES",
    "value": "share, area or kappa; not in percent",
    "low": "lower end of the 95 % interval (of 'equivalence': of the 90 % interval)",
    "high": "upper end of it",
    "n": "scans it rests on; for all raters, the effective number of independent answers",
    "p": "two-sided p-value against chance",
}
MEASURES = {
    "called_synthetic": "share called synthetic (Wilson's interval)",
    "right": "share of right answers (exact interval; p: binomial test against 0.5). A rater who calls "
    "everything synthetic gets the share of synthetic scans: see 'balanced'",
    "balanced": "right answers, real and synthetic weighted equally: 0.5 for guessing whatever a rater leans "
    "to (Newcombe's interval; p: Fisher's exact test of answers against truth)",
    "auc": "probability that a synthetic scan is rated as more synthetic than a real one, from answer and "
    "confidence: 0.5 when they cannot be told apart, 1 when always (Newcombe's interval; all raters: mean)",
    "equivalence": "as 'balanced', with the 90 % interval: two one-sided tests at 5 % find no difference "
    "from 0.5 larger than the margin when it lies within the margin",
    "agreement": "share of pairs of raters that agree on a scan (Wilson's interval over scans)",
    "kappa": "agreement beyond chance: Cohen's kappa of two raters, Fleiss' of more (bootstrap over scans)",
}


@dataclass(frozen=True)
class Scores:
    """What is told. table3: one row for each rater. rows: as `COLUMNS`. statements: sentences."""

    table3: list[dict[str, Any]]
    rows: list[dict[str, Any]]
    statements: list[str]
    models: list[str]
    margin: float


def score(key: Mapping[str, Any], raters: Sequence[Answers], margin: float) -> Scores:
    """Score complete answers. key: as `kit.read_key` gives it. margin: of equivalence, in (0, 0.5)."""
    names = list(key["Scans"])
    truth = np.array([key["Scans"][name]["Truth"] for name in names])
    models = sorted(set(truth) - {REAL})
    called = np.array([[one.synthetic[name] for name in names] for one in raters])
    signed = np.array([[_rating(one, name) for name in names] for one in raters])
    rows, statements = [], []
    for k, one in enumerate(raters):
        rows += _rows(one.rater, called[[k]], signed[[k]], truth, models)
        statements.append(statement(f"Rater {one.rater}", called[[k]], signed[[k]], truth, margin))
    if len(raters) > 1:
        rows += _rows(EVERYBODY, called, signed, truth, models)
        rows += _agreement(called)
        statements.append(statement("The raters together", called, signed, truth, margin))
    table3 = [_table3(one, called[k], truth, models) for k, one in enumerate(raters)]
    return Scores(table3, rows, statements, models, margin)


def _rating(one: Answers, name: str) -> float:
    """-5 (certainly real) to 5 (certainly synthetic); one half less: a guess is a step like others."""
    size = one.confidence[name] - 0.5
    return size if one.synthetic[name] else -size


def _table3(one: Answers, called: np.ndarray, truth: np.ndarray, models: Sequence[str]) -> dict[str, Any]:
    real = truth == REAL
    right = int((called != real).sum())
    interval = statistics.exact(right, len(truth))
    row: dict[str, Any] = {"rater": one.rater, "expertise": one.expertise, "years": one.years}
    row |= {f"{model}_misclassified": int((~called[truth == model]).sum()) for model in models}
    row |= {"real_misclassified": int(called[real].sum()), "right": right, "n": len(truth)}
    return row | {
        "right_share": _round(interval.value),
        "right_low": _round(interval.low),
        "right_high": _round(interval.high),
        "p_binomial": _round(float(stats.binomtest(right, len(truth)).pvalue)),
        "minutes": round(one.minutes, 1),
    }


def _rows(
    who: str, called: np.ndarray, signed: np.ndarray, truth: np.ndarray, models: Sequence[str]
) -> list[dict[str, Any]]:
    """Rows of one rater (or all): called (raters, scans) bool, signed (raters, scans) ratings."""
    real = truth == REAL
    alone = len(called) == 1
    rows = [
        _row(who, name, "called_synthetic", statistics.share(called[:, truth == name]))
        for name in [REAL, *models]
    ]
    if alone:
        right = int((called[0] != real).sum())
        p = float(stats.binomtest(right, len(truth)).pvalue)
        rows.append(_row(who, EVERYTHING, "right", statistics.exact(right, len(truth)), p))
    else:
        rows.append(_row(who, EVERYTHING, "right", statistics.share(called != real)))
    for name in [EVERYTHING, *models]:
        these = ~real if name == EVERYTHING else truth == name
        p_fisher = _fisher(called[0, these], called[0, real]) if alone else None
        rows.append(
            _row(who, name, "balanced", statistics.balanced(called[:, these], called[:, real]), p_fisher)
        )
        areas = [statistics.auc(ratings[these], ratings[real]) for ratings in signed]
        mean = Estimate(float(np.mean([area.value for area in areas])), math.nan, math.nan, areas[0].n)
        rows.append(_row(who, name, "auc", areas[0] if alone else mean))
    wide = statistics.balanced(called[:, ~real], called[:, real], 0.90)
    return [*rows, _row(who, EVERYTHING, "equivalence", wide)]


def _fisher(synthetic: np.ndarray, real: np.ndarray) -> float:
    table = [[int(group.sum()), int((~group).sum())] for group in (synthetic, real)]
    return float(stats.fisher_exact(table).pvalue)


def _agreement(called: np.ndarray) -> list[dict[str, Any]]:
    pairs = statistics.pairwise(called)
    shared = statistics.wilson(float(pairs.mean()), len(pairs))
    return [
        _row(EVERYBODY, EVERYTHING, "agreement", shared),
        _row(EVERYBODY, EVERYTHING, "kappa", statistics.kappa(called)),
    ]


def _row(who: str, scans: str, measure: str, found: Estimate, p: float | None = None) -> dict[str, Any]:
    numbers = {"value": found.value, "low": found.low, "high": found.high, "n": found.n, "p": p}
    return {"rater": who, "scans": scans, "measure": measure} | {k: _round(v) for k, v in numbers.items()}


def _round(value: float | None) -> float | None:
    """Four significant digits: more would be an invitation to believe them. None for what there is not."""
    return None if value is None or math.isnan(value) else float(f"{value:.4g}")


def percent(share: float) -> str:
    """A share to be read."""
    return f"{100 * share:.0f} %"


def statement(who: str, called: np.ndarray, signed: np.ndarray, truth: np.ndarray, margin: float) -> str:
    """What the answers show, in words: told apart, equivalent to guessing within the margin, or neither."""
    real = truth == REAL
    synthetic, alarms = called[:, ~real], called[:, real]
    value, low, high, _ = statistics.balanced(synthetic, alarms)
    _, low90, high90, _ = statistics.balanced(synthetic, alarms, 0.90)
    found = f"right for {percent(value)} of scans, real and synthetic weighted equally "
    found += f"(95 % interval {percent(low)} to {percent(high)})"
    band = f"{percent(0.5 - margin)} to {percent(0.5 + margin)}"
    narrow = f"the 90 % interval, {percent(low90)} to {percent(high90)}"
    equal = low90 >= 0.5 - margin and high90 <= 0.5 + margin
    if low > 0.5:
        if equal:
            return f"{who}: can tell, but hardly: {found}; {narrow}, lies within {band}."
        return f"{who}: can tell real from synthetic: {found}; guessing gives 50 %."
    if high < 0.5 and not equal:
        return f"{who}: sees a difference, but takes the one for the other: {found}; guessing gives 50 %."
    if equal:
        text = f"{who}: no better than guessing, within the margin: {found}; {narrow}, lies within {band}."
    else:
        text = f"{who}: cannot be said: {found}. Guessing (50 %) is not excluded, nor shown: {narrow}, "
        text += f"is not within {band}."
        reach = statistics.reach(statistics.effective_n(synthetic), statistics.effective_n(alarms))
        if reach > margin:
            text += " There are too few answers to show it: even answers at chance would leave 50 % ± "
            text += f"{percent(reach)}. One rater would need about {statistics.scans_needed(margin)} scans, "
            text += "half of them real."
    return text + _suspicion(signed, real)


def _suspicion(signed: np.ndarray, real: np.ndarray) -> str:
    """Where right and wrong answers say nothing, how sure one rater was may still tell."""
    if len(signed) > 1:
        return ""
    area = statistics.auc(signed[0, ~real], signed[0, real])
    if area.low <= 0.5:
        return ""
    return (
        f" But synthetic scans were more suspect: by answers and confidence together, the area under the "
        f"curve is {area.value:.2f} ({area.low:.2f} to {area.high:.2f}), and 0.5 for guessing."
    )
