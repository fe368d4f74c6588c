"""Feature spaces, without downloads, in which sets of scans are compared.

`anatomy_features` needs tissue masks, `Appearance` only the scans; a trained encoder's features or any other
(n, d) array are used in the same way, through `feature_space`, which gives all features one scale.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy import fft, ndimage

from bids_alphagan.common.errors import UserError
from bids_alphagan.evaluation.anatomy.measures import TISSUES, tissue_volumes
from bids_alphagan.evaluation.distribution.measures import check_features

SURROUND = 2.0  # mm
TAPER = 1.5  # mm; voxels within half of it from the brain's border get no weight
SLABS = ("posterior", "middle", "anterior")
ANATOMY: dict[str, tuple[str, str]] = {
    "brain_volume": ("mL", "volume of the brain"),
    **{f"{t}_volume": ("mL", f"volume of {t.upper()}") for t in TISSUES},
    "brain_width": ("mm", "standard deviation of the brain's voxels from left to right"),
    "brain_length": ("mm", "the same from back to front"),
    "brain_height": ("mm", "the same from bottom to top"),
    "asymmetry": ("1", "distance of the brain's mean from its median plane over its width"),
    **{
        f"{t}_fraction_{slab}": ("1", f"share of {t.upper()} in the {slab} third of the brain's voxels")
        for slab in SLABS
        for t in TISSUES
    },
    **{f"{t}_intensity": ("1", f"mean of {t.upper()} over the mean of the brain") for t in TISSUES},
    **{
        f"{t}_spread": ("1", f"standard deviation in {t.upper()} over the mean of the brain") for t in TISSUES
    },
    "gm_wm_contrast": ("1", "difference of GM and WM means over their pooled standard deviation"),
    "csf_gm_contrast": ("1", "difference of CSF and GM means over their pooled standard deviation"),
    "surround_intensity": ("1", "mean of the 2 mm around the brain over the mean of the brain"),
    "gradient": ("1/mm", "mean length of the gradient in the brain over the mean of the brain"),
    "roughness": ("1", "share of the brain's variance that the mean of the neighbours does not explain"),
    "spectral_slope": ("1", "slope of log power over log frequency, in the brain"),
}
"""Name of each anatomical feature: unit, description. The order is that of `anatomy_features`."""


def anatomy_features(scan: np.ndarray, dseg: np.ndarray, zooms: Sequence[float] | np.ndarray) -> np.ndarray:
    """Volumes, shape, tissue positions, contrast and texture of a scan: (len(ANATOMY),) in their units.

    NaN if a feature is undefined, such as the intensity of an absent tissue; `feature_space` replaces it by the real
    scans' median, and the tissue's volume shows the absence.

    Parameters
    ----------
    scan: (x, y, z), in RAS order (back to front is the second axis), any intensities of positive mean.
    dseg: (x, y, z) 0 outside the brain, 1 GM, 2 WM, 3 CSF.
    zooms: voxel sizes in mm.

    Raises
    ------
    UserError: shapes differ, or there is no brain.
    """
    scan, zooms = np.asarray(scan, float), np.asarray(zooms, float)
    brain = dseg > 0
    if scan.shape != dseg.shape or not brain.any():
        raise UserError(
            f"A scan of {scan.shape} voxels with masks of {dseg.shape}, {int(brain.sum())} of them in the "
            "brain: scan and masks must have one grid, and the brain must not be empty."
        )
    features = {f"{name}_volume": value for name, value in tissue_volumes(dseg, zooms).items()}
    features |= _shape(dseg, zooms) | _contrast(scan, dseg) | _texture(scan, brain, zooms)
    return np.array([features[name] for name in ANATOMY])


def _shape(dseg: np.ndarray, zooms: np.ndarray) -> dict[str, float]:
    """Size, asymmetry and tissue fractions in thirds of the brain (of the brain, not of the grid)."""
    positions = np.argwhere(dseg > 0) * zooms
    tissue = dseg[dseg > 0]
    spread = positions.std(axis=0)
    features = dict(zip(("brain_width", "brain_length", "brain_height"), map(float, spread), strict=True))
    middle = np.median(positions[:, 0])
    features["asymmetry"] = float((positions[:, 0].mean() - middle) / spread[0]) if spread[0] > 0 else 0.0
    order = np.argsort(positions[:, 1], kind="stable")
    for slab, part in zip(SLABS, np.array_split(order, len(SLABS)), strict=True):
        for name, label in TISSUES.items():
            share = float((tissue[part] == label).mean()) if len(part) else float("nan")
            features[f"{name}_fraction_{slab}"] = share
    return features


def _contrast(scan: np.ndarray, dseg: np.ndarray) -> dict[str, float]:
    brain = scan[dseg > 0]
    mean = brain.mean() if brain.mean() > 0 else float("nan")
    parts = {name: scan[dseg == label] for name, label in TISSUES.items()}
    features = {}
    for name, part in parts.items():
        features[f"{name}_intensity"] = float(part.mean() / mean) if len(part) else float("nan")
        features[f"{name}_spread"] = float(part.std() / mean) if len(part) else float("nan")
    for first, second in (("gm", "wm"), ("csf", "gm")):
        a, b = parts[first], parts[second]
        pooled = np.sqrt((a.var() + b.var()) / 2) if len(a) and len(b) else 0.0
        features[f"{first}_{second}_contrast"] = (
            float((a.mean() - b.mean()) / pooled) if pooled > 0 else float("nan")
        )
    return features


def _texture(scan: np.ndarray, brain: np.ndarray, zooms: np.ndarray) -> dict[str, float]:
    """Surround, gradient, roughness and spectrum of the brain, without an influence of other tissue."""
    values = scan[brain]
    mean, variance = values.mean(), values.var()
    mean = mean if mean > 0 else float("nan")
    around = (ndimage.distance_transform_edt(~brain, sampling=zooms) <= SURROUND) & ~brain
    slopes = [np.gradient(scan, zoom, axis=axis) for axis, zoom in enumerate(zooms) if scan.shape[axis] > 1]
    length = np.sqrt(sum(slope**2 for slope in slopes))
    inner = ndimage.binary_erosion(brain)
    smooth = sum(ndimage.correlate1d(scan, [0.5, 0, 0.5], axis=axis) for axis in range(3)) / 3
    rough = ((scan - smooth)[inner] ** 2).mean() / variance if inner.any() and variance > 0 else np.nan
    return {
        "surround_intensity": float(scan[around].mean() / mean) if around.any() else float("nan"),
        "gradient": float(length[inner].mean() / mean) if inner.any() else float("nan"),
        "roughness": float(rough),
        "spectral_slope": _spectral_slope((scan - values.mean()) * _taper(brain, zooms), zooms),
    }


def _taper(brain: np.ndarray, zooms: np.ndarray) -> np.ndarray:
    """A weight from 0 outside the brain to 1 deep inside, because a sharp edge would have its own spectrum."""
    depth = ndimage.distance_transform_edt(np.pad(brain, 1), sampling=zooms)[1:-1, 1:-1, 1:-1]
    return np.asarray(np.sin(np.pi / 2 * np.clip(depth / TAPER - 0.5, 0, 1)) ** 2)


def _spectral_slope(image: np.ndarray, zooms: np.ndarray) -> float:
    """Slope of log10 power over log10 frequency between 1 / 8 mm and the coarsest axis' Nyquist frequency."""
    power = np.abs(fft.fftn(image)) ** 2
    axes = [fft.fftfreq(n, zoom) for n, zoom in zip(image.shape, zooms, strict=True)]
    radius = np.sqrt(sum(axis**2 for axis in np.ix_(*axes)))
    inside = (radius >= 1 / 8) & (radius <= 0.5 / zooms.max()) & (power > 0)
    edges = np.geomspace(1 / 8, 0.5 / zooms.max(), 9)
    number = np.digitize(radius[inside], edges)
    bands = [(number == i) for i in np.unique(number) if (number == i).sum() >= 3]
    if len(bands) < 3:
        return float("nan")
    x = [np.log10(radius[inside][band].mean()) for band in bands]
    y = [np.log10(power[inside][band].mean()) for band in bands]
    return float(np.polyfit(x, y, 1)[0])


@dataclass(frozen=True)
class Appearance:
    """The coarse appearance of scans, without masks: principal components of the training scans.

    A scan's lowest spatial frequencies (a cosine transform of the field of view) are projected on the principal
    components of those of the training scans. It is fitted to training scans only, so that held-out and synthetic
    scans are equally new to it.

    mean: (f,), components: (d, f), explained: the share of the training scans' variance per component, (d,).
    """

    frequencies: tuple[int, int, int]
    mean: np.ndarray
    components: np.ndarray
    explained: np.ndarray

    @classmethod
    def fit(
        cls,
        training: np.ndarray,
        components: int | None = None,
        frequencies: tuple[int, int, int] = (8, 8, 8),
    ) -> "Appearance":
        """Fit to training scans (n, x, y, z) in [0, 1].

        components: default a third of the scans, at most 16, because those of few scans are random.
        frequencies: number of cosines along each axis, at most its number of voxels.

        Raises
        ------
        UserError: fewer than three scans, or scans that are all equal.
        """
        if len(training) < 3:
            raise UserError(
                f"{len(training)} training scans are too few to learn the appearance of scans: it needs 3."
            )
        low = _low_frequencies(training, frequencies)
        mean = low.mean(axis=0)
        _, lengths, directions = np.linalg.svd(low - mean, full_matrices=False)
        real = int((lengths > 1e-6 * max(float(np.abs(low).max()), 1e-12)).sum())
        if not real:
            raise UserError("The training scans are all equal, so that appearance cannot be compared.")
        d = min(components or min(max(len(training) // 3, 1), 16), real)
        explained = lengths**2 / (lengths**2).sum()
        return cls(frequencies, mean, directions[:d], explained[:d])

    def __call__(self, scans: np.ndarray) -> np.ndarray:
        """Features (n, d) of scans (n, x, y, z)."""
        return (_low_frequencies(scans, self.frequencies) - self.mean) @ self.components.T


def _low_frequencies(scans: np.ndarray, frequencies: tuple[int, int, int]) -> np.ndarray:
    """(n, f) lowest coefficients of an orthonormal DCT-II, divided by the root of the number of voxels.

    The squared distance between two scans' coefficients is the mean squared difference of their coarse parts.
    """
    whole = fft.dctn(np.asarray(scans, float), axes=(1, 2, 3), norm="ortho")
    a, b, c = frequencies
    return whole[:, :a, :b, :c].reshape(len(scans), -1) / np.sqrt(np.prod(scans.shape[1:]))


@dataclass(frozen=True)
class FeatureSpace:
    """Sets of scans in one feature space, on the real set's scale.

    real: (n, d). synthetic: per model (m, d). names: of the d features. dropped: features without variation in the
    scaling set, which therefore have no scale.
    """

    name: str
    names: tuple[str, ...]
    real: np.ndarray
    synthetic: dict[str, np.ndarray]
    dropped: tuple[str, ...]


def feature_space(
    name: str,
    real: np.ndarray,
    synthetic: Mapping[str, np.ndarray],
    names: Sequence[str] | None = None,
    scale_by: np.ndarray | None = None,
) -> FeatureSpace:
    """Put features on one scale: minus the real set's median, over its robust standard deviation.

    That is 1.4826 times the median absolute deviation, or the plain standard deviation if that is 0 (for
    features with mostly one value). Undefined values (NaN) become 0, the median.

    Parameters
    ----------
    real: (n, d). synthetic: per model (m, d), of `anatomy_features`, `Appearance` or a trained encoder.
    names: of the features; default "name 1", "name 2", ...
    scale_by: the set that gives median and spread; default `real`.

    Raises
    ------
    UserError: the sets have different features, or infinite ones; no feature varies in the real set.
    """
    like = real if scale_by is None else scale_by
    labels = np.array(names if names is not None else [f"{name} {i + 1}" for i in range(real.shape[-1])])
    check_features(
        *(np.where(np.isnan(features), 0.0, features) for features in (real, like, *synthetic.values()))
    )
    finite = [column[np.isfinite(column)] for column in np.asarray(like, float).T]
    middle = np.array([np.median(column) if len(column) else 0.0 for column in finite])
    mads = [1.4826 * np.median(np.abs(c - m)) if len(c) else 0.0 for c, m in zip(finite, middle, strict=True)]
    sds = [column.std(ddof=1) if len(column) > 1 else 0.0 for column in finite]
    spread = np.where(np.array(mads) > 0, mads, sds)
    kept = spread > 1e-9 * np.maximum(np.abs(middle), 1e-9)
    if not kept.any():
        raise UserError(
            f"No feature of '{name}' varies over the real scans, so that sets cannot be compared by it."
        )

    def scaled(values: np.ndarray) -> np.ndarray:
        return np.nan_to_num((np.asarray(values, float)[:, kept] - middle[kept]) / spread[kept], nan=0.0)

    models = {model: scaled(values) for model, values in synthetic.items()}
    return FeatureSpace(name, tuple(labels[kept]), scaled(real), models, tuple(labels[~kept]))
