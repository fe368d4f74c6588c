"""The interface of segmenters, and what they share."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Protocol, Self

import numpy as np
from nibabel.orientations import apply_orientation, io_orientation, ornt_transform
from scipy import ndimage

from bids_alphagan.common.volume import load, tissue_labels
from bids_alphagan.qc.measures import measure
from bids_alphagan.segmenters.options import MaskOptions
from bids_alphagan.templates import Template

TISSUES = ("GM", "WM", "CSF")  # the index in a dseg is the position plus one


@dataclass(frozen=True)
class Segmentation:
    """Masks of one scan, all of the scan's 3D shape.

    probseg: float32 in [0, 1] by tissue, their sum at most 1; brain: bool; dseg: uint8, 0 outside the brain,
    else 1 GM, 2 WM, 3 CSF; provenance: JSON; measures: see `qc.measures.measure`; corrected: float32, the scan's
    own intensities without coil shading.
    """

    probseg: dict[str, np.ndarray]
    brain: np.ndarray
    dseg: np.ndarray
    provenance: dict[str, Any]
    measures: dict[str, float]
    corrected: np.ndarray | None = None


class Segmenter(Protocol):
    """A picklable callable. Takes a 3D (or x, y, z, 1) NIfTI of any orientation and a private, writable folder.

    Raises ScanError if this scan cannot be segmented.

    label: its printed name, as in `describe`. advice: what to do if it is missing. methods: how masks are made, for a
    manuscript, with {name}, {version} and {template}; citations as in `report.methods.compose`.
    """

    label: ClassVar[str]
    advice: ClassVar[str]
    methods: ClassVar[str]

    @classmethod
    def missing(cls, options: MaskOptions) -> str:
        """Why it cannot be used here, without a full stop; "" if it can. Raises UserError if it is broken."""
        ...

    @classmethod
    def create(cls, template: Template, options: MaskOptions, note: str = "") -> Self:
        """The segmenter for a template. note: recorded with its masks. Raises UserError as `missing` does."""
        ...

    @property
    def name(self) -> str: ...

    def memory_gb(self, voxels: int) -> float:
        """The most memory that one scan of so many voxels needs, GB, for scheduling."""
        ...

    def describe(self) -> dict[str, Any]:
        """Name, Version, Parameters, Template and Registration, as written to sidecars."""
        ...

    def __call__(self, scan: Path, scratch: Path) -> Segmentation: ...


def read_ras(scan: Path) -> tuple[np.ndarray, np.ndarray, Callable[[np.ndarray], np.ndarray]]:
    """Data (x, y, z) float32 and affine of a scan in RAS axes, and a function that turns arrays back.

    Otherwise N4's coarse grid and the simplex's rounding would depend on the order in which voxels are stored.
    """
    image = load(scan)
    orientation = io_orientation(image.affine)
    turned = image.as_reoriented(orientation)
    back = ornt_transform(io_orientation(turned.affine), orientation)
    data = np.asarray(turned.dataobj, dtype=np.float32, order="F").reshape(turned.shape[:3])
    return data, turned.affine, lambda values: np.ascontiguousarray(apply_orientation(values, back))


def finish(
    data: np.ndarray,
    affine: np.ndarray,
    maps: Mapping[str, np.ndarray],
    brain: np.ndarray,
    warped: Mapping[str, np.ndarray],
    provenance: dict[str, Any],
    back: Callable[[np.ndarray], np.ndarray],
) -> Segmentation:
    """Scale tissue maps (x, y, z) so that they sum to at most 1, label the brain's voxels and measure the result.

    warped: the template's own maps and its anatomical image ('template') on the scan's grid. brain: may be cleaner
    than the maps, whose loose parts are measured. All are in RAS; `back` turns the result to the stored orientation.
    """
    total = np.sum([maps[tissue] for tissue in TISSUES], axis=0)
    probseg = {t: np.asarray(maps[t] / np.maximum(total, 1), dtype=np.float32) for t in TISSUES}
    dseg = tissue_labels(probseg, brain)
    measures = measure(
        data,
        np.linalg.norm(affine[:3, :3], axis=0),
        [probseg[tissue] for tissue in TISSUES],
        dseg,
        prior_dseg=tissue_labels(warped, warped["brain"] > 0.5),
        template=warped["template"],
        prior=[warped[tissue] for tissue in TISSUES],
        foreground=total > 0.5,
    )
    stored = {tissue: back(values) for tissue, values in probseg.items()}
    return Segmentation(stored, back(brain), back(dseg), provenance, measures, back(data))


def largest_component(mask: np.ndarray) -> np.ndarray:
    """The largest 6-connected component of a mask."""
    numbered, count = ndimage.label(mask)
    return mask if count < 2 else numbered == 1 + np.argmax(np.bincount(numbered.ravel())[1:])
