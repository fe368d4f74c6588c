"""From Dice per scan to gains with intervals over animals, and sentences on which gains are resolved."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from itertools import product
from typing import Any, NamedTuple

import numpy as np
from scipy import stats

from bids_alphagan.bids.names import TISSUES
from bids_alphagan.evaluation.bootstrap import MIN_INTERVAL
from bids_alphagan.evaluation.downstream.arms import Arm, references
from bids_alphagan.evaluation.downstream.measures import GLOBAL

LEVEL = 0.95
RESAMPLES = 10_000
# By chance, all of n animals agree on the sign of a gain in 2 of 2^n cases: 1 in 16 for five animals.
MIN_RESOLVED = 6
LEAST_DICE = 0.3  # with real scans alone; below it a network has hardly learned a tissue


class Measure(NamedTuple):
    """label: in a sentence. unit: as in the table. sign: of an improvement. more, less: words for a gain and a loss."""

    label: str
    unit: str
    sign: int
    more: str
    less: str


MEASURES = {
    "dice": Measure("Dice", "1", 1, "higher", "lower"),
    "surface_distance": Measure("surface distance (mm)", "mm", -1, "smaller", "larger"),
}


class Interval(NamedTuple):
    """low, high: both None if there are too few values."""

    low: float | None
    high: float | None

    @property
    def excludes_0(self) -> bool:
        return self.low is not None and self.high is not None and not self.low <= 0 <= self.high


def over_animals(values: Sequence[float], seed: int = 0) -> Interval:
    """95 % bootstrap interval of the mean of one value per animal; animals are drawn with replacement.

    The expanded percentile interval of Hesterberg 2015 (doi 10.1080/00031305.2015.1089789): percentile
    intervals of few values are too narrow, so the percentiles are expanded to those with which a normal
    distribution gives the t interval. For three values that is their range.
    """
    sample = np.asarray(values, dtype=np.float64)
    n = len(sample)
    if n < MIN_INTERVAL:
        return Interval(None, None)
    drawn = np.random.default_rng(seed).integers(n, size=(RESAMPLES, n))
    far = np.sqrt(n / (n - 1)) * stats.t.ppf((1 + LEVEL) / 2, n - 1)
    low, high = np.quantile(sample[drawn].mean(axis=1), [stats.norm.cdf(-far), stats.norm.cdf(far)])
    return Interval(float(low), float(high))


def over_seeds(values: Sequence[float]) -> Interval:
    """95 % t interval of the mean of one value per seed, which covers other trainings."""
    n = len(values)
    if n < 2:
        return Interval(None, None)
    half = stats.t.ppf((1 + LEVEL) / 2, n - 1) * float(np.std(values, ddof=1)) / np.sqrt(n)
    return Interval(float(np.mean(values)) - half, float(np.mean(values)) + half)


def table(rows: Sequence[Mapping[str, Any]], arm: str, tissue: str, measure: str) -> dict[str, np.ndarray]:
    """Each animal's values by seed, the mean over its scans: {animal: (seeds,)}.

    Animals whose truth lacks the tissue are left out.
    """
    by_animal: dict[str, dict[int, list[float]]] = defaultdict(lambda: defaultdict(list))
    for row in rows:
        if row["arm"] == arm and row["tissue"] == tissue and row[measure] is not None:
            by_animal[row["animal"]][row["seed"]].append(row[measure])
    return {
        animal: np.array([np.mean(by_seed[seed]) for seed in sorted(by_seed)])
        for animal, by_seed in sorted(by_animal.items())
    }


def summarise(rows: Sequence[Mapping[str, Any]], arms: Sequence[Arm]) -> list[dict[str, Any]]:
    """Mean and gain of each arm, tissue and measure, with intervals; columns as in `summary_columns`.

    Seeds are averaged within an animal first; the intervals are over animals, paired. A gain is resolved
    if its intervals over animals and over seeds both exclude 0 and there are at least `MIN_RESOLVED` animals; an
    interval over animals alone cannot distinguish a better training set from a lucky training.
    """
    pairs: list[tuple[Arm, Arm | None]] = []
    for arm in arms:
        pairs += [pair for pair in references(arms) if pair[0] == arm] or [(arm, None)]
    summary = []
    for (arm, other), measure, tissue in product(pairs, MEASURES, (GLOBAL, *TISSUES)):
        values = table(rows, arm.name, tissue, measure)
        if values:
            compared = table(rows, other.name, tissue, measure) if other else None
            about = {"arm": arm.name, "tissue": tissue, "measure": measure, "unit": MEASURES[measure].unit}
            summary.append({**about, **_numbers(values), **_gain(values, compared, other, measure)})
    return summary


def _numbers(values: Mapping[str, np.ndarray]) -> dict[str, Any]:
    means = [float(of_animal.mean()) for of_animal in values.values()]
    interval = over_animals(means)
    seeds = len(next(iter(values.values())))
    numbers: dict[str, Any] = {"n_animals": len(values), "n_seeds": seeds}
    return numbers | {"mean": float(np.mean(means)), "low": interval.low, "high": interval.high}


def _gain(
    values: Mapping[str, np.ndarray],
    compared: Mapping[str, np.ndarray] | None,
    other: Arm | None,
    measure: str,
) -> dict[str, Any]:
    if compared is None or other is None:
        keys = ("compared_with", "gain", "gain_low", "gain_high", "gain_low_seeds", "gain_high_seeds")
        return dict.fromkeys((*keys, "resolved"))
    sign = MEASURES[measure].sign
    gains = np.stack([sign * (values[animal] - compared[animal]) for animal in values])
    animals, seeds = over_animals(gains.mean(axis=1).tolist()), over_seeds(gains.mean(axis=0).tolist())
    resolved = animals.excludes_0 and seeds.excludes_0 and len(values) >= MIN_RESOLVED
    return {
        "compared_with": other.name,
        "gain": float(gains.mean()),
        "gain_low": animals.low,
        "gain_high": animals.high,
        "gain_low_seeds": seeds.low,
        "gain_high_seeds": seeds.high,
        "resolved": "yes" if resolved else "no",
    }


def headline(arms: Sequence[Arm]) -> Arm:
    """The arm whose gain over real scans alone leads the report, whatever the result.

    All real scans and as many synthetic ones without augmentation, or the nearest to it among `arms`.
    """
    with_synthetic = [arm for arm in arms if arm.synthetic]
    return min(
        with_synthetic, key=lambda arm: (1 - arm.real, arm.augment, abs(arm.synthetic - 1), arm.synthetic)
    )


def sentences(summary: Sequence[Mapping[str, Any]], arms: Sequence[Arm]) -> list[dict[str, str]]:
    """A plain sentence ("text") for each gain, with its arm, compared_with, tissue and measure."""
    labels = {arm.name: arm.label for arm in arms}
    return [
        {key: row[key] for key in ("arm", "compared_with", "tissue", "measure")}
        | {"text": sentence(row, labels[row["arm"]], labels[row["compared_with"]])}
        for row in summary
        if row["gain"] is not None
    ]


def hardly_learned(summary: Sequence[Mapping[str, Any]], steps: int) -> list[str]:
    """A note if the networks trained on all real scans alone hardly find a tissue; else empty.

    summary: of `summarise`. steps: of each network.
    """
    alone = {row["tissue"]: row["mean"] for row in summary if (row["arm"], row["measure"]) == ("r1", "dice")}
    names = {GLOBAL: "all tissues together"}
    poor = [f"{names.get(t, t)} ({mean:.3f})" for t, mean in alone.items() if mean < LEAST_DICE]
    if not poor:
        return []
    return [
        f"Networks trained on real scans alone hardly find {', '.join(poor)}: a Dice below "
        f"{LEAST_DICE} after {steps} steps. Their gains and losses from synthetic scans mean little. Give "
        "more --downstream-steps."
    ]


def sentence(row: Mapping[str, Any], label: str, other: str) -> str:
    """A sentence on whether a gain is resolved, and why not.

    row: of `summarise`, with a gain. label, other: of the compared arms.
    """
    measure = MEASURES[row["measure"]]
    gain, ends = row["gain"], [row["gain_low"], row["gain_high"]]
    word = measure.more if gain >= 0 else measure.less
    if gain < 0:
        gain, ends = -gain, [-end if end is not None else None for end in reversed(ends)]
    tissue = "overall" if row["tissue"] == GLOBAL else row["tissue"]
    interval = " [{:.3f}, {:.3f}]".format(*ends) if None not in ends else ""
    start = (
        f"Trained on {label}, the network's {tissue} {measure.label} is {gain:.3f}{interval} {word} than on "
    )
    return f"{start}{other}: {_verdict(row)}."


def _verdict(row: Mapping[str, Any]) -> str:
    animals, seeds = f"{row['n_animals']} animals", f"{row['n_seeds']} seeds"
    if row["resolved"] == "yes":
        return f"resolved with {animals} and {seeds}"
    if row["n_animals"] >= MIN_INTERVAL and not Interval(row["gain_low"], row["gain_high"]).excludes_0:
        return f"the interval includes 0, not resolved with {animals}"
    if row["n_animals"] < MIN_RESOLVED:
        return f"{animals} are too few to resolve any gain; {MIN_RESOLVED} are needed"
    if row["n_seeds"] < 2:
        return "not resolved, because a single training of each may be luck"
    return f"not resolved, because trainings differ as much between seeds ({seeds})"


def summary_columns() -> dict[str, Any]:
    """Describe the columns of `summarise`, in the form of a BIDS sidecar."""
    tissues = {tissue: f"{tissue} alone" for tissue in TISSUES} | {
        GLOBAL: "All three, weighted by their voxels"
    }
    interval = "95 % bootstrap interval over animals, seeds averaged first (Hesterberg 2015, "
    interval += "doi:10.1080/00031305.2015.1089789)"
    return {
        "arm": {
            "LongName": "Training set",
            "Description": "r: share of the real training animals. s: synthetic scans for each scan of all "
            "real training animals. a: conventional augmentation. r1+s0.5 is all real scans and half as many "
            "synthetic ones. All arms get the same number of optimisation steps.",
        },
        "tissue": {"Description": "The segmented tissue.", "Levels": tissues},
        "measure": {"Description": "The measured quantity.", "Levels": measure_levels()},
        "unit": {"Description": "Unit of mean, gain and their intervals; 1 for a pure number."},
        "n_animals": {"Description": "Number of held-out real animals."},
        "n_seeds": {"Description": "Number of trainings, averaged within each animal."},
        "mean": {"Description": "Mean over animals."},
        "low": {"Description": f"Lower end of the mean's {interval}."},
        "high": {"Description": f"Upper end of the mean's {interval}."},
        "compared_with": {"Description": "The arm with which the gain compares."},
        "gain": {
            "Description": "Mean over animals of the difference from the compared arm, in the same animal "
            "and seed; above 0 is better, for distances too."
        },
        "gain_low": {"Description": f"Lower end of the gain's {interval}, paired."},
        "gain_high": {"Description": f"Upper end of the gain's {interval}, paired."},
        "gain_low_seeds": {"Description": "Lower end of the gain's 95 % t interval over seeds."},
        "gain_high_seeds": {"Description": "Upper end of the gain's 95 % t interval over seeds."},
        "resolved": {
            "Description": f"yes: both intervals of the gain exclude 0, with {MIN_RESOLVED} animals or more. "
            "Intervals are not widened for the number of comparisons in the table."
        },
    }


def scan_columns() -> dict[str, Any]:
    """Describe the columns of the table of scans, in the form of a BIDS sidecar."""
    shared = summary_columns()
    levels = measure_levels()
    return {
        "arm": shared["arm"],
        "seed": {"Description": "Seed of the network's weights, the choice of scans and their order."},
        "animal": {"Description": "Label of the held-out animal."},
        "scan": {"Description": "Name of its scan."},
        "tissue": shared["tissue"],
        "dice": {"Description": levels["dice"]},
        "surface_distance": {"Description": levels["surface_distance"], "Units": "mm"},
    }


def measure_levels() -> dict[str, str]:
    """Description of the measures, by column."""
    return {
        "dice": "Dice overlap with the scan's own masks: 2 |A and B| / (|A| + |B|). 1 if they agree.",
        "surface_distance": "Average symmetric surface distance, mm: the mean distance between the "
        "surfaces. If nothing of the tissue is found, the scan's diagonal.",
    }
