"""Distances between cohorts and real scans as sets: group_distribution.tsv."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from bids_alphagan.bids.split import animals_of
from bids_alphagan.bids.study import Study
from bids_alphagan.common.errors import UserError
from bids_alphagan.evaluation.bootstrap import jackknife, units
from bids_alphagan.evaluation.distribution import section
from bids_alphagan.evaluation.distribution.features import (
    ANATOMY,
    Appearance,
    anatomy_features,
    feature_space,
)
from bids_alphagan.evaluation.distribution.measures import frechet_distance, kernel_mmd, neighbourhoods
from bids_alphagan.evaluation.question import AGAINST, Answer, Columns, Headline, Question, number
from bids_alphagan.evaluation.scans import NOISE, NOISY, REAL, Scans

LEARNED = 2 / 3  # of the training animals: appearance is fitted to these, the others are the ceiling
BOUNDS = {  # range of each measure that has an interval
    "mmd": (-np.inf, np.inf),
    "precision": (0.0, 1.0),
    "recall": (0.0, 1.0),
    "density": (0.0, np.inf),
    "coverage": (0.0, 1.0),
}
COLUMNS: Columns = {
    "model": {
        "Description": "The origin of the scans.",
        "Levels": {
            REAL: "No model: training scans in place of synthetic ones, the values of other animals (the "
            "ceiling); for appearance, those that it is not fitted to. Only if animals are held out.",
            NOISY: f"The same with Gaussian noise, standard deviation {NOISE} of the range: the floor. For "
            "anatomy, with the masks of the scans without noise.",
        },
    },
    "space": {
        "Description": "The features by which scans are compared, each on the training scans' scale.",
        "Levels": {
            "anatomy": "Volumes, shape, tissue contrast and texture, from scan and tissue masks.",
            "appearance": "Principal components of the lowest spatial frequencies, of training scans.",
        },
    },
    "against": AGAINST,
    "n_real": {"Description": "Number of real scans."},
    "n_real_animals": {"Description": "Number of their animals."},
    "n_synthetic": {"Description": "Number of synthetic scans."},
    "n_features": {"Description": "Number of features in the space."},
    "mmd": {
        "LongName": "Kernel maximum mean discrepancy",
        "Description": "Squared, unbiased, Gaussian kernel; about 0 if both sets come from one distribution. "
        "Gretton et al. 2012, JMLR 13:723-773.",
    },
    "mmd_p": {
        "Description": "Probability of at least this mmd for sets from one distribution: permutation test."
    },
    "precision": {
        "Description": "Share of synthetic scans in a neighbourhood of real ones. Kynkäänniemi et al. 2019, "
        "arXiv:1904.06991."
    },
    "recall": {"Description": "Share of real scans in a neighbourhood of synthetic ones. See precision."},
    "density": {
        "Description": "Density of real scans around synthetic ones; 1 for a perfect model. Naeem et "
        "al. 2020, arXiv:2002.09797."
    },
    "coverage": {
        "Description": "Share of real scans with a synthetic one in their neighbourhood. See density."
    },
    "expected_coverage": {"Description": "Coverage of a perfect model with these numbers of scans."},
    "k": {"Description": "Neighbourhoods reach to the k-th nearest other animal."},
    "frechet": {
        "LongName": "Squared Fréchet distance",
        "Description": "Between Gaussians fitted to the two sets; n/a if there are too few scans.",
    },
    **{
        f"{name}_{end}": {"Description": f"{words} of the 95 % interval of {name}: jackknife over animals."}
        for name in BOUNDS
        for end, words in (("low", "Lower bound"), ("high", "Upper bound"))
    },
    "notes": {"Description": "Why a number is missing."},
}


@dataclass(frozen=True)
class _Sets:
    """Features of the real scans (n, d) with their animals, and of each other set, all on one scale."""

    real: np.ndarray
    animals: Sequence[str]
    compared: Mapping[str, tuple[np.ndarray, Sequence[str] | None]]


class Distribution(Question):
    """Do the synthetic scans, as a set, vary like real animals?"""

    version = 2
    template = "evaluation/distribution/section.html.j2"

    def columns(self) -> Mapping[str, Columns]:
        return {"distribution": COLUMNS}

    def answer(self, scans: Scans, settings: Mapping[str, Any]) -> Answer:
        return compare_sets(scans)

    def view(self, answer: Answer, labels: Mapping[str, str], pictures: Path) -> Mapping[str, Any]:
        return section.view(answer, labels)

    def methods(self, answer: Answer, study: Study) -> str:
        return section.methods(answer)

    def headlines(self, model: str, answers: Mapping[str, Answer | None]) -> list[Headline]:
        return [section.headline(model, answers["distribution"])]


def compare_sets(scans: Scans) -> Answer:
    """Rows of group_distribution.tsv. Raises UserError if the sets cannot be compared in any space."""
    rows, notes = [], scans.notes()
    for name, space in {"anatomy": _anatomy, "appearance": _appearance}.items():
        try:
            sets = space(scans)
        except UserError as error:
            notes.append(f"Not compared by {name}: {error}")
            continue
        for model, (features, animals) in sets.compared.items():
            row = {"model": model, "space": name, "against": scans.against}
            rows.append(row | _compare(sets.real, features, sets.animals, animals, scans.seed))
    if not rows:
        raise UserError(" ".join(notes))
    return Answer({"distribution": rows}, notes)


def _anatomy(scans: Scans) -> _Sets:
    """The scans with masks, in the features of `evaluation.distribution.features.ANATOMY`."""
    real = scans.segmented()
    sides = {"training": scans.study.training, "held-out": scans.study.held_out}
    parts = {side: [row for row in real if row[0] in set(animals_of(of))] for side, of in sides.items()}
    if not parts[scans.against] or not parts["training"]:
        raise UserError("The real scans have no masks.")
    cohorts = {model: scans.segmented(model) for model in scans.cohorts}
    cohorts = {model: cohort for model, cohort in cohorts.items() if cohort}
    if not cohorts:
        raise UserError("The synthetic scans have no masks.")
    features = {name: _features(rows) for name, rows in (parts | cohorts).items() if rows}
    if scans.against == "held-out":
        rng = np.random.default_rng(scans.seed)
        noisy = [(animal, with_noise(scan, rng), *more) for animal, scan, *more in parts["training"]]
        features = {REAL: features["training"], NOISY: _features(noisy)} | features
    return _sets("anatomy", scans, features, {side: [a for a, *_ in of] for side, of in parts.items()})


def _features(segmented: Sequence[tuple[Any, ...]]) -> np.ndarray:
    return np.stack([anatomy_features(*arrays) for _, *arrays in segmented])


def with_noise(scan: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """A scan (x, y, z) with the floor's noise, clipped to the scan's range."""
    low, high = float(scan.min()), float(scan.max())
    return np.clip(scan + NOISE * (high - low) * rng.standard_normal(scan.shape, dtype=np.float32), low, high)


def _appearance(scans: Scans) -> _Sets:
    """All scans, in features that are fitted to training scans; those of the ceiling are not used for the fit."""
    animals = animals_of(scans.study.training)
    learned = np.ones(len(animals), bool)
    if scans.against == "held-out":
        own = units(animals, len(animals))
        order = np.random.default_rng(scans.seed).permutation(own.max() + 1)
        learned = np.isin(own, order[: max(round(LEARNED * len(order)), 3)])
    appearance = Appearance.fit(scans.training[learned])
    features = {"training": appearance(scans.training[learned])}
    features |= {model: appearance(cohort) for model, cohort in scans.synthetic.items()}
    ceiling_animals = [animal for animal, is_learned in zip(animals, learned, strict=True) if not is_learned]
    of = {"training": [animal for animal, is_learned in zip(animals, learned, strict=True) if is_learned]}
    if scans.against == "held-out" and scans.held_out is not None:
        features["held-out"], of["held-out"] = appearance(scans.held_out), animals_of(scans.study.held_out)
        if ceiling_animals:
            rng = np.random.default_rng(scans.seed)
            noisy = np.stack([with_noise(scan, rng) for scan in scans.training[~learned]])
            ceiling = {REAL: appearance(scans.training[~learned]), NOISY: appearance(noisy)}
            features = ceiling | features
    return _sets("appearance", scans, features, of, ceiling_animals)


def _sets(
    name: str,
    scans: Scans,
    features: Mapping[str, np.ndarray],
    animals: Mapping[str, Sequence[str]],
    ceiling: Sequence[str] | None = None,
) -> _Sets:
    """Put features on the training scans' scale. `ceiling`: the animals of REAL, all training animals by default."""
    names = list(ANATOMY) if name == "anatomy" else None
    compared = {model: values for model, values in features.items() if model not in ("training", "held-out")}
    space = feature_space(name, features[scans.against], compared, names, scale_by=features["training"])
    own = dict.fromkeys((REAL, NOISY), animals["training"] if ceiling is None else ceiling)
    by_model = {model: (values, own.get(model)) for model, values in space.synthetic.items()}
    return _Sets(space.real, animals[scans.against], by_model)


def _compare(
    real: np.ndarray,
    synthetic: np.ndarray,
    animals: Sequence[str],
    synthetic_animals: Sequence[str] | None,
    seed: int,
) -> dict[str, Any]:
    """All measures of one set in one space; None and a reason for a measure that cannot be computed."""
    row: dict[str, Any] = {
        "n_real": len(real),
        "n_real_animals": len(set(animals)),
        "n_synthetic": len(synthetic),
        "n_features": real.shape[1],
    }
    reasons, bandwidth, k = [], None, None
    try:
        mmd = kernel_mmd(real, synthetic, animals, synthetic_animals, seed=seed)
        row |= {"mmd": number(mmd.value), "mmd_p": mmd.p}
        bandwidth = mmd.bandwidth
    except UserError as error:
        reasons.append(str(error))
    names = ("precision", "recall", "density", "coverage", "expected_coverage", "k")
    try:
        near = neighbourhoods(real, synthetic, animals)
        row |= {name: getattr(near, name) for name in names}
        k = near.k
    except UserError as error:
        reasons.append(str(error))
    frechet = frechet_distance(real, synthetic, animals)
    reasons += [f"Fréchet distance: {frechet.reason}"] if frechet.reason else []

    first = np.asarray(animals)
    second = np.arange(len(synthetic)) if synthetic_animals is None else np.asarray(synthetic_animals)

    def measures(i: np.ndarray, j: np.ndarray) -> np.ndarray:
        resampled = kernel_mmd(
            real[i], synthetic[j], first[i], second[j], bandwidth=bandwidth, permutations=0
        )
        close = neighbourhoods(real[i], synthetic[j], first[i], k)
        return np.array([resampled.value, close.precision, close.recall, close.density, close.coverage])

    if bandwidth is not None and k is not None:
        for (name, (least, most)), low, high in zip(
            BOUNDS.items(), *jackknife(measures, first, second), strict=True
        ):
            row |= {f"{name}_low": number(max(low, least)), f"{name}_high": number(min(high, most))}
    ends = [f"{name}_{end}" for name in BOUNDS for end in ("low", "high")]
    missing: Mapping[str, Any] = dict.fromkeys(("mmd", "mmd_p", *names, *ends))
    return {**missing, **row, "frechet": frechet.value, "notes": " ".join(reasons) or None}
