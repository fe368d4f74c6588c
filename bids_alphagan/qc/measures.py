"""What is measured of a segmented scan. `qc.limits` says which values pass. Pure numpy and scipy."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import ndimage

VOID = 0.25  # of the brain's median intensity; below it, a voxel inside the brain has lost its signal
# In brain widths, the cube root of its volume (12 mm in a rat): how far around the brain the rim goes, how
# deep the inner brain lies, and the Gaussian that tells fine detail from what is smooth.
RIM, INNER, DETAIL = 0.18, 0.16, 0.125


@dataclass(frozen=True)
class Measure:
    """What a measure is, which side of it is bad, and the least standard deviation that is assumed.

    The floor keeps the limits of few or very similar scans from closing. Where `relative`, the measure is a
    size: it is judged by its logarithm, and the floor is a share; else it is in the measure's own unit.
    """

    description: str
    unit: str
    bad: str  # 'low', 'high' or 'both'
    floor: float
    relative: bool = False


MEASURES = {
    "brain_volume": Measure("volume of the brain mask", "mL", "both", 0.1, relative=True),
    "gm_fraction": Measure("share of grey matter in the brain", "", "both", 0.03),
    "wm_fraction": Measure("share of white matter in the brain", "", "both", 0.03),
    "csf_fraction": Measure("share of CSF in the brain", "", "both", 0.03),
    "prior_dice": Measure("Dice overlap with the template's warped tissues", "", "low", 0.03),
    "entropy": Measure("mean entropy of the tissue probabilities", "bits", "high", 0.04),
    "largest_component": Measure(
        "share of the tissues in their largest part, before the masks are cleaned", "", "low", 0.01
    ),
    "template_correlation": Measure(
        "rank correlation with the warped template inside the brain", "", "low", 0.04
    ),
    "detail_correlation": Measure(
        "correlation with the warped template in the fine detail of the inner brain", "", "low", 0.0145
    ),
    "ventricle_contrast": Measure(
        "signal of the fluid within the brain where the template has it, in brain means",
        "",
        "low",
        0.15,
        relative=True,
    ),
    "rim_contrast": Measure(
        "contrast of the brain with what lies around it, (inside - outside) / (inside + outside)",
        "",
        "both",
        0.012,
    ),
    "tissue_contrast": Measure(
        "share of the brain's variance explained by the tissues", "", "low", 0.2, relative=True
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
    prior: Sequence[np.ndarray] | None = None,
    found: np.ndarray | None = None,
) -> dict[str, float]:
    """Measure a segmentation; the keys are those of MEASURES.

    image (x, y, z): the scan, shading corrected; zooms: voxel sizes in mm; probseg: GM, WM, CSF in [0, 1];
    dseg: 0 outside the brain, 1 GM, 2 WM, 3 CSF; prior_dseg, template: the template's labels and image on the
    scan's grid; prior: its GM, WM, CSF maps there (default: the labels); found (bool, not empty): where the
    segmenter saw tissue, loose parts included (default: the brain). The brain (dseg > 0) must not be empty.
    Finite where the image is.
    """
    brain = dseg > 0
    prior = prior or [(prior_dseg == k).astype(float) for k in (1, 2, 3)]
    values = image[brain].astype(float)
    variance = float(values.var()) + 1e-12
    parts = [values[dseg[brain] == k] for k in (1, 2, 3)]
    gm, wm, csf = (len(part) / len(values) for part in parts)
    between = sum(len(part) * (part.mean() - values.mean()) ** 2 for part in parts if len(part)) / len(values)
    p = np.stack([np.clip(tissue[brain], 1e-6, 1) for tissue in probseg])
    p /= p.sum(axis=0)
    components = np.bincount(ndimage.label(brain if found is None else found)[0].ravel())[1:]
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
        "detail_correlation": _detail_correlation(image, template, brain, zooms),
        "ventricle_contrast": _ventricle_contrast(image, template, prior, brain, zooms),
        "rim_contrast": _rim_contrast(image, brain, zooms),
        "tissue_contrast": float(between / variance),
        "roughness": rough,
        "void_fraction": float((image[inner] < VOID * np.median(values)).mean()) if inner.any() else 1.0,
    }


def _dice(a: np.ndarray, b: np.ndarray) -> float:
    total = int(a.sum()) + int(b.sum())
    return 2 * int((a & b).sum()) / total if total else 1.0


def _rank_correlation(a: np.ndarray, b: np.ndarray) -> float:
    """Spearman's, its sign dropped: a T1w template and a T2w scan agree inversely."""
    return _correlation(*(np.argsort(np.argsort(x)) for x in (a, b)))


def _detail_correlation(
    image: np.ndarray, template: np.ndarray, brain: np.ndarray, zooms: Sequence[float] | np.ndarray
) -> float:
    """Ventricles, tracts and the like: what a scan shares with the template beside its smooth shading."""
    inner, sigma = _depth(brain, zooms)
    return _correlation(*((x - ndimage.gaussian_filter(x, sigma))[inner] for x in (image, template)))


def _ventricle_contrast(
    image: np.ndarray,
    template: np.ndarray,
    prior: Sequence[np.ndarray],
    brain: np.ndarray,
    zooms: Sequence[float] | np.ndarray,
) -> float:
    """How much brighter the deep brain's fine detail is for CSF in the template's maps, beside WM.

    The slope of a linear regression on the maps, over the brain's mean; positive where the template's own has
    the same sign (darker, in T1w), and at least 0.001.
    """
    inner, sigma = _depth(brain, zooms)
    if inner.sum() < 3:
        return 1e-3
    share = ndimage.gaussian_filter(inner.astype(float), sigma) + 1e-6

    def detail(values: np.ndarray) -> np.ndarray:
        return (values - ndimage.gaussian_filter(values * inner, sigma) / share)[inner]

    maps = np.stack([detail(np.asarray(prior[k], float)) for k in (2, 1)], axis=1)
    slopes = [
        np.linalg.lstsq(maps, detail(np.asarray(x, float)), rcond=None)[0][0] for x in (image, template)
    ]
    return max(float(slopes[0] * np.sign(slopes[1]) / (abs(image[brain].mean()) + 1e-12)), 1e-3)


def _depth(brain: np.ndarray, zooms: Sequence[float] | np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The inner brain, and the Gaussian (voxels) beside which its detail is seen."""
    width = _width(brain, zooms)
    deep = ndimage.distance_transform_edt(ndimage.binary_fill_holes(brain), sampling=zooms)
    return deep > INNER * width, DETAIL * width / np.asarray(zooms, float)


def _rim_contrast(image: np.ndarray, brain: np.ndarray, zooms: Sequence[float] | np.ndarray) -> float:
    """Around the brain lie bone and fluid; a second head, blur or a wrong mask brings other tissue there."""
    rim = ndimage.distance_transform_edt(~brain, sampling=zooms) <= RIM * _width(brain, zooms)
    inside = float(image[brain].mean())
    outside = float(image[rim & ~brain].mean()) if (rim & ~brain).any() else 0.0
    return (inside - outside) / (abs(inside) + abs(outside) + 1e-12)


def _width(brain: np.ndarray, zooms: Sequence[float] | np.ndarray) -> float:
    return float(brain.sum() * np.prod(zooms)) ** (1 / 3)


def _correlation(a: np.ndarray, b: np.ndarray) -> float:
    """Pearson's, its sign dropped; 0 where one of them does not vary."""
    a, b = (np.asarray(x, float) - np.mean(x) if len(x) else np.zeros(1) for x in (a, b))
    scale = float(np.sqrt((a**2).sum() * (b**2).sum()))
    return abs(float((a * b).sum()) / scale) if scale > 1e-12 else 0.0
