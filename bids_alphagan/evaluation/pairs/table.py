"""Pairs of synthetic and real scans, by metric (metrics.METRICS), with a floor and a ceiling."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from bids_alphagan.bids.split import animals_of
from bids_alphagan.bids.study import Study
from bids_alphagan.evaluation.bootstrap import MIN_INTERVAL, mean_over_pairs, small_sample_warning
from bids_alphagan.evaluation.pairs import section
from bids_alphagan.evaluation.pairs.metrics import METRICS, Metric
from bids_alphagan.evaluation.question import Answer, Columns, Question
from bids_alphagan.evaluation.scans import NOISE, NOISY, REAL, Scans

FIRST = ("MS-SSIM", "NCC", "MAE", "RMSE", "PSNR", "MMD")


class Pairs(Question):
    """How similar are single synthetic and real scans, and how similar are the scans of a set?"""

    version = 2
    depends = ("compared", "held out", "seed", "version")
    content = ("compared",)
    options = ("protocol", "held_out", "pairs_per_scan", "msssim_pairs_per_scan")
    template = "evaluation/pairs/section.html.j2"
    optional = False

    def columns(self) -> Mapping[str, Columns]:
        return {"metrics": columns_sidecar(), "table2": paper_columns()}

    def facts(self, scans: Scans) -> dict[str, Any]:
        # Records of the first six metrics have the version alone.
        return {} if tuple(METRICS) == FIRST else {"version": [self.version, *METRICS]}

    def answer(self, scans: Scans, settings: Mapping[str, Any]) -> Answer:
        training = RealScans(scans.training, animals_of(scans.study.training))
        held = scans.held_out
        reference = None if held is None else RealScans(held, animals_of(scans.study.held_out))
        rows = evaluate(
            training,
            reference,
            scans.synthetic,
            protocol=settings["protocol"],
            pairs_per_scan=settings["pairs_per_scan"],
            msssim_pairs_per_scan=settings["msssim_pairs_per_scan"],
            seed=scans.seed,
            device=scans.device,
        )
        tables = {"metrics": rows}
        if settings["protocol"] == "paper":
            tables["table2"] = paper_table(rows)
        return Answer(tables, notes(training, reference), dict(settings))

    def view(self, answer: Answer, labels: Mapping[str, str], pictures: Path) -> Mapping[str, Any]:
        return section.view(answer, labels, columns_sidecar()["metric"]["Levels"])

    def methods(self, answer: Answer, study: Study) -> str:
        return "" if answer.reason else section.methods(answer, len(set(animals_of(study.held_out))))


@dataclass(frozen=True)
class RealScans:
    """Scans (n, x, y, z) float32 in [0, 1], and the animal of each."""

    scans: np.ndarray
    animals: Sequence[str]


@dataclass(frozen=True)
class _Set:
    """Scans on the device; `animals` as in RealScans; each synthetic scan is an animal of its own."""

    name: str
    scans: Tensor
    animals: Sequence[str]


def evaluate(
    training: RealScans,
    held_out: RealScans | None,
    synthetic: Mapping[str, np.ndarray],
    *,
    protocol: str,
    pairs_per_scan: int,
    msssim_pairs_per_scan: int,
    seed: int,
    device: str = "cpu",
) -> list[dict[str, Any]]:
    """Compare synthetic sets with real scans, pair by pair.

    protocol "held-out": pairs between sets are with the held-out animals (with the training scans if there are
    none), of different animals. The model "real" is the training scans in place of synthetic ones: the values of
    other animals, the ceiling. "real+noise" is the same with Gaussian noise, a tenth of the range: the floor.
    protocol "paper": all real scans are in `training`, pairs are any two scans, as in Table 2 of
    Ferreira et al. 2022; the model "real" compares the real set with itself, never a scan with itself.

    Pairs are drawn without repetition: `pairs_per_scan` (paper: 100) times n for the metrics between sets, n
    the number of training scans; `msssim_pairs_per_scan` (paper: 10) times n for those within a set; all
    pairs if there are fewer. Sets of equal size are compared on equal pairs.

    Parameters
    ----------
    synthetic: per model (m, x, y, z) float32 in [0, 1].
    seed: of the draw, the noise and the bootstrap.
    device: torch's name of the device; the sets must fit into its memory.

    Returns
    -------
    One row per metric and set, real ones first, with the keys of `columns_sidecar`.

    Source: Ferreira et al. 2022, section 3 and Table 2 (doi 10.3390/app12104844).
    """
    paper = protocol == "paper"
    real = other = _Set(REAL, torch.from_numpy(training.scans).to(device), training.animals)
    if held_out:
        other = _Set("held-out", torch.from_numpy(held_out.scans).to(device), held_out.animals)
    sets = [real] if paper else [real, _noisy(real, seed)]
    for model, scans in synthetic.items():
        labels = [f"{model} {i}" for i in range(len(scans))]
        sets.append(_Set(model, torch.from_numpy(scans).to(device), labels))
    rows = []
    for metric in METRICS.values():
        n_pairs = len(training.scans) * (msssim_pairs_per_scan if metric.within else pairs_per_scan)
        for scan_set in sets:
            against = scan_set if metric.within else other
            rows.append(_row(metric, scan_set, against, n_pairs, len(training.scans), paper, seed))
    return rows


def notes(training: RealScans, held_out: RealScans | None) -> list[str]:
    """Limitations of the results of `evaluate` by the numbers of animals, as text."""
    sides = [(held_out, "held-out animals"), (training, "training animals")]
    warnings = [small_sample_warning(len(set(side.animals)), of) for side, of in sides if side]
    return [note for note in warnings if note][:1]  # the reference set comes first


def _noisy(real: _Set, seed: int) -> _Set:
    """A copy with noise, of the same animals, so that none is compared with itself."""
    noise = np.random.default_rng(seed).standard_normal(tuple(real.scans.shape), dtype=np.float32)
    noisy = (real.scans + NOISE * torch.from_numpy(noise).to(real.scans.device)).clamp(0, 1)
    return _Set(NOISY, noisy, real.animals)


def _row(
    metric: Metric, scan_set: _Set, against: _Set, n_pairs: int, n_scans: int, paper: bool, seed: int
) -> dict[str, Any]:
    """One metric of one set, within it if `against` is the same set."""
    within = against is scan_set
    second = None if within else against.animals
    pairs = draw_pairs(scan_set.animals, second, n_pairs, seed, apart=not paper)
    with torch.inference_mode():
        on_device = torch.from_numpy(pairs).to(scan_set.scans.device)
        values = metric.on_pairs(scan_set.scans, against.scans, on_device).cpu().numpy()
    interval = mean_over_pairs(values, pairs, scan_set.animals, second, seed=seed)
    low, high = (None if np.isnan(bound) else bound for bound in (interval.low, interval.high))
    passes = [values[i : i + n_scans].mean() for i in range(0, len(values) - n_scans + 1, n_scans)]
    return {
        "model": scan_set.name,
        "metric": metric.name,
        "against": "itself" if metric.within else "training" if against.name == REAL else against.name,
        "value": float(values.mean()) if len(values) else None,
        "low": low,
        "high": high,
        "sd": float(values.std(ddof=1)) if len(values) > 1 else None,
        "sd_passes": float(np.std(passes, ddof=1)) if len(passes) > 1 else None,
        "n": len(values),
        "unit": metric.unit,
        "direction": metric.direction,
    }


def draw_pairs(
    first: Sequence[str], second: Sequence[str] | None, n_pairs: int, seed: int, apart: bool = True
) -> np.ndarray:
    """Draw pairs of scans at random, without repetition.

    Parameters
    ----------
    first, second: the animal of each scan of two sets; `second` None for unordered pairs of different scans
        of one set.
    n_pairs: number of pairs; all of them if there are fewer.
    apart: leave out pairs of two scans of one animal.

    Returns
    -------
    (n, 2) indices into the first and the second set, in random order.
    """
    a, b = np.asarray(first), np.asarray(first if second is None else second)
    if second is None:
        every = np.stack(np.triu_indices(len(a), k=1), axis=1)
    else:
        every = np.indices((len(a), len(b))).reshape(2, -1).T
    if apart:
        every = every[a[every[:, 0]] != b[every[:, 1]]]
    return np.random.default_rng(seed).permutation(every)[:n_pairs]


def paper_table(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Table 2 of Ferreira et al. 2022: a row per set, mean and standard deviation of passes as text."""
    table: dict[str, dict[str, Any]] = {}
    for row in rows:
        spread = "" if row["sd_passes"] is None else f" ± {row['sd_passes']:.4g}"
        line = table.setdefault(row["model"], {"model": row["model"]})
        line[row["metric"]] = None if row["value"] is None else f"{row['value']:.4g}{spread}"
    return list(table.values())


def paper_columns() -> dict[str, Any]:
    """Describe the columns of `paper_table`, in the form of a BIDS sidecar."""
    spread = (
        "Mean over pairs ± standard deviation of the means of passes (as sd_passes in group_metrics.tsv)."
    )
    metrics = {m.name: f"{m.label}. {_pairing(m)} {spread} {m.reference}" for m in METRICS.values()}
    units = {m.name: {} if m.unit == "1" else {"Units": m.unit} for m in METRICS.values()}
    described = {name: {"Description": text, **units[name]} for name, text in metrics.items()}
    return {"model": columns_sidecar()["model"], **described}


def columns_sidecar() -> dict[str, Any]:
    """Describe the columns of group_metrics.tsv, in the form of a BIDS sidecar."""
    return {
        "model": {
            "Description": "The origin of the scans.",
            "Levels": {
                REAL: "No model: training scans in place of synthetic ones, the values of other animals.",
                NOISY: f"Training scans with Gaussian noise, standard deviation {NOISE} of the range.",
            },
        },
        "metric": {
            "LongName": "Metric",
            "Description": "The quantity computed for each pair of scans, with intensities in [0, 1].",
            "Levels": {m.name: f"{m.label}. {_pairing(m)} {m.reference}" for m in METRICS.values()},
        },
        "against": {
            "Description": "The other scans of the pairs.",
            "Levels": {
                "held-out": "Animals that no model was trained on.",
                "training": "The training scans: a model that copies them scores best.",
                "itself": "Pairs within the model's own scans, which measure their diversity.",
            },
        },
        "value": {"Description": "Mean over pairs of scans, drawn at random without repetition."},
        "low": {
            "Description": "Lower bound of the value's 95 % interval: bootstrap over animals. n/a with "
            f"fewer than {MIN_INTERVAL}."
        },
        "high": {"Description": "Upper bound of that interval."},
        "sd": {
            "Description": "Sample standard deviation over the pairs. Pairs share scans, so it describes "
            "the spread and is not a standard error."
        },
        "sd_passes": {
            "Description": "Standard deviation of the means of passes of as many pairs as there are training "
            "scans: as in the paper. It decreases with the number of scans and does not describe other animals."
        },
        "n": {"LongName": "Number of pairs", "Description": "Number of pairs of scans compared."},
        "unit": {"Description": "Unit of value and sd; 1 for a pure number."},
        "direction": {
            "Description": "Which values are better.",
            "Levels": {
                "higher": "The higher, the better, up to the value of the model 'real'.",
                "lower": "The lower, the better, down to the value of the model 'real'.",
                "closer to real": "The closer to the value of the model 'real', the better.",
            },
        },
    }


def _pairing(metric: Metric) -> str:
    return "Pairs within one set." if metric.within else "Pairs of a real and a synthetic scan."
