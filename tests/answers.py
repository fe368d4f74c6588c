"""Made-up answers to the questions about a cohort, and the sections that show them."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from bids_alphagan.evaluation import QUESTIONS
from bids_alphagan.evaluation.question import Answer, Headline
from bids_alphagan.report.html import Section

LABELS = {"sigmarat2": "SigmaRat2"}
TWO = {**LABELS, "adni": "ADNI"}
NO_PICTURES = Path("none.npz")

Rows = list[dict[str, Any]]


def section(
    name: str, answer: Answer, labels: Mapping[str, str] = LABELS, pictures: Path = NO_PICTURES
) -> Section:
    """The section of a question, as the report has it."""
    question = QUESTIONS[name].load()
    view = question.view(answer, labels, pictures)
    return Section(name, QUESTIONS[name].title, view, question.template)


def headlines(answers: Mapping[str, Answer], model: str = "sigmarat2") -> list[Headline]:
    """The first five questions' answers in one line each, as in the report; those not in `answers` are not asked."""
    every = {name: answers.get(name) for name in QUESTIONS}
    names = [
        name
        for name in QUESTIONS
        if name in ("pairs", "distribution", "anatomy", "memorisation", "downstream")
    ]
    return [line for name in names for line in QUESTIONS[name].load().headlines(model, every)]


# Metrics of pairs


def metrics() -> Rows:
    """Three metrics of real scans and of two models, of which the second makes scans that are too alike."""
    rows = []
    for metric, direction, values in (
        ("MS-SSIM", "closer to real", (0.8, 0.7, 0.95)),
        ("NCC", "higher", (0.9, 0.5, 0.6)),
        ("MAE", "lower", (0.01, 0.02, 0.03)),
    ):
        for name, value in zip(("real", "sigmarat2", "adni"), values, strict=True):
            interval = {"value": value, "low": value - 0.012, "high": value + 0.012}
            against = "itself" if metric == "MS-SSIM" else "held-out"
            about = {"n": 9, "unit": "1", "against": against, "direction": direction}
            rows.append({"model": name, "metric": metric, **interval, **about})
    return rows


def pairs(rows: Rows | None = None, table2: Rows | None = None, notes: list[str] | None = None) -> Answer:
    tables = {"metrics": metrics() if rows is None else rows} | ({"table2": table2} if table2 else {})
    settings = {"protocol": "held-out", "pairs_per_scan": 100, "msssim_pairs_per_scan": 10}
    return Answer(tables, notes or [], settings)


# Whole cohorts


def cohort(name: str = "sub-01_bold", **changes: Any) -> dict[str, Answer]:
    """Distribution, anatomy and memorisation of SigmaRat2. changes: of the line of memorisation's summary."""
    spread = {"model": "sigmarat2", "space": "appearance", "against": "training", "mmd": 0.3, "mmd_p": 0.001}
    spread |= {"precision": 1.0, "recall": 0.5, "density": 0.9, "coverage": 0.8, "expected_coverage": 0.9}
    spread |= {"frechet": None, "n_real": 9, "n_real_animals": 4, "n_synthetic": 3}
    return {
        "distribution": Answer({"distribution": [spread]}, ["Only four animals."]),
        "anatomy": _anatomy(),
        "memorisation": _memorisation(name, **changes),
    }


def _anatomy() -> Answer:
    volumes = [{"brain": 2 + i, "gm": 1 + i, "wm": 0.5 + i, "csf": 0.2 + i} for i in range(3)]
    interval = {"effect": 0.4, "effect_low": -0.1, "effect_high": 0.9}
    interval |= {"spread_ratio": 0.6, "spread_ratio_low": None, "spread_ratio_high": None}
    moments = {"real_mean": 3.0, "real_sd": 1.0, "synthetic_mean": 3.0, "synthetic_sd": 1.0}
    rows = [
        {"model": "sigmarat2", "structure": structure, "against": "training", **moments, **interval}
        for structure in ("brain", "gm", "wm", "csf")
    ]
    return Answer({"anatomy": rows}, [], {"volumes": {"real": volumes, "sigmarat2": volumes}})


def _memorisation(name: str, **changes: Any) -> Answer:
    row = {"model": "sigmarat2", "nearest_scan": name, "similarity": 0.5, "ratio": 0.97, "mirrored": True}
    scans = [row | {"scan": f"s{i}", "p_adjusted": 1.0, "copy": i == 2} for i in range(3)]
    line = {"model": "sigmarat2", "n": 3, "copies": 0, "closer": 0.75, "closer_expected": 0.8}
    line |= {"closer_p": 0.6, "repetitions": 0, "distinct": 3, "notes": None} | changes
    more = {"sigmarat2": [2, 0], "zooms": [0.5, 0.5, 1.0]}
    return Answer({"memorisation": scans, "memorisation_summary": [line]}, [], more)


# The downstream experiment


def downstream(gain: float, resolved: str, text: str = "so it is", **changes: Any) -> Answer:
    """Real alone at a Dice of 0.8, and with synthetic scans `gain` more; global and GM, and a distance."""
    rows = []
    for arm, model, mean in (("r1", None, 0.8), ("r1+s1", "sigmarat2", 0.8 + gain)):
        for tissue, measure in (("global", "dice"), ("GM", "dice"), ("GM", "surface_distance")):
            against = {"compared_with": None, "gain": None, "gain_low": None, "gain_high": None}
            if model:
                ends = {"gain_low": gain - 0.01, "gain_high": gain + 0.01}
                against = {"compared_with": "r1", "gain": gain, **ends}
            numbers = {"mean": mean, "low": mean - 0.02, "high": mean + 0.02, "n_animals": 7, "n_seeds": 3}
            about = {"model": model, "arm": arm, "tissue": tissue, "measure": measure}
            rows.append({**about, **numbers, **against, "resolved": resolved if model else None})
    headline = {"arm": "r1+s1", "compared_with": "r1", "tissue": "global", "measure": "dice", "text": text}
    record = {
        "headline": headline,
        "sentences": [headline, {**headline, "tissue": "GM", "text": "of one tissue"}],
        "sizes": {"r1": [12, 0], "r1+s1": [12, 11]},
        "left_out": {},
        "settings": {"steps": 150, "residual_units": 2},
    } | changes
    return Answer({"downstream": rows}, [], {"models": {"sigmarat2": record}})
