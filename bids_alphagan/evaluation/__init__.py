"""The paper's quantitative evaluation: what each metric is (METRICS), and its value per model (evaluate)."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from bids_alphagan.evaluation.distribution import linear_mmd
from bids_alphagan.evaluation.similarity import mean_absolute_error, ms_ssim, normalised_cross_correlation

REAL = "real"
BATCH = 8  # pairs at a time: 64x64x40 voxels keep MS-SSIM under about 200 MB


@dataclass(frozen=True)
class Metric:
    """A number that compares pairs of scans, and all that a table, sidecar or report says about it.

    Attributes
    ----------
    name: as in the column ``metric``.
    label: the name in full.
    unit: of the value; "1" for a pure number.
    direction: which value is better: "higher", "lower" or "closer to real" (to the real set's own value).
    reference: the source, with its DOI.
    within: True when pairs are drawn within one set (a measure of its diversity), False when each pair is
        a real and a synthetic scan.
    function: (b, x, y, z) and (b, x, y, z) in [0, 1] to (b,).
    """

    name: str
    label: str
    unit: str
    direction: str
    reference: str
    within: bool
    function: Callable[[Tensor, Tensor], Tensor]


METRICS: dict[str, Metric] = {
    "MS-SSIM": Metric(
        name="MS-SSIM",
        label="Multi-scale structural similarity within a set",
        unit="1",
        direction="closer to real",
        reference="Wang, Simoncelli and Bovik 2003, doi:10.1109/ACSSC.2003.1292216",
        within=True,
        function=ms_ssim,
    ),
    "NCC": Metric(
        name="NCC",
        label="Normalised cross-correlation",
        unit="1",
        direction="higher",
        reference="Ferreira et al. 2022, doi:10.3390/app12104844",
        within=False,
        function=normalised_cross_correlation,
    ),
    "MAE": Metric(
        name="MAE",
        label="Mean absolute error",
        unit="1",
        direction="lower",
        reference="Ferreira et al. 2022, doi:10.3390/app12104844",
        within=False,
        function=mean_absolute_error,
    ),
    "MMD": Metric(
        name="MMD",
        label="Squared maximum mean discrepancy, linear kernel on voxels",
        unit="1",
        direction="lower",
        reference="Kwon et al. 2019, doi:10.1007/978-3-030-32248-9_14",
        within=False,
        function=linear_mmd,
    ),
}


def evaluate(
    real: np.ndarray,
    synthetic: Mapping[str, np.ndarray],
    *,
    pairs_per_scan: int,
    msssim_pairs_per_scan: int,
    seed: int,
) -> list[dict[str, Any]]:
    """Compare synthetic sets with the real set, as in Table 2 of Ferreira et al. 2022.

    Pairs are drawn at random without repetition: `pairs_per_scan` (paper: 100) times n real/synthetic pairs
    for the metrics between sets, `msssim_pairs_per_scan` (paper: 10) times n pairs for those within a set,
    or all pairs where there are fewer. Sets of equal size are compared on equal pairs. The model "real"
    compares the real set with itself, never a scan with itself: the value that real scans reach.

    Parameters
    ----------
    real: (n, x, y, z) float32 in [0, 1].
    synthetic: per model (m, x, y, z) float32 in [0, 1].
    seed: of the draw.

    Returns
    -------
    One row per metric and set, the real set first, with the keys model, metric, value (mean over pairs), sd
    (sample standard deviation over pairs; these share scans, so it is the spread and no standard error),
    n (pairs), unit, direction. value is None where a set has no pair, sd where it has only one.
    In the paper, sd is over the means of 100 passes through the data set, hence far smaller.

    Source: Ferreira et al. 2022, section 3 and Table 2 (doi 10.3390/app12104844).
    """
    sets = {REAL: real, **synthetic}
    rows = []
    for metric in METRICS.values():
        wanted = len(real) * (msssim_pairs_per_scan if metric.within else pairs_per_scan)
        for model, scans in sets.items():
            within = metric.within or model == REAL
            pairs = draw_pairs(len(scans), None if within else len(real), wanted, seed)
            values = _compare(metric, scans, scans if within else real, pairs)
            rows.append(
                {
                    "model": model,
                    "metric": metric.name,
                    "value": float(values.mean()) if len(values) else None,
                    "sd": float(values.std(ddof=1)) if len(values) > 1 else None,
                    "n": len(values),
                    "unit": metric.unit,
                    "direction": metric.direction,
                }
            )
    return rows


def draw_pairs(first: int, second: int | None, wanted: int, seed: int) -> np.ndarray:
    """Draw pairs of indices at random, no pair twice.

    Parameters
    ----------
    first, second: sizes of the two sets; `second` None for unordered pairs of different members of one set.
    wanted: number of pairs; all of them where there are fewer.

    Returns
    -------
    (n, 2) indices into the first and the second set.
    """
    if second is None:
        every = np.stack(np.triu_indices(first, k=1), axis=1)
    else:
        every = np.indices((first, second)).reshape(2, -1).T
    chosen = np.random.default_rng(seed).permutation(len(every))[:wanted]
    return every[np.sort(chosen)]


def _compare(metric: Metric, first: np.ndarray, second: np.ndarray, pairs: np.ndarray) -> np.ndarray:
    """The metric on each pair: (n,) float64."""
    values = [np.empty(0)]
    with torch.inference_mode():
        for start in range(0, len(pairs), BATCH):
            a, b = pairs[start : start + BATCH].T
            values.append(
                metric.function(torch.from_numpy(first[a]), torch.from_numpy(second[b])).double().numpy()
            )
    return np.concatenate(values)


def columns_sidecar() -> dict[str, Any]:
    """Describe the columns of group_metrics.tsv, in the form of a BIDS sidecar."""
    return {
        "model": {
            "Description": "Model that made the scans. 'real' compares different real scans with each other: "
            "new animals would score about that."
        },
        "metric": {
            "LongName": "Metric",
            "Description": "What was computed for each pair of scans, intensities in [0, 1].",
            "Levels": {m.name: f"{m.label}. {_pairing(m)} {m.reference}" for m in METRICS.values()},
        },
        "value": {"Description": "Mean over pairs of scans, drawn at random without repetition."},
        "sd": {
            "Description": "Sample standard deviation over the pairs. Pairs share scans, so it describes "
            "the spread and is not a standard error."
        },
        "n": {"LongName": "Number of pairs", "Description": "Number of pairs of scans compared."},
        "unit": {"Description": "Unit of value and sd; 1 for a pure number."},
        "direction": {
            "Description": "Which values are better.",
            "Levels": {
                "higher": "The higher, the better.",
                "lower": "The lower, the better.",
                "closer to real": "The closer to the value of the model 'real', the better.",
            },
        },
    }


def _pairing(metric: Metric) -> str:
    return "Pairs within one set." if metric.within else "Pairs of a real and a synthetic scan."
