"""Segmentation without SPM: a template's probability maps, registered to the scan with antspyx."""

from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np

from bids_alphagan.common.errors import ScanError
from bids_alphagan.segmenters.base import (
    TISSUES,
    Segmentation,
    finish,
    largest_component,
    read_ras,
)
from bids_alphagan.segmenters.folders import private_folder
from bids_alphagan.segmenters.intensities import REFINEMENT, refine
from bids_alphagan.segmenters.options import MaskOptions
from bids_alphagan.segmenters.registration import DEMO, FULL, HOW, Effort, fine_template, register
from bids_alphagan.templates import Template


@dataclass(frozen=True)
class AntsSegmenter:
    """Template maps by N4, pose, affine and SyN (doi:10.1016/j.media.2007.06.004) inside the brain.

    The scan's intensities then correct the tissue borders (`intensities.refine`). For a given number of threads, the
    same scan always gives the same arrays.
    """

    template: Template
    effort: Effort = FULL
    threads: int = 1
    note: str = ""
    name: str = "ants"
    label: ClassVar[str] = "antspyx"
    advice: ClassVar[str] = "Install antspyx"
    methods: ClassVar[str] = (
        "with {name} {version} [@ants]: after bias correction [@n4], the template {template} was registered to "
        "the scan by an affine and a symmetric diffeomorphic transform [@syn], which brought its tissue "
        "probability maps to the scan's own grid, where the scan's intensities moved the tissues' borders"
    )

    @classmethod
    def missing(cls, options: MaskOptions) -> str:
        return ""

    @classmethod
    def create(cls, template: Template, options: MaskOptions, note: str = "") -> Self:
        return cls(template, DEMO if options.quick else FULL, options.threads, note)

    def memory_gb(self, voxels: int) -> float:
        """GB; measured 0.5 for 64x64x40 voxels, 0.9 for 112x112x88 (benchmarks/masks.py fit --grid fine)."""
        return 0.5 + 0.7e-6 * voxels

    def describe(self) -> dict[str, Any]:
        return {
            "Name": self.label,
            "Version": version("antspyx"),
            "Parameters": asdict(self.effort),
            "Template": self.template.name,
            "Registration": HOW,
            "Refinement": REFINEMENT,
            **({"Note": self.note} if self.note else {}),
        }

    def __call__(self, scan: Path, scratch: Path) -> Segmentation:
        with private_folder(scratch) as folder:
            return self._segment(scan, folder)

    def _segment(self, scan: Path, scratch: Path) -> Segmentation:
        data, affine, back = read_ras(scan)
        registration = register(self.template, data, affine, self.effort, self.threads, scan, scratch)
        warped = registration.maps(fine_template(self.template, registration.affine))
        if not (warped["brain"] > 0.5).any():
            raise ScanError(f"{scan}: the brain of {self.template.name} was registered outside the scan.")
        maps = refine(warped, registration.corrected, registration.affine)
        brain = largest_component(np.sum([maps[tissue] for tissue in TISSUES], axis=0) > 0.5)
        if not brain.any():
            raise ScanError(f"{scan}: no brain was found at the registered position of {self.template.name}.")
        provenance = {**self.describe(), "Warnings": list(registration.warnings)}
        return finish(registration.corrected, registration.affine, maps, brain, warped, provenance, back)
