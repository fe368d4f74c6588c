"""How far apart cohorts and real scans lie as sets: group_distribution.tsv."""

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

LEARNED = 2 / 3  # of the training animals: appearance is learned from these, the others make the ceiling
BOUNDS = {  # of each measure with an interval
    "mmd": (-np.inf, np.inf),
    "precision": (0.0, 1.0),
    "recall": (0.0, 1.0),
    "density": (0.0, np.inf),
    "coverage": (0.0, 1.0),
}
COLUMNS: Columns = {
    "model": {
        "Description": "What made the scans.",
        "Levels": {
            REAL: "Nothing: training scans in place of synthetic ones, so what other animals reach: the "
            "ceiling. Of appearance, those that it is not learned from. Where animals are held out.",
            NOISY: f"The same with Gaussian noise, standard deviation {NOISE} of the range: the floor. By "
            "anatomy, with the masks of the scans without it.",
        },
    },
    "space": {
        "Description": "By what scans are compared; each feature on the training scans' scale.",
        "Levels": {
            "anatomy": "Volumes, shape, tissue contrast and texture, from scan and tissue masks.",
            "appearance": "Principal components of the lowest spatial frequencies, of training scans.",
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
    others: Mapping[str, tuple[np.ndarray, Sequence[str] | None]]


class Distribution(Question):
    """Do the synthetic scans, as a set, spread as real animals do?"""

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
    """Rows of group_distribution.tsv. UserError where there is no space to compare in."""
    rows, notes = [], scans.notes()
    for name, space in {"anatomy": _anatomy, "appearance": _appearance}.items():
        try:
            sets = space(scans)
        except UserError as error:
            notes.append(f"Not compared by {name}: {error}")
            continue
        for model, (features, animals) in sets.others.items():
            row = {"model": model, "space": name, "against": scans.against}
            rows.append(row | _compare(sets.real, features, sets.animals, animals, scans.seed))
    if not rows:
        raise UserError(" ".join(notes))
    return Answer({"distribution": rows}, notes)


def _anatomy(scans: Scans) -> _Sets:
    """Scans with masks, by `evaluation.features.ANATOMY`."""
    real = scans.segmented()
    sides = {"training": scans.study.training, "held-out": scans.study.held_out}
    parts = {side: [one for one in real if one[0] in set(animals_of(of))] for side, of in sides.items()}
    if not parts[scans.against] or not parts["training"]:
        raise UserError("The real scans have no masks.")
    made = {model: scans.segmented(model) for model in scans.cohorts}
    made = {model: found for model, found in made.items() if found}
    if not made:
        raise UserError("The synthetic scans have no masks.")
    features = {side: _features(found) for side, found in (parts | made).items() if found}
    if scans.against == "held-out":
        rng = np.random.default_rng(scans.seed)
        noisy = [(animal, with_noise(scan, rng), *more) for animal, scan, *more in parts["training"]]
        features = {REAL: features["training"], NOISY: _features(noisy)} | features
    return _sets("anatomy", scans, features, {side: [a for a, *_ in of] for side, of in parts.items()})


def _features(segmented: Sequence[tuple[Any, ...]]) -> np.ndarray:
    return np.stack([anatomy_features(*one) for _, *one in segmented])


def with_noise(scan: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """A scan (x, y, z) with as much noise as makes the floor, in its own range."""
    low, high = float(scan.min()), float(scan.max())
    return np.clip(scan + NOISE * (high - low) * rng.standard_normal(scan.shape, dtype=np.float32), low, high)


def _appearance(scans: Scans) -> _Sets:
    """All scans, by what is learned from training scans; the ceiling's are strangers to that, too."""
    animals = animals_of(scans.study.training)
    learned = np.ones(len(animals), bool)
    if scans.against == "held-out":
        own = units(animals, len(animals))
        order = np.random.default_rng(scans.seed).permutation(own.max() + 1)
        learned = np.isin(own, order[: max(round(LEARNED * len(order)), 3)])
    appearance = Appearance.fit(scans.training[learned])
    features = {"training": appearance(scans.training[learned])}
    features |= {model: appearance(cohort) for model, cohort in scans.synthetic.items()}
    others = [animal for animal, is_learned in zip(animals, learned, strict=True) if not is_learned]
    of = {"training": [animal for animal, is_learned in zip(animals, learned, strict=True) if is_learned]}
    if scans.against == "held-out" and scans.held_out is not None:
        features["held-out"], of["held-out"] = appearance(scans.held_out), animals_of(scans.study.held_out)
        if others:
            rng = np.random.default_rng(scans.seed)
            noisy = np.stack([with_noise(scan, rng) for scan in scans.training[~learned]])
            ceiling = {REAL: appearance(scans.training[~learned]), NOISY: appearance(noisy)}
            features = ceiling | features
    return _sets("appearance", scans, features, of, others)


def _sets(
    name: str,
    scans: Scans,
    features: Mapping[str, np.ndarray],
    animals: Mapping[str, Sequence[str]],
    ceiling: Sequence[str] | None = None,
) -> _Sets:
    """Put features on the training scans' scale; `ceiling`: the animals of REAL, default all for training."""
    names = list(ANATOMY) if name == "anatomy" else None
    others = {model: values for model, values in features.items() if model not in ("training", "held-out")}
    space = feature_space(name, features[scans.against], others, names, scale_by=features["training"])
    own = dict.fromkeys((REAL, NOISY), animals["training"] if ceiling is None else ceiling)
    found = {model: (values, own.get(model)) for model, values in space.synthetic.items()}
    return _Sets(space.real, animals[scans.against], found)


def _compare(
    real: np.ndarray,
    synthetic: np.ndarray,
    animals: Sequence[str],
    synthetic_animals: Sequence[str] | None,
    seed: int,
) -> dict[str, Any]:
    """All measures of one set in one space; None and a reason where one cannot be had."""
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
        again = kernel_mmd(real[i], synthetic[j], first[i], second[j], bandwidth=bandwidth, permutations=0)
        close = neighbourhoods(real[i], synthetic[j], first[i], k)
        return np.array([again.value, close.precision, close.recall, close.density, close.coverage])

    if bandwidth is not None and k is not None:
        for (name, (least, most)), low, high in zip(
            BOUNDS.items(), *jackknife(measures, first, second), strict=True
        ):
            row |= {f"{name}_low": number(max(low, least)), f"{name}_high": number(min(high, most))}
    ends = [f"{name}_{end}" for name in BOUNDS for end in ("low", "high")]
    missing: Mapping[str, Any] = dict.fromkeys(("mmd", "mmd_p", *names, *ends))
    return {**missing, **row, "frechet": frechet.value, "notes": " ".join(reasons) or None}
