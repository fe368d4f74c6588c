"""Tissue segmentation: a scan on its own grid goes in, probability maps on that very grid come out."""

import logging
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from bids_alphagan.errors import UserError
from bids_alphagan.templates import Template

log = logging.getLogger(__name__)

TISSUES = ("GM", "WM", "CSF")  # the index in a dseg is the position plus one


@dataclass(frozen=True)
class Segmentation:
    """Masks of one scan, all of the scan's 3D shape.

    probseg: float32 in [0, 1] by tissue, their sum at most 1; brain: bool; dseg: uint8, 0 outside the brain,
    else 1 GM, 2 WM, 3 CSF; provenance: JSON-able; measures: see `bids_alphagan.quality.measure`.
    """

    probseg: dict[str, np.ndarray]
    brain: np.ndarray
    dseg: np.ndarray
    provenance: dict[str, Any]
    measures: dict[str, float] = field(default_factory=dict)


class Segmenter(Protocol):
    """Picklable. Called with a 3D (or x, y, z, 1) NIfTI of any orientation and a private, writable folder.

    Raises ScanError when this scan cannot be segmented.
    """

    name: str

    def describe(self) -> dict[str, Any]: ...

    def __call__(self, scan: Path, scratch: Path) -> Segmentation: ...


def label(probseg: dict[str, np.ndarray], brain: np.ndarray) -> np.ndarray:
    """The dseg: the most probable tissue inside the brain mask."""
    best = np.argmax([probseg[tissue] for tissue in TISSUES], axis=0).astype(np.uint8) + 1
    return np.where(brain, best, 0).astype(np.uint8)


def resolve_segmenter(
    choice: str, template: Template, spm_cmd: str | None = None, quick: bool = False, threads: int = 1
) -> Segmenter:
    """The segmenter for `choice`: 'auto' (SPM where it is found, else antspyx, said loudly), or a name.

    `quick` is for demonstrations: coarser and a few times faster. Raises UserError when SPM is asked for
    and not found, or when the name is unknown.
    """
    from bids_alphagan.segmenters.ants import DEMO, FULL, AntsSegmenter

    return AntsSegmenter(template, DEMO if quick else FULL, threads)
