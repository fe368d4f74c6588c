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
    "rater": f"name or code; '{EVERYBODY}': these raters together, on other scans like these",
    "scans": f"real, a model's name, or '{EVERYTHING}' (every scan of the kit)",
    "measure": "see MEASURES",
    "value": "share, area or kappa; not in percent",
    "low": "lower end of the 95 % interval (of 'equivalence': of the 90 % interval)",
    "high": "upper end of that interval",
    "n": "number of scans; for all raters, the effective number of independent answers",
    "p": "two-sided p-value against chance",
}
MEASURES = {
    "called_synthetic": "share called synthetic (Wilson's interval)",
    "right": "share of right answers (exact interval; p: binomial test against 0.5). A rater who calls "
    "everything synthetic gets the share of synthetic scans: see 'balanced'",
    "balanced": "right answers, real and synthetic weighted equally: 0.5 for guessing, whatever a rater's "
    "preference (Newcombe's interval; p: Fisher's exact test of answers against truth)",
    "auc": "probability that a synthetic scan is rated as more synthetic than a real one, from answer and "
    "confidence: 0.5 if they are indistinguishable, 1 if always distinguished (Newcombe's interval; all raters: mean)",
    "equivalence": "as 'balanced', with the 90 % interval: two one-sided tests at 5 % exclude a "
    "difference from 0.5 larger than the margin if the interval is within the margin",
    "agreement": "share of pairs of raters that agree on a scan (Wilson's interval over scans)",
    "kappa": "agreement beyond chance: Cohen's kappa of two raters, Fleiss' of more (bootstrap over scans)",
}


@dataclass(frozen=True)
class Scores:
    """The results. table3: one row per rater. rows: columns as in `COLUMNS`. statements: sentences."""

    table3: list[dict[str, Any]]
    rows: list[dict[str, Any]]
    statements: list[str]
    models: list[str]
    margin: float


def score(key: Mapping[str, Any], raters: Sequence[Answers], margin: float) -> Scores:
    """Score complete answers. key: of `kit.read_key`. margin: of equivalence, in (0, 0.5)."""
    names = list(key["Scans"])
    truth = np.array([key["Scans"][name]["Truth"] for name in names])
    models = sorted(set(truth) - {REAL})
    called = np.array([[rater.synthetic[name] for name in names] for rater in raters])
    signed = np.array([[_rating(rater, name) for name in names] for rater in raters])
    rows, statements = [], []
    for k, rater in enumerate(raters):
        rows += _rows(rater.rater, called[[k]], signed[[k]], truth, models)
        statements.append(statement(f"Rater {rater.rater}", called[[k]], signed[[k]], truth, margin))
    if len(raters) > 1:
        rows += _rows(EVERYBODY, called, signed, truth, models)
        rows += _agreement(called)
        statements.append(statement("The raters together", called, signed, truth, margin))
    table3 = [_table3(rater, called[k], truth, models) for k, rater in enumerate(raters)]
    return Scores(table3, rows, statements, models, margin)


def _rating(answers: Answers, name: str) -> float:
    """From -4.5 (certainly real) to 4.5 (certainly synthetic).

    One half less than the confidence, so that the step between the two kinds of guesses is 1, like all others.
    """
    size = answers.confidence[name] - 0.5
    return size if answers.synthetic[name] else -size


def _table3(answers: Answers, called: np.ndarray, truth: np.ndarray, models: Sequence[str]) -> dict[str, Any]:
    real = truth == REAL
    right = int((called != real).sum())
    interval = statistics.exact(right, len(truth))
    row: dict[str, Any] = {"rater": answers.rater, "expertise": answers.expertise, "years": answers.years}
    row |= {f"{model}_misclassified": int((~called[truth == model]).sum()) for model in models}
    row |= {"real_misclassified": int(called[real].sum()), "right": right, "n": len(truth)}
    return row | {
        "right_share": _round(interval.value),
        "right_low": _round(interval.low),
        "right_high": _round(interval.high),
        "p_binomial": _round(float(stats.binomtest(right, len(truth)).pvalue)),
        "minutes": round(answers.minutes, 1),
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


def _row(who: str, scans: str, measure: str, estimate: Estimate, p: float | None = None) -> dict[str, Any]:
    numbers = {"value": estimate.value, "low": estimate.low, "high": estimate.high, "n": estimate.n, "p": p}
    return {"rater": who, "scans": scans, "measure": measure} | {k: _round(v) for k, v in numbers.items()}


def _round(value: float | None) -> float | None:
    """Four significant digits, more would suggest false precision; None for NaN."""
    return None if value is None or math.isnan(value) else float(f"{value:.4g}")


def percent(share: float) -> str:
    """A share as percent, for display."""
    return f"{100 * share:.0f} %"


def statement(who: str, called: np.ndarray, signed: np.ndarray, truth: np.ndarray, margin: float) -> str:
    """The result in words: distinguishable, equivalent to guessing within the margin, or undecided."""
    real = truth == REAL
    synthetic, alarms = called[:, ~real], called[:, real]
    value, low, high, _ = statistics.balanced(synthetic, alarms)
    _, low90, high90, _ = statistics.balanced(synthetic, alarms, 0.90)
    result = f"right for {percent(value)} of scans, real and synthetic weighted equally "
    result += f"(95 % interval {percent(low)} to {percent(high)})"
    band = f"{percent(0.5 - margin)} to {percent(0.5 + margin)}"
    narrow = f"the 90 % interval, {percent(low90)} to {percent(high90)}"
    equal = low90 >= 0.5 - margin and high90 <= 0.5 + margin
    if low > 0.5:
        if equal:
            return f"{who}: can tell real from synthetic, but hardly: {result}; {narrow}, is within {band}."
        return f"{who}: can tell real from synthetic: {result}; guessing gives 50 %."
    if high < 0.5 and not equal:
        return f"{who}: sees a difference, but confuses real and synthetic: {result}; guessing gives 50 %."
    if equal:
        text = f"{who}: no better than guessing, within the margin: {result}; {narrow}, is within {band}."
    else:
        text = f"{who}: undecided: {result}. Guessing (50 %) is neither excluded nor shown: {narrow}, "
        text += f"is not within {band}."
        reach = statistics.reach(statistics.effective_n(synthetic), statistics.effective_n(alarms))
        if reach > margin:
            text += " There are too few answers to show it: even answers at chance would leave 50 % ± "
            text += f"{percent(reach)}. One rater would need about {statistics.scans_needed(margin)} scans, "
            text += "half of them real."
    return text + _suspicion(signed, real)


def _suspicion(signed: np.ndarray, real: np.ndarray) -> str:
    """If the answers alone show nothing, a single rater's confidence may still show a difference."""
    if len(signed) > 1:
        return ""
    area = statistics.auc(signed[0, ~real], signed[0, real])
    if area.low <= 0.5:
        return ""
    return (
        f" But synthetic scans were more suspect: from answers and confidence together, the area under the "
        f"curve is {area.value:.2f} ({area.low:.2f} to {area.high:.2f}); guessing gives 0.5."
    )
