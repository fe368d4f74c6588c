"""Is any synthetic scan a copy of a training scan? group_memorisation.tsv, and a word in every sidecar."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from bids_alphagan import __version__
from bids_alphagan.bids.names import sidecar
from bids_alphagan.bids.prepared import PreparedScan, synthetic_scans
from bids_alphagan.bids.split import animals_of
from bids_alphagan.bids.study import Study
from bids_alphagan.common.files import read_json, write_json
from bids_alphagan.evaluation.memorisation import section
from bids_alphagan.evaluation.memorisation.cohort import Memorisation, find_copies
from bids_alphagan.evaluation.memorisation.measures import RealScans
from bids_alphagan.evaluation.question import Answer, Columns, Headline, Question, Rows
from bids_alphagan.evaluation.scans import Scans

VERSION = 2  # of the method, as sidecars name it
KEY = "Memorisation"  # in the sidecar of a synthetic scan
WORST = 4  # pairs that are shown, per model

COLUMNS: Columns = {
    "model": {"Description": "What made the scan."},
    "scan": {"Description": "The synthetic scan."},
    "nearest_scan": {"Description": "The training scan that is most like it, after alignment."},
    "nearest_animal": {"Description": "The animal of that scan."},
    "similarity": {"Description": "Correlation in [0, 1] after alignment, both blurred alike."},
    "ratio": {"Description": "Distance to that animal over the distance to the next nearest; 0 for a copy."},
    "mirrored": {"Description": "Whether left and right are swapped in the synthetic scan."},
    "p": {"Description": "Chance of so small a ratio for a scan that owes nothing to a single animal."},
    "p_adjusted": {"Description": "p by Holm's method over the model's scans (doi:10.2307/4615733)."},
    "copy": {"Description": "Whether the scan counts as a copy: p_adjusted is below 0.05."},
}
SUMMARY_COLUMNS: Columns = {
    "model": {"Description": "What made the scans."},
    "n": {"Description": "Number of synthetic scans."},
    "n_training_animals": {"Description": "Number of animals that the model learned from."},
    "n_held_out_animals": {"Description": "Number of animals that no model has seen."},
    "copies": {"Description": "How many scans count as copies of a training scan."},
    "nearer": {
        "Description": "How many times nearer to one training animal than to the next a scan must be to "
        "count as a copy."
    },
    "closer": {
        "Description": "Share of scans whose nearest animal is a training animal, not a held-out one."
    },
    "closer_expected": {"Description": "That share for a model that favours neither."},
    "closer_p": {"Description": "Chance of so large a share: permutation of which animals were held out."},
    "repetitions": {"Description": "How many scans are nearly another scan of the model."},
    "distinct": {"Description": "How many different scans there are."},
    "notes": {"Description": "What limits these numbers."},
}


class Copies(Question):
    """Is any synthetic scan a copy of a training scan? Are they different from each other?"""

    version = VERSION
    template = "evaluation/memorisation/section.html.j2"

    def columns(self) -> Mapping[str, Columns]:
        return {"memorisation": COLUMNS, "memorisation_summary": SUMMARY_COLUMNS}

    def answer(self, scans: Scans, settings: Mapping[str, Any]) -> Answer:
        return find_all(scans)

    def publish(self, scans: Scans, answer: Answer) -> None:
        write_verdicts(scans.cohorts, answer.tables.get("memorisation", []), scans.study.training)

    def view(self, answer: Answer, labels: Mapping[str, str], pictures: Path) -> Mapping[str, Any]:
        return section.view(answer, labels, pictures)

    def methods(self, answer: Answer, study: Study) -> str:
        return "" if answer.reason else section.METHODS

    def headlines(self, model: str, answers: Mapping[str, Answer | None]) -> list[Headline]:
        own = answers["memorisation"]
        return [section.diverse(model, own, answers.get("pairs")), section.copied(model, own)]


def find_all(scans: Scans) -> Answer:
    """Rows of both tables, and the worst pairs as pictures. UserError with too few training animals."""
    training, held = scans.study.training, scans.study.held_out
    real = RealScans.prepare(
        scans.training,
        animals_of(training),
        scans.held_out,
        animals_of(held) if held else None,
        zooms=scans.zooms,
        brain=scans.brain(),
    )
    rows: Rows = []
    summary: Rows = []
    notes: list[str] = []
    more: dict[str, Any] = {"zooms": [float(zoom) for zoom in scans.zooms]}
    pictures: dict[str, np.ndarray] = {}
    for model, cohort in scans.synthetic.items():
        found = find_copies(cohort, real, seed=scans.seed)
        rows += _rows(model, found, scans.paths[model], training)
        summary.append(
            {
                "model": model,
                "n": len(cohort),
                "n_training_animals": len(set(animals_of(training))),
                "n_held_out_animals": len(set(animals_of(held))),
                "copies": found.copies,
                "nearer": found.nearer,
                "closer": found.closer,
                "closer_expected": found.expected,
                "closer_p": found.p,
                "repetitions": len(found.repetitions),
                "distinct": found.distinct,
                "notes": " ".join(found.notes) or None,
            }
        )
        notes += [note for note in found.notes if note not in notes]
        worst = found.worst(WORST)
        more[model] = [match.synthetic for match in worst]
        pairs = [(real.moved(cohort[m.synthetic], m), scans.training[m.training]) for m in worst]
        pictures[model] = (255 * np.clip(pairs, 0, 1)).round().astype(np.uint8)
    return Answer({"memorisation": rows, "memorisation_summary": summary}, notes, more, pictures)


def _rows(
    model: str, found: Memorisation, paths: Sequence[Path], training: Sequence[PreparedScan]
) -> list[dict[str, Any]]:
    return [
        {
            "model": model,
            "scan": paths[match.synthetic].name.removesuffix(".nii.gz"),
            "nearest_scan": f"{near.name.stem}_{near.name.suffix}",
            "nearest_animal": f"sub-{near.name.subject}",
            "similarity": match.similarity,
            "ratio": match.ratio,
            "mirrored": match.mirrored,
            "p": match.p,
            "p_adjusted": match.p_adjusted,
            "copy": match.copy,
        }
        for match in found.matches
        for near in [training[match.training]]
    ]


def write_verdicts(
    cohorts: Mapping[str, Path], rows: Sequence[Mapping[str, Any]], training: Sequence[PreparedScan]
) -> None:
    """Write into each synthetic scan's sidecar what `rows` say of it; take out what is no longer said."""
    sources = {f"{scan.name.stem}_{scan.name.suffix}": scan for scan in training}
    verdicts = {(row["model"], row["scan"]): row for row in rows}
    for model, folder in cohorts.items():
        for path in synthetic_scans(folder):
            facts = read_json(sidecar(path))
            facts.pop(KEY, None)
            row = verdicts.get((model, path.name.removesuffix(".nii.gz")))
            if row:
                raw = read_json(sidecar(sources[row["nearest_scan"]].preproc))["Sources"][0]
                facts[KEY] = {
                    "NearestTrainingScan": raw,
                    "Similarity": row["similarity"],
                    "Mirrored": row["mirrored"],
                    "P": row["p"],
                    "PAdjusted": row["p_adjusted"],
                    "Copy": row["copy"],
                    "Method": f"nearest-neighbour ratio, version {VERSION} (bids-alphagan {__version__})",
                }
            write_json(sidecar(path), facts)
