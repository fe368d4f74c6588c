"""How far apart cohorts and real scans lie as sets: group_distribution.tsv."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from bids_alphagan.errors import UserError
from bids_alphagan.evaluation.distribution import frechet_distance, kernel_mmd, neighbourhoods
from bids_alphagan.evaluation.features import (
    ANATOMY,
    Appearance,
    FeatureSpace,
    anatomy_features,
    feature_space,
)
from bids_alphagan.splits import animals_of
from bids_alphagan.statistics.scans import Scans
from bids_alphagan.statistics.table import AGAINST, Columns, Finding, number

REAL = "real"
COLUMNS: Columns = {
    "model": {
        "Description": "What made the scans.",
        "Levels": {
            REAL: "Nothing: training scans in place of synthetic ones, so what other animals reach. By "
            "anatomy alone, for appearance is learned from these scans."
        },
    },
    "space": {
        "Description": "By what scans are compared; each feature on the training scans' scale.",
        "Levels": {
            "anatomy": "Volumes, shape, tissue contrast and texture, from scan and tissue masks.",
            "appearance": "Principal components of the training scans' lowest spatial frequencies.",
        },
    },
    "against": AGAINST,
    "n_real": {"Description": "Number of real scans."},
    "n_real_animals": {"Description": "Number of animals that they are of."},
    "n_synthetic": {"Description": "Number of synthetic scans."},
    "n_features": {"Description": "Number of features in the space."},
    "mmd": {
        "LongName": "Kernel maximum mean discrepancy",
        "Description": "Squared, unbiased, Gaussian kernel; about 0 where both sets are of one distribution. "
        "Gretton et al. 2012, JMLR 13:723-773.",
    },
    "mmd_p": {"Description": "Chance of so large an mmd for sets of one distribution: permutation test."},
    "precision": {
        "Description": "Share of synthetic scans that lie among the real ones. Kynkäänniemi et al. 2019, "
        "arXiv:1904.06991."
    },
    "recall": {"Description": "Share of real scans that lie among the synthetic ones. As precision."},
    "density": {
        "Description": "How densely real scans lie around synthetic ones; 1 for a perfect model. Naeem et "
        "al. 2020, arXiv:2002.09797."
    },
    "coverage": {
        "Description": "Share of real scans with a synthetic one in their neighbourhood. As density."
    },
    "expected_coverage": {"Description": "Coverage of a perfect model with these numbers of scans."},
    "k": {"Description": "Neighbourhoods reach to the k-th nearest other animal."},
    "frechet": {
        "LongName": "Squared Fréchet distance",
        "Description": "Between Gaussians fitted to the two sets; n/a where there are too few scans.",
    },
    "notes": {"Description": "Why a number is missing."},
}


def find(scans: Scans) -> Finding:
    """Rows of group_distribution.tsv. UserError where there is no space to compare in."""
    rows, notes = [], scans.notes()
    for name, space in {"anatomy": _anatomy, "appearance": _appearance}.items():
        try:
            found, animals, of_training = space(scans)
        except UserError as error:
            notes.append(f"Not compared by {name}: {error}")
            continue
        for model, features in found.synthetic.items():
            row = {"model": model, "space": name, "against": scans.against}
            own = of_training if model == REAL else None
            rows.append(row | _compare(found.real, features, animals, own, scans.config.seed))
    if not rows:
        raise UserError(" ".join(notes))
    return Finding({"distribution": rows}, notes)


_Space = tuple[FeatureSpace, list[str], list[str]]  # and the animals of the real and of the training scans


def _anatomy(scans: Scans) -> _Space:
    """Scans with masks, by `evaluation.features.ANATOMY`; beside held-out ones, the training scans too."""
    features: dict[str, np.ndarray] = {}
    animals: dict[str, list[str]] = {}
    sides = {"training": scans.sides.training, "held-out": scans.sides.held_out}
    real = scans.segmented()
    for side, members in sides.items():
        mine = [one for one in real if one[0] in set(animals_of(members))]
        animals[side] = [animal for animal, *_ in mine]
        features[side] = np.array([anatomy_features(*one) for _, *one in mine])
    if not animals[scans.against] or not animals["training"]:
        raise UserError("The real scans have no masks.")
    sets = {REAL: features["training"]} if scans.against == "held-out" else {}
    for model in scans.cohorts:
        made = [anatomy_features(*one) for _, *one in scans.segmented(model)]
        if made:
            sets[model] = np.stack(made)
    if not set(sets) - {REAL}:
        raise UserError("The synthetic scans have no masks.")
    names = list(ANATOMY)
    space = feature_space("anatomy", features[scans.against], sets, names, scale_by=features["training"])
    return space, animals[scans.against], animals["training"]


def _appearance(scans: Scans) -> _Space:
    """All scans, by what is learned from the training scans alone: to it, these are not as others are."""
    appearance = Appearance.fit(scans.training)
    training = appearance(scans.training)
    real = training if scans.against == "training" or scans.held_out is None else appearance(scans.held_out)
    sets = {model: appearance(cohort) for model, cohort in scans.synthetic.items()}
    space = feature_space("appearance", real, sets, scale_by=training)
    return space, animals_of(scans.reference), animals_of(scans.sides.training)


def _compare(
    real: np.ndarray,
    synthetic: np.ndarray,
    animals: Sequence[str],
    synthetic_animals: Sequence[str] | None,
    seed: int,
) -> dict[str, Any]:
    """All measures of one model in one space; None and a reason where one cannot be had."""
    row: dict[str, Any] = {
        "n_real": len(real),
        "n_real_animals": len(set(animals)),
        "n_synthetic": len(synthetic),
        "n_features": real.shape[1],
    }
    reasons = []
    try:
        mmd = kernel_mmd(real, synthetic, animals, synthetic_animals, seed=seed)
        row |= {"mmd": number(mmd.value), "mmd_p": mmd.p}
    except UserError as error:
        reasons.append(str(error))
    names = ("precision", "recall", "density", "coverage", "expected_coverage", "k")
    try:
        near = neighbourhoods(real, synthetic, animals)
        row |= {name: getattr(near, name) for name in names}
    except UserError as error:
        reasons.append(str(error))
    frechet = frechet_distance(real, synthetic, animals)
    reasons += [f"Fréchet distance: {frechet.reason}"] if frechet.reason else []
    missing: Mapping[str, Any] = dict.fromkeys(("mmd", "mmd_p", *names))
    return {**missing, **row, "frechet": frechet.value, "notes": " ".join(reasons) or None}
