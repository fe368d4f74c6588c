"""The quality measures of a segmented scan; `limits` says which values pass. Pure NumPy and SciPy.

A new measure is a function of `Masked` and an entry in MEASURES.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from scipy import ndimage

VOID = 0.25  # of the brain's median intensity; below it, a voxel inside the brain has no signal
# In brain widths, the cube root of its volume (12 mm in a rat): width of the rim around the brain, depth of the
# inner brain, and sigma of the Gaussian that separates fine detail.
RIM, INNER, DETAIL = 0.18, 0.16, 0.125


@dataclass(frozen=True)
class Masked:
    """A segmented scan, all arrays (x, y, z) on its grid.

    image: the scan, shading corrected. zooms: voxel sizes in mm. probseg: GM, WM, CSF in [0, 1]. dseg: 0 outside the
    brain, 1 GM, 2 WM, 3 CSF; the brain (dseg > 0) must not be empty. prior_dseg, template: the template's labels and
    image. prior: its GM, WM, CSF maps. foreground (bool, not empty): all voxels that the segmenter labelled as tissue,
    loose parts included.
    """

    image: np.ndarray
    zooms: np.ndarray
    probseg: Sequence[np.ndarray]
    dseg: np.ndarray
    prior_dseg: np.ndarray
    template: np.ndarray
    prior: Sequence[np.ndarray]
    foreground: np.ndarray

    @cached_property
    def brain(self) -> np.ndarray:
        return self.dseg > 0

    @cached_property
    def values(self) -> np.ndarray:
        """The brain's intensities (n,)."""
        return self.image[self.brain].astype(float)

    @cached_property
    def variance(self) -> float:
        """Of the brain's intensities, never 0."""
        return float(self.values.var()) + 1e-12

    @cached_property
    def tissues(self) -> list[np.ndarray]:
        """The intensities of GM, WM and CSF."""
        return [self.values[self.dseg[self.brain] == k] for k in (1, 2, 3)]

    @cached_property
    def inner(self) -> np.ndarray:
        """The brain without its outermost voxels."""
        return np.asarray(ndimage.binary_erosion(self.brain))

    @cached_property
    def width(self) -> float:
        """Cube root of the brain's volume, mm."""
        return float(self.brain.sum() * np.prod(self.zooms)) ** (1 / 3)

    @cached_property
    def deep(self) -> np.ndarray:
        """The brain deeper than INNER widths."""
        filled = ndimage.binary_fill_holes(self.brain)
        depth = ndimage.distance_transform_edt(filled, sampling=self.zooms)
        return np.asarray(depth > INNER * self.width)

    @cached_property
    def detail_sigma(self) -> np.ndarray:
        """Of the Gaussian that separates fine detail, voxels."""
        return DETAIL * self.width / self.zooms


@dataclass(frozen=True)
class Measure:
    """A measure: its function, description and unit, its bad side, and the smallest standard deviation to assume.

    The floor prevents limits that are too tight for few or very similar scans. If `relative`, the measure is a size:
    its logarithm is compared, and the floor is a fraction; else the floor is in the measure's own unit.
    """

    function: Callable[["Masked"], float]
    description: str
    unit: str
    bad: str  # 'low', 'high' or 'both'
    floor: float
    relative: bool = False

    @property
    def described(self) -> str:
        """The description with its unit."""
        return f"{self.description}, in {self.unit}" if self.unit else self.description


def _brain_volume(scan: Masked) -> float:
    return float(scan.brain.sum() * np.prod(scan.zooms) / 1000)


def _fraction(tissue: int) -> Callable[[Masked], float]:
    """The share of a tissue (0 GM, 1 WM, 2 CSF) in the brain."""
    return lambda scan: len(scan.tissues[tissue]) / len(scan.values)


def _prior_dice(scan: Masked) -> float:
    return float(np.mean([_dice(scan.dseg == k, scan.prior_dseg == k) for k in (1, 2, 3)]))


def _entropy(scan: Masked) -> float:
    p = np.stack([np.clip(tissue[scan.brain], 1e-6, 1) for tissue in scan.probseg])
    p /= p.sum(axis=0)
    return float(-(p * np.log2(p)).sum(axis=0).mean())


def _largest_component(scan: Masked) -> float:
    components = np.bincount(ndimage.label(scan.foreground)[0].ravel())[1:]
    return float(components.max() / components.sum())


def _template_correlation(scan: Masked) -> float:
    """Absolute value of Spearman's correlation: T1w templates and T2w scans correlate negatively."""
    ranks = (np.argsort(np.argsort(x)) for x in (scan.values, scan.template[scan.brain]))
    return _correlation(*ranks)


def _detail_correlation(scan: Masked) -> float:
    """Correlation of fine detail (ventricles, tracts etc.) with the template, without smooth shading."""
    images = (scan.image, scan.template)
    return _correlation(*((x - ndimage.gaussian_filter(x, scan.detail_sigma))[scan.deep] for x in images))


def _ventricle_contrast(scan: Masked) -> float:
    """How much brighter fine detail in the deep brain is for CSF than for WM in the template's maps.

    The coefficient of CSF in a linear regression on the maps, over the brain's mean; positive if the template's has the
    same sign (CSF is darker in T1w), and at least 0.001.
    """
    deep, sigma = scan.deep, scan.detail_sigma
    if deep.sum() < 3:
        return 1e-3
    share = ndimage.gaussian_filter(deep.astype(float), sigma) + 1e-6

    def detail(values: np.ndarray) -> np.ndarray:
        return np.asarray((values - ndimage.gaussian_filter(values * deep, sigma) / share)[deep])

    maps = np.stack([detail(np.asarray(scan.prior[k], float)) for k in (2, 1)], axis=1)
    images = (scan.image, scan.template)
    of_csf = [np.linalg.lstsq(maps, detail(np.asarray(x, float)), rcond=None)[0][0] for x in images]
    mean = abs(scan.image[scan.brain].mean()) + 1e-12
    return max(float(of_csf[0] * np.sign(of_csf[1]) / mean), 1e-3)


def _rim_contrast(scan: Masked) -> float:
    """The brain is surrounded by bone and fluid; a second head, blur or a wrong mask puts other tissue there."""
    rim = ndimage.distance_transform_edt(~scan.brain, sampling=scan.zooms) <= RIM * scan.width
    around = rim & ~scan.brain
    inside = float(scan.image[scan.brain].mean())
    outside = float(scan.image[around].mean()) if around.any() else 0.0
    return (inside - outside) / (abs(inside) + abs(outside) + 1e-12)


def _tissue_contrast(scan: Masked) -> float:
    mean = scan.values.mean()
    between = sum(len(part) * (part.mean() - mean) ** 2 for part in scan.tissues if len(part))
    return float(between / len(scan.values) / scan.variance)


def _roughness(scan: Masked) -> float:
    """The voxel minus the mean of its neighbours: white noise gives 1, a blurred image nearly 0."""
    if not scan.inner.any():
        return 0.0
    means = sum(ndimage.correlate1d(scan.image, [0.5, 0, 0.5], axis=axis) for axis in range(3)) / 3
    return float(((scan.image - means)[scan.inner] ** 2).mean()) * 6 / 7 / scan.variance


def _void_fraction(scan: Masked) -> float:
    inner = scan.image[scan.inner]
    return float((inner < VOID * np.median(scan.values)).mean()) if len(inner) else 1.0


def _dice(a: np.ndarray, b: np.ndarray) -> float:
    total = int(a.sum()) + int(b.sum())
    return 2 * int((a & b).sum()) / total if total else 1.0


def _correlation(a: np.ndarray, b: np.ndarray) -> float:
    """Absolute value of Pearson's correlation; 0 if one of the two does not vary."""
    a, b = (np.asarray(x, float) - np.mean(x) if len(x) else np.zeros(1) for x in (a, b))
    scale = float(np.sqrt((a**2).sum() * (b**2).sum()))
    return abs(float((a * b).sum()) / scale) if scale > 1e-12 else 0.0


MEASURES: dict[str, Measure] = {
    "brain_volume": Measure(_brain_volume, "volume of the brain mask", "mL", "both", 0.1, relative=True),
    "gm_fraction": Measure(_fraction(0), "share of grey matter in the brain", "", "both", 0.03),
    "wm_fraction": Measure(_fraction(1), "share of white matter in the brain", "", "both", 0.03),
    "csf_fraction": Measure(_fraction(2), "share of CSF in the brain", "", "both", 0.03),
    "prior_dice": Measure(_prior_dice, "Dice overlap with the template's warped tissues", "", "low", 0.03),
    "entropy": Measure(_entropy, "mean entropy of the tissue probabilities", "bits", "high", 0.04),
    "largest_component": Measure(
        _largest_component,
        "share of the tissues in their largest part, before the masks are cleaned",
        "",
        "low",
        0.01,
    ),
    "template_correlation": Measure(
        _template_correlation, "rank correlation with the warped template inside the brain", "", "low", 0.04
    ),
    "detail_correlation": Measure(
        _detail_correlation,
        "correlation with the warped template in the fine detail of the inner brain",
        "",
        "low",
        0.0145,
    ),
    "ventricle_contrast": Measure(
        _ventricle_contrast,
        "signal of the fluid within the brain where the template has it, in brain means",
        "",
        "low",
        0.15,
        relative=True,
    ),
    "rim_contrast": Measure(
        _rim_contrast,
        "contrast of the brain with what lies around it, (inside - outside) / (inside + outside)",
        "",
        "both",
        0.012,
    ),
    "tissue_contrast": Measure(
        _tissue_contrast,
        "share of the brain's variance explained by the tissues",
        "",
        "low",
        0.2,
        relative=True,
    ),
    "roughness": Measure(
        _roughness, "share of the brain's variance at the scale of a voxel", "", "both", 0.16, relative=True
    ),
    "void_fraction": Measure(_void_fraction, "share of the inner brain without signal", "", "high", 0.001),
}


def measure(
    image: np.ndarray,
    zooms: Sequence[float] | np.ndarray,
    probseg: Sequence[np.ndarray],
    dseg: np.ndarray,
    prior_dseg: np.ndarray,
    template: np.ndarray,
    prior: Sequence[np.ndarray] | None = None,
    foreground: np.ndarray | None = None,
) -> dict[str, float]:
    """Measure a segmentation (see `Masked`); the keys are those of MEASURES. All are finite if the image is.

    prior: by default the template's labels. foreground: by default the brain.
    """
    labels = prior or [(prior_dseg == k).astype(float) for k in (1, 2, 3)]
    voxels = dseg > 0 if foreground is None else foreground
    scan = Masked(image, np.asarray(zooms, float), probseg, dseg, prior_dseg, template, labels, voxels)
    return {name: what.function(scan) for name, what in MEASURES.items()}
