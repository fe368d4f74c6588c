"""The gate: what is measured of a segmented scan, and which values a data set's real scans allow.

Pure numpy and scipy. The paper discarded by hand what SPM failed on; here a scan passes when every measure
lies within limits that are drawn from the real scans by robust statistics.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy import ndimage

VOID = 0.25  # of the brain's median intensity; below it, a voxel inside the brain has lost its signal


@dataclass(frozen=True)
class Measure:
    """What a measure is, which side of it is bad, and the least standard deviation that is assumed.

    The floor keeps the limits of few or very similar scans from closing: it is a share of the median where
    `relative`, else in the measure's own unit.
    """

    description: str
    unit: str
    bad: str  # 'low', 'high' or 'both'
    floor: float
    relative: bool = False


MEASURES = {
    "brain_volume": Measure("volume of the brain mask", "mL", "both", 0.06, relative=True),
    "gm_fraction": Measure("share of grey matter in the brain", "", "both", 0.03),
    "wm_fraction": Measure("share of white matter in the brain", "", "both", 0.03),
    "csf_fraction": Measure("share of CSF in the brain", "", "both", 0.03),
    "prior_dice": Measure("Dice overlap with the template's warped tissues", "", "low", 0.03),
    "entropy": Measure("mean entropy of the tissue probabilities", "bits", "high", 0.04),
    "largest_component": Measure("share of the brain mask in its largest part", "", "low", 0.01),
    "template_correlation": Measure(
        "rank correlation with the warped template inside the brain", "", "low", 0.04
    ),
    "tissue_contrast": Measure(
        "share of the brain's variance explained by the tissues", "", "low", 0.1, relative=True
    ),
    "roughness": Measure(
        "share of the brain's variance at the scale of a voxel", "", "both", 0.16, relative=True
    ),
    "void_fraction": Measure("share of the inner brain without signal", "", "high", 0.001),
}
DESCRIPTIONS = {
    name: f"{measure.description}, in {measure.unit}" if measure.unit else measure.description
    for name, measure in MEASURES.items()
}


def measure(
    image: np.ndarray,
    zooms: Sequence[float] | np.ndarray,
    probseg: Sequence[np.ndarray],
    dseg: np.ndarray,
    prior_dseg: np.ndarray,
    template: np.ndarray,
) -> dict[str, float]:
    """Measure a segmentation; the keys are those of MEASURES.

    image (x, y, z): the scan, shading corrected; zooms: voxel sizes in mm; probseg: GM, WM, CSF in [0, 1];
    dseg: 0 outside the brain, 1 GM, 2 WM, 3 CSF; prior_dseg, template: the template's labels and image on the
    scan's grid. The brain (dseg > 0) must not be empty.
    """
    brain = dseg > 0
    values = image[brain].astype(float)
    variance = float(values.var()) + 1e-12
    parts = [values[dseg[brain] == k] for k in (1, 2, 3)]
    gm, wm, csf = (len(part) / len(values) for part in parts)
    between = sum(len(part) * (part.mean() - values.mean()) ** 2 for part in parts if len(part)) / len(values)
    p = np.stack([np.clip(tissue[brain], 1e-6, 1) for tissue in probseg])
    p /= p.sum(axis=0)
    components = np.bincount(ndimage.label(brain)[0].ravel())[1:]
    inner = ndimage.binary_erosion(brain)
    # The neighbours' mean against the voxel itself: white noise gives 1, a blurred image nearly 0.
    detail = image - (sum(ndimage.correlate1d(image, [0.5, 0, 0.5], axis=axis) for axis in range(3)) / 3)
    rough = float((detail[inner] ** 2).mean()) * 6 / 7 / variance if inner.any() else 0.0
    return {
        "brain_volume": float(brain.sum() * np.prod(zooms) / 1000),
        "gm_fraction": gm,
        "wm_fraction": wm,
        "csf_fraction": csf,
        "prior_dice": float(np.mean([_dice(dseg == k, prior_dseg == k) for k in (1, 2, 3)])),
        "entropy": float(-(p * np.log2(p)).sum(axis=0).mean()),
        "largest_component": float(components.max() / components.sum()),
        "template_correlation": _rank_correlation(values, template[brain]),
        "tissue_contrast": float(between / variance),
        "roughness": rough,
        "void_fraction": float((image[inner] < VOID * np.median(values)).mean()) if inner.any() else 1.0,
    }


def thresholds(
    real: Iterable[Mapping[str, float]], width: float
) -> dict[str, tuple[float | None, float | None]]:
    """Lowest and highest acceptable value of each measure (None: no limit), from the real scans' measures.

    median +- width * max(1.4826 * MAD, floor), with each measure's floor in MEASURES.
    """
    rows = list(real)
    if not rows:
        return {}
    limits: dict[str, tuple[float | None, float | None]] = {}
    for name, what in MEASURES.items():
        values = np.array([row[name] for row in rows])
        median = float(np.median(values))
        floor = what.floor * (abs(median) if what.relative else 1)
        reach = width * max(1.4826 * float(np.median(np.abs(values - median))), floor)
        low, high = median - reach, median + reach
        limits[name] = (low if what.bad != "high" else None, high if what.bad != "low" else None)
    return limits


def check(
    measures: Mapping[str, float], limits: Mapping[str, tuple[float | None, float | None]]
) -> list[str]:
    """Reasons why a scan does not pass, in plain words; none when it passes."""
    reasons = []
    for name, (low, high) in limits.items():
        value, what = measures[name], MEASURES[name]
        unit = f" {what.unit}" if what.unit else ""
        if not np.isfinite(value):
            reasons.append(f"{what.description} is not a number")
        elif low is not None and value < low:
            reasons.append(f"{what.description} is low: {value:.3g}{unit}, at least {low:.3g} in real scans")
        elif high is not None and value > high:
            reasons.append(f"{what.description} is high: {value:.3g}{unit}, at most {high:.3g} in real scans")
    return reasons


def _dice(a: np.ndarray, b: np.ndarray) -> float:
    total = int(a.sum()) + int(b.sum())
    return 2 * int((a & b).sum()) / total if total else 1.0


def _rank_correlation(a: np.ndarray, b: np.ndarray) -> float:
    """Spearman's, its sign dropped: a T1w template and a T2w scan agree inversely."""
    ranks = [np.argsort(np.argsort(x)).astype(float) for x in (a, b)]
    return abs(float(np.corrcoef(ranks[0], ranks[1])[0, 1])) if len(a) > 1 else 0.0
