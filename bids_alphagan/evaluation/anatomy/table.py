"""Volumes of brain and tissues, synthetic versus real: group_anatomy.tsv."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from bids_alphagan.bids.split import animals_of
from bids_alphagan.bids.study import Study
from bids_alphagan.common.errors import UserError
from bids_alphagan.evaluation.anatomy import section
from bids_alphagan.evaluation.anatomy.measures import STRUCTURES, compare_volumes, tissue_volumes
from bids_alphagan.evaluation.question import AGAINST, Answer, Columns, Question, number
from bids_alphagan.evaluation.scans import REAL, Scans

COMPARISONS = {
    "difference": "synthetic minus real mean, mL",
    "effect": "Hedges' g, the difference in standard deviations (doi:10.3102/10769986006002107)",
    "spread_ratio": "standard deviation of synthetic over that of real scans; 1: equal variation",
}
_ENDS = {"": "", "_low": "Lower bound of the 95 % interval over animals: ", "_high": "Its upper bound: "}
COLUMNS: Columns = {
    "model": {
        "Description": "The model of the synthetic scans.",
        "Levels": {
            REAL: "No model: training scans in place of synthetic ones, the values of other animals (the "
            "ceiling); only if animals are held out."
        },
    },
    "structure": {
        "Description": "The structure whose volume in the masks was measured.",
        "Levels": {"brain": "GM, WM and CSF", "gm": "grey matter", "wm": "white matter", "csf": "fluid"},
    },
    "against": AGAINST,
    "n_real": {"Description": "Number of real scans with masks."},
    "n_synthetic": {"Description": "Number of synthetic scans with masks."},
    "real_mean": {"Description": "Mean volume of the real scans.", "Units": "mL"},
    "real_sd": {"Description": "Standard deviation over the real scans.", "Units": "mL"},
    "synthetic_mean": {"Description": "Mean volume of the synthetic scans.", "Units": "mL"},
    "synthetic_sd": {"Description": "Standard deviation over the synthetic scans.", "Units": "mL"},
    **{
        name + end: {"Description": words + text}
        for name, text in COMPARISONS.items()
        for end, words in _ENDS.items()
    },
}


class Anatomy(Question):
    """Do brain and tissues have the same volumes, and the same variation, as in real animals?"""

    version = 2
    template = "evaluation/anatomy/section.html.j2"

    def columns(self) -> Mapping[str, Columns]:
        return {"anatomy": COLUMNS}

    def answer(self, scans: Scans, settings: Mapping[str, Any]) -> Answer:
        return compare_all(scans)

    def view(self, answer: Answer, labels: Mapping[str, str], pictures: Path) -> Mapping[str, Any]:
        return section.view(answer, labels)

    def methods(self, answer: Answer, study: Study) -> str:
        return "" if answer.reason else section.METHODS


def compare_all(scans: Scans) -> Answer:
    """Rows of group_anatomy.tsv, and each scan's volumes for the report. Raises UserError without masks."""
    every = scans.segmented()
    reference_animals = set(animals_of(scans.reference))
    segmented = [scan for scan in every if scan[0] in reference_animals]
    if not segmented:
        raise UserError("The real scans have no masks (--segmenter none), so volumes cannot be compared.")
    animals = [animal for animal, *_ in segmented]
    real = _volumes(segmented)
    rows, drawn, notes = [], {REAL: real}, scans.notes()
    sets = {model: scans.segmented(model) for model in scans.cohorts}
    if scans.against == "held-out":
        sets = {REAL: [scan for scan in every if scan[0] not in reference_animals], **sets}
    for model, cohort_scans in sets.items():
        volumes = _volumes(cohort_scans)
        missing = len(scans.paths[model]) - len(volumes) if model in scans.cohorts else 0
        if missing:
            notes.append(
                f"{model}: {missing} of {len(scans.paths[model])} scans have no masks and are left out."
            )
        own = [animal for animal, *_ in cohort_scans] if model == REAL else None
        try:
            compared = compare_volumes(real, volumes, animals, own, seed=scans.seed)
        except UserError as error:
            notes.append(f"{model}: {error}")
            continue
        if model != REAL:
            drawn[model] = volumes
        for comparison in compared:
            row: dict[str, Any] = {
                "model": model,
                "structure": comparison.structure,
                "against": scans.against,
            }
            row |= {"n_real": len(real), "n_synthetic": len(volumes)}
            row |= {
                key: getattr(comparison, key)
                for key in ("real_mean", "real_sd", "synthetic_mean", "synthetic_sd")
            }
            for name in COMPARISONS:
                interval = getattr(comparison, name)
                row |= {name: number(interval.value)}
                row |= {f"{name}_low": number(interval.low), f"{name}_high": number(interval.high)}
            rows.append(row)
    if not set(drawn) - {REAL}:
        raise UserError(" ".join(notes))
    return Answer({"anatomy": rows}, notes, {"volumes": drawn})


def _volumes(segmented: Sequence[tuple[Any, ...]]) -> list[dict[str, float]]:
    rows = [tissue_volumes(dseg, zooms) for _, _, dseg, zooms in segmented]
    return [{name: round(row[name], 6) for name in STRUCTURES} for row in rows]
