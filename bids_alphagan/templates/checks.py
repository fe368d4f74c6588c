"""Checks that a template's parts fit together and show a rodent's brain in true size.

Volumes are in mL. The brain of an adult rat weighs about 1.8 g, that of a mouse 0.4 g (Herculano-Houzel et al. 2006,
doi:10.1073/pnas.0604911103, Table 1); the brain mask of the SIGMA rat template (Barrière et al. 2019,
doi:10.1038/s41467-019-13575-7), CSF included, has 2.3 mL.
"""

import logging
from pathlib import Path
from typing import NamedTuple

import numpy as np

from bids_alphagan.common.errors import UserError
from bids_alphagan.templates.grids import difference, open_image, same_grid
from bids_alphagan.templates.names import LABELS, Parts

log = logging.getLogger(__name__)

RAT, MOUSE = "rattus norvegicus", "mus musculus"
COMMON = {RAT: "rat", MOUSE: "mouse"}
EXPECTED = {RAT: (1.0, 3.2), MOUSE: (0.3, 0.7)}  # mL; outside, a warning: pups, or a part of the brain
POSSIBLE = 0.2, 5.0  # mL; outside, an error
ENLARGED = 10  # times in each dimension, to match SPM's human scale

ROUNDING = 0.01  # interpolated maps may leave [0, 1] by this much
SAMPLES = 2_000_000  # voxels at which maps and mask are compared; finer templates are subsampled
OUTSIDE = 0.5  # smallest share of a tissue inside the brain mask
MIRRORED = 0.1  # a gain of this share by a flip means that the map is flipped
COVERED = 0.3  # smallest mean of GM + WM + CSF in the brain
FULL, CROWDED = 1.2, 0.05  # GM + WM + CSF may exceed the first in at most the second share of the brain


class Volumes(NamedTuple):
    """Volumes in mL: of the brain mask, and the integrals of the tissue probabilities."""

    brain: float
    gm: float
    wm: float
    csf: float


def check(parts: Parts, species: str | None, remedy: str) -> Volumes:
    """Check a template's parts and measure them.

    Only one image is in memory at a time. `species` as in TemplateFlow, lower case. Raises UserError, with `remedy` if
    a file is damaged: a part is unreadable, not 3D, all zero or not finite; grids or orientations differ; the mask
    has several labels; maps are not probabilities, sum to more than 1, or lie outside the mask or flipped in it; the
    brain has an impossible size. An unlikely size for the species is only a warning.
    """
    first = open_image(parts["t2w"], remedy)
    for part in LABELS:
        image = open_image(parts[part], remedy)
        if not same_grid(image, first):
            raise UserError(
                f"The grid of {parts[part]} differs from that of {parts['t2w']}: {difference(image, first)}"
            )
    millilitres = abs(float(np.linalg.det(first.affine[:3, :3]))) / 1000
    _read(parts["t2w"], remedy)

    brain = _read_brain(parts["brain_mask"], remedy)
    brain_volume = float(brain.sum()) * millilitres
    _check_size(parts["brain_mask"], brain_volume, species)
    step = max(1, int(np.ceil((brain.size / SAMPLES) ** (1 / 3))))
    thin = (slice(None, None, step),) * 3
    brain = brain[thin].copy()

    tissues, total = [], np.zeros(brain.shape, dtype=np.float32)
    for tissue in ("gm", "wm", "csf"):
        data = _read(parts[tissue], remedy)
        _check_probability(parts[tissue], float(data.min()), float(data.max()))
        tissues.append(float(data.sum(dtype=np.float64)) * millilitres)
        data = data[thin].copy()
        _check_place(parts[tissue], data, brain)
        total += data
    _check_total(total[brain])
    return Volumes(brain_volume, *tissues)


def _read(path: Path, remedy: str) -> np.ndarray:
    try:
        data = np.asarray(open_image(path).dataobj, dtype=np.float32)
    except Exception as error:  # nibabel, zlib and the file system each raise their own
        raise UserError(f"{path} is damaged: it cannot be read completely ({error}). {remedy}") from error
    low, high = data.min(), data.max()  # NaN if any voxel is
    if not np.isfinite([low, high]).all() or (low == 0 and high == 0):
        raise UserError(f"{path} must hold finite values that are not all zero.")
    return data.reshape(data.shape[:3])


def _read_brain(path: Path, remedy: str) -> np.ndarray:
    """The mask as booleans; of a probability map, voxels of at least 0.5."""
    mask = _read(path, remedy)
    low, high = float(mask.min()), float(mask.max())
    binary = not ((mask > ROUNDING * high) & (mask < (1 - ROUNDING) * high)).any()
    if low < -ROUNDING or (not binary and high > 1 + ROUNDING):
        raise UserError(
            f"{path} is not a brain mask: it has several values from {low:g} to {high:g}. Give 1 in the "
            "brain and 0 outside, or a probability from 0 to 1."
        )
    brain: np.ndarray = mask >= (high / 2 if binary else 0.5)
    return brain


def _check_probability(path: Path, low: float, high: float) -> None:
    if low >= -ROUNDING and high <= 1 + ROUNDING:
        return
    advice = "Give probabilities from 0 to 1."
    if low >= -ROUNDING and 2 < high <= 100.5:
        advice = "They look like percentages: divide them by 100."
    elif low >= -ROUNDING and 100.5 < high <= 255.5:
        advice = "They look like probabilities stored as 0 to 255: divide them by 255."
    elif high <= 2 and low >= -1:
        advice = "Interpolation may have overshot: clip them to 0 and 1."
    raise UserError(f"{path} is not a probability map: its values range from {low:g} to {high:g}. {advice}")


def _check_place(path: Path, data: np.ndarray, brain: np.ndarray) -> None:
    """A map must lie in the brain mask, and no flip may make it fit better."""
    whole = float(data.sum(dtype=np.float64))

    def inside(axes: tuple[int, ...]) -> float:
        return float(np.flip(data, axes)[brain].sum(dtype=np.float64)) / max(whole, 1e-12)

    share = inside(())
    flips = ((0,), (1,), (2,), (0, 1), (0, 2), (1, 2), (0, 1, 2)) if share < 1 - MIRRORED else ()
    better = max(flips, key=inside, default=())
    if inside(better) > share + MIRRORED:
        axes = " and ".join("xyz"[axis] for axis in better)
        raise UserError(
            f"{path} seems to be flipped along its {axes}: {share:.0%} of the tissue lies in the brain mask, "
            f"{inside(better):.0%} would if it were flipped back. Look at map and mask in a viewer, and "
            "correct the wrong one."
        )
    if share < OUTSIDE:
        raise UserError(
            f"{path} hardly overlaps the brain mask: {share:.0%} of the tissue lies in it. Look at both in a "
            "viewer: they must show the same brain at the same position."
        )


def _check_total(total: np.ndarray) -> None:
    """`total`: GM + WM + CSF at each voxel of the brain."""
    crowded = float((total > FULL).mean())
    if crowded > CROWDED:
        raise UserError(
            f"GM + WM + CSF is more than {FULL:g} in {crowded:.0%} of the brain, up to {total.max():.2f}. "
            "The three must add up to 1: is one of them a mask, or a map of the whole brain?"
        )
    if total.mean() < COVERED:
        raise UserError(
            f"GM, WM and CSF together fill only {total.mean():.0%} of the brain mask. Does the mask belong "
            "to this template?"
        )


def _check_size(path: Path, volume: float, species: str | None) -> None:
    smallest, largest = POSSIBLE
    true_size = volume / ENLARGED**3
    if smallest <= true_size <= largest and species in (None, *EXPECTED):
        raise UserError(
            f"The brain in {path} has {volume:.0f} mL: it seems to be enlarged {ENLARGED} times in each "
            f"dimension, as for SPM, from {true_size:.2f} mL. Make a copy in true size and use it: "
            "bids-alphagan-template TEMPLATE --shrink NEWDIR"
        )
    if not smallest <= volume <= largest:
        raise UserError(
            f"The brain in {path} has {volume:.3g} mL, but a rat's has about 1.5 to 3 and a mouse's 0.4 to "
            "0.5. Is it a rodent's brain, and is the voxel size in its header in mm?"
        )
    low, high = EXPECTED.get(species or RAT, POSSIBLE)
    if low <= volume <= high:
        return
    other = next((kind for kind, (a, b) in EXPECTED.items() if a <= volume <= b and kind != species), None)
    advice = f' If it is a {COMMON[other]}\'s, put {{"Species": "{other}"}} into ' if other else ""
    log.warning(
        "The brain in %s has %.2f mL, but that of an adult %s has %g to %g.%s",
        path,
        volume,
        COMMON[species] if species else "rat (no species is given)",
        low,
        high,
        advice and f"{advice}template_description.json beside it.",
    )
