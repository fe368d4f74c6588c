"""The group report's headline: is it real, is it diverse, is it a copy, does it help? A line for each model.

Each answer is drawn from the records that the sections below show, and leads to its section.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from bids_alphagan.evaluation.downstream import section as downstream
from bids_alphagan.evaluation.downstream.section import DownstreamSection
from bids_alphagan.evaluation.memorisation.section import REPEATED
from bids_alphagan.evaluation.pairs.section import CEILING, MetricsSection, too_alike
from bids_alphagan.evaluation.sections import StatisticsSection
from bids_alphagan.report.numbers import decimals, number

GOOD, BAD, OPEN, UNASKED = "✓", "✗", "?", "–"
_TONES = {GOOD: "ok", BAD: "failed", OPEN: "warned", UNASKED: "soft"}
_ENOUGH = 8  # animals; that fewer show no difference says little
_CHANCE = 0.05


class Answer(NamedTuple):
    """mark: one of GOOD, BAD, OPEN, UNASKED. section: id of the section with its numbers, if any."""

    question: str
    mark: str
    text: str
    section: str | None

    @property
    def tone(self) -> str:
        return _TONES[self.mark]


def view(
    models: Mapping[str, str],
    metrics: MetricsSection | None,
    statistics: StatisticsSection | None,
    helped: DownstreamSection | None,
) -> list[tuple[str, list[Answer]]]:
    """The four answers for each model, under its name in print; none where nothing was asked."""
    if not (metrics or statistics or helped):
        return []
    records = statistics.records if statistics else {}
    return [
        (
            label,
            [
                _real(model, records.get("distribution")),
                _diverse(model, metrics, records.get("memorisation")),
                _copy(model, records.get("memorisation")),
                _helps(model, helped),
            ],
        )
        for model, label in models.items()
    ]


def _unasked(question: str, step: str) -> Answer:
    return Answer(question, UNASKED, f"Not asked: run --steps {step} report.", None)


def _real(model: str, record: Mapping[str, Any] | None) -> Answer:
    """By the permutation tests of the distribution: each way to compare that finds a difference counts."""
    question, section = "Is it real?", "distribution"
    if record is None:
        return _unasked(question, "evaluate")
    if record["reason"]:
        return Answer(question, OPEN, "Left out: see why.", section)
    rows = [row for row in record["tables"]["distribution"] if row["model"] == model]
    if not rows:
        return _unasked(question, "evaluate")
    tested = [row for row in rows if row["mmd_p"] is not None]
    if not tested:
        return Answer(question, OPEN, "Too few scans to tell.", section)
    whom = "held-out animals" if rows[0]["against"] == "held-out" else "the training animals"
    differ = [row for row in tested if row["mmd_p"] < _CHANCE]
    told = " and ".join(f"{row['space']} (p = {number(row['mmd_p'])})" for row in differ or tested)
    if differ:
        return Answer(question, BAD, f"As a set, they differ from {whom} by {told}.", section)
    n = min(row["n_real_animals"] for row in tested)
    text = f"No difference found from {n} {whom.removeprefix('the ')} by {told}"
    if whom != "held-out animals":
        return Answer(question, OPEN, f"{text}, which copies would pass, too.", section)
    if n < _ENOUGH:
        return Answer(question, OPEN, f"{text}, which are too few to tell.", section)
    return Answer(question, GOOD, f"{text}.", section)


def _diverse(model: str, metrics: MetricsSection | None, record: Mapping[str, Any] | None) -> Answer:
    """By repetitions within the cohort, and by how alike its scans are beside real ones."""
    question = "Is it diverse?"
    line = _summary(model, record)
    cells = _alike_cells(model, metrics)
    if line is None and cells is None:
        return _unasked(question, "evaluate")
    section, mark, told = "memorisation", GOOD, []
    if line:
        n, distinct = line["n"], line["distinct"]
        told.append(f"All {n} scans are different from each other")
        if distinct < n:
            told = [
                f"Only {distinct} of {n} scans {'is' if distinct == 1 else 'are'} different from the others"
            ]
            mark = BAD if n - distinct > REPEATED * n else OPEN
    if metrics and cells:
        own, real = cells
        told.append(f"{own['metric']} is {_value(own)}, and {_value(real)} in real scans")
        if model in too_alike(metrics):
            told[-1] += ": too alike"
            mark = OPEN if real["high"] is None and mark != BAD else BAD
        section = "metrics" if line is None or model in too_alike(metrics) else section
    return Answer(question, mark, f"{'; '.join(told)}.", section)


def _alike_cells(
    model: str, metrics: MetricsSection | None
) -> tuple[Mapping[str, Any], Mapping[str, Any]] | None:
    """The metric of pairs within a set: of the model, and of real scans; None where one is not known."""
    rows: Sequence[Mapping[str, Any]] = metrics.rows if metrics else ()
    within = {row["model"]: row for row in rows if row["against"] == "itself" and row["value"] is not None}
    return (within[model], within[CEILING]) if {model, CEILING} <= set(within) else None


def _value(cell: Mapping[str, Any]) -> str:
    return f"{cell['value']:.{decimals(cell)}f}"


def _copy(model: str, record: Mapping[str, Any] | None) -> Answer:
    question, section = "Is it a copy?", "memorisation"
    if record and record["reason"]:
        return Answer(question, OPEN, "Left out: see why.", section)
    line = _summary(model, record)
    if line is None:
        return _unasked(question, "evaluate")
    n, copies = line["n"], line["copies"]
    if copies:
        many = "is a copy" if copies == 1 else "are copies"
        return Answer(question, BAD, f"{copies} of {n} scans {many} of a training scan.", section)
    text = f"None of {n} scans is found to copy a training scan"
    if line["closer_p"] is not None and line["closer_p"] < _CHANCE:
        p = f"{line['closer_p']:.2g}"
        text += f", but as a set they lie closer to the training animals than to others (p = {p})."
        return Answer(question, OPEN, text, section)
    if line["notes"]:
        return Answer(question, OPEN, f"{text}, as far as these animals can tell.", section)
    return Answer(question, GOOD, f"{text}.", section)


def _summary(model: str, record: Mapping[str, Any] | None) -> Mapping[str, Any] | None:
    """The model's line of group_memorisation_summary.tsv; None where there is none."""
    lines = record["tables"].get("memorisation_summary", []) if record and not record["reason"] else []
    return next((line for line in lines if line["model"] == model), None)


def _helps(model: str, section: DownstreamSection | None) -> Answer:
    question = "Does it help?"
    if section is None or model not in section.told:
        return _unasked(question, "downstream")
    found = downstream.verdict(section, model)
    mark = {"ok": GOOD, "failed": BAD, "warned": OPEN}[found["tone"]]
    gain = found["gain"]
    places = decimals(gain)
    ends = "" if gain["low"] is None else f", {gain['low']:+.{places}f} to {gain['high']:+.{places}f}"
    told = f"Dice {gain['value']:+.{places}f}{ends} against real scans alone".replace("-", "−")
    if downstream.notes(section.told[model]):
        mark, told = OPEN, f"{told}, by networks that have hardly learned a tissue"
    return Answer(question, mark, f"{found['word']}: {told}.", "downstream")
