"""Is any synthetic scan a copy of a training scan? group_memorisation.tsv, and entries in the scans' sidecars."""

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

VERSION = 2  # of the method, recorded in sidecars
KEY = "Memorisation"  # in the sidecar of a synthetic scan
WORST = 4  # pairs to show, per model

COLUMNS: Columns = {
    "model": {"Description": "The model of the scan."},
    "scan": {"Description": "The synthetic scan."},
    "nearest_scan": {"Description": "The most similar training scan, after alignment."},
    "nearest_animal": {"Description": "The animal of that scan."},
    "similarity": {"Description": "Correlation in [0, 1] after alignment, both with the same blur."},
    "ratio": {"Description": "Distance to that animal over the distance to the next nearest; 0 for a copy."},
    "mirrored": {"Description": "Whether left and right are swapped in the synthetic scan."},
    "p": {
        "Description": "Probability of a ratio at most as small for a scan that does not depend on a single animal."
    },
    "p_adjusted": {"Description": "p by Holm's method over the model's scans (doi:10.2307/4615733)."},
    "copy": {"Description": "Whether the scan counts as a copy: p_adjusted is below 0.05."},
}
SUMMARY_COLUMNS: Columns = {
    "model": {"Description": "The model of the scans."},
    "n": {"Description": "Number of synthetic scans."},
    "n_training_animals": {"Description": "Number of animals that the model was trained on."},
    "n_held_out_animals": {"Description": "Number of held-out animals."},
    "copies": {"Description": "Number of scans that count as copies of a training scan."},
    "nearer": {
        "Description": "How many times nearer to one training animal than to the next a scan must be to "
        "count as a copy."
    },
    "closer": {
        "Description": "Share of scans whose nearest animal is a training animal, not a held-out one."
    },
    "closer_expected": {"Description": "That share for a model that prefers neither."},
    "closer_p": {
        "Description": "Probability of at least this share: permutation of which animals were held out."
    },
    "repetitions": {"Description": "Number of scans that nearly equal another scan of the model."},
    "distinct": {"Description": "Number of different scans."},
    "notes": {"Description": "Limitations of these numbers."},
}


class Copies(Question):
    """Is any synthetic scan a copy of a training scan? Do they differ from each other?"""

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
    """Rows of both tables, and the most suspicious pairs as pictures. Raises UserError for too few training animals."""
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
        result = find_copies(cohort, real, seed=scans.seed)
        rows += _rows(model, result, scans.paths[model], training)
        summary.append(
            {
                "model": model,
                "n": len(cohort),
                "n_training_animals": len(set(animals_of(training))),
                "n_held_out_animals": len(set(animals_of(held))),
                "copies": result.copies,
                "nearer": result.nearer,
                "closer": result.closer,
                "closer_expected": result.expected,
                "closer_p": result.p,
                "repetitions": len(result.repetitions),
                "distinct": result.distinct,
                "notes": " ".join(result.notes) or None,
            }
        )
        notes += [note for note in result.notes if note not in notes]
        worst = result.worst(WORST)
        more[model] = [match.synthetic for match in worst]
        pairs = [(real.moved(cohort[m.synthetic], m), scans.training[m.training]) for m in worst]
        pictures[model] = (255 * np.clip(pairs, 0, 1)).round().astype(np.uint8)
    return Answer({"memorisation": rows, "memorisation_summary": summary}, notes, more, pictures)


def _rows(
    model: str, result: Memorisation, paths: Sequence[Path], training: Sequence[PreparedScan]
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
        for match in result.matches
        for near in [training[match.training]]
    ]


def write_verdicts(
    cohorts: Mapping[str, Path], rows: Sequence[Mapping[str, Any]], training: Sequence[PreparedScan]
) -> None:
    """Write each synthetic scan's result to its sidecar, and remove outdated results."""
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
