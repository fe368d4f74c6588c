"""Segmentation without SPM: a template's probability maps, warped onto the scan by antspyx."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from scipy import ndimage

from bids_alphagan.errors import ScanError
from bids_alphagan.segmenters.base import Segmentation, finish, largest_component, read_ras
from bids_alphagan.segmenters.pose import find_pose, load_template
from bids_alphagan.templates import Template

LPS = np.diag([-1.0, -1.0, 1.0, 1.0])  # ITK's world from NIfTI's
MARGIN, RIM = 0.2, 0.1  # kept around the brain, and seen by the metric around it, in brain sizes
FINEST = 0.8  # of the scan's voxel: a template much finer than the scan fits it worse


@dataclass(frozen=True)
class Effort:
    """How many voxels wide the template's brain is at most, and how long antspyx iterates.

    A brain's width is the cube root of its volume.
    SyN runs at one level, the finest: coarser ones hold too few voxels of a rodent's brain, and made every
    tissue worse than the affine alone. `syn_step` is how far it goes in an iteration, in voxels.
    """

    across: int
    syn_iterations: int
    n4_iterations: tuple[int, ...]
    affine_iterations: tuple[int, ...] = (100, 50)
    syn_step: float = 0.2


# Six phantom heads of 32 x 32 x 20 voxels: Dice of brain, GM, WM and CSF 0.975, 0.931, 0.648 and 0.600,
# against the full effort's 0.982, 0.937, 0.661 and 0.674, in a third of its time.
# python benchmarks/masks.py --n-subjects 6 --shape 32 32 20 [--quick]
DEMO = Effort(across=19, syn_iterations=6, n4_iterations=(20, 20), affine_iterations=(30, 15), syn_step=0.4)
FULL = Effort(across=28, syn_iterations=25, n4_iterations=(50, 50, 30))


@dataclass(frozen=True)
class AntsSegmenter:
    """Template maps by N4, pose, affine and SyN (doi:10.1016/j.media.2007.06.004) inside the brain.

    Intensities do not enter the maps themselves: a Gaussian mixture with these maps as priors gained little
    WM and lost GM and CSF. The same scan gives the same arrays, for a given number of threads.
    """

    template: Template
    effort: Effort = FULL
    threads: int = 1
    note: str = ""
    name: str = "ants"
    memory_gb: ClassVar[float] = 1.5

    def describe(self) -> dict[str, Any]:
        return {
            "Name": "antspyx",
            "Version": version("antspyx"),
            "Parameters": asdict(self.effort),
            "Template": self.template.name,
            "Registration": "N4; pose by normalised mutual information inside the template's brain from "
            "several starts; affine (Mattes) and SyN (cross-correlation) inside the dilated brain",
            **({"Note": self.note} if self.note else {}),
        }

    def __call__(self, scan: Path, scratch: Path) -> Segmentation:
        data, affine, back = read_ras(scan)
        with itk_settings(self.threads):
            try:
                corrected = correct_bias(data, affine, self.effort.n4_iterations)
                warped = self._warp(corrected, affine, scratch)
            except RuntimeError as error:  # what antspyx raises when a registration fails
                raise ScanError(
                    f"{scan}: antspyx could not register it to {self.template.name} ({error})."
                ) from error
        brain = largest_component(warped["brain"] > 0.5)
        if not brain.any():
            raise ScanError(f"{scan}: the brain of {self.template.name} was registered outside the scan.")
        return finish(corrected, affine, warped, brain, warped, self.describe(), back)

    def _warp(self, data: np.ndarray, affine: np.ndarray, scratch: Path) -> dict[str, np.ndarray]:
        """The template's image, brain mask and tissue maps on the scan's grid."""
        import ants

        voxel = abs(float(np.linalg.det(affine[:3, :3]))) ** (1 / 3)
        template = load_template(self.template, self.effort.across, MARGIN, round(FINEST * voxel, 3))
        write_transform(find_pose(data, affine, template), scratch / "pose.mat")
        rim = ndimage.distance_transform_edt(~template.brain) <= RIM * template.brain.sum() ** (1 / 3)
        mask = to_ants(rim, template.affine)
        fixed = to_ants(template.maps["template"], template.affine)
        moving = to_ants(data, affine)
        levels = len(self.effort.affine_iterations)
        linear = ants.registration(
            fixed,
            moving,
            type_of_transform="Affine",
            initial_transform=[str(scratch / "pose.mat")],
            outprefix=str(scratch / "affine_"),
            mask=mask,
            aff_metric="mattes",
            aff_sampling=32,
            aff_random_sampling_rate=0.5,
            aff_iterations=self.effort.affine_iterations,
            aff_shrink_factors=tuple(range(levels, 0, -1)),
            aff_smoothing_sigmas=tuple(range(levels - 1, -1, -1)),
        )
        deformed = ants.registration(
            fixed,
            moving,
            type_of_transform="SyNOnly",
            initial_transform=linear["fwdtransforms"],
            outprefix=str(scratch / "syn_"),
            mask=mask,
            syn_metric="CC",
            syn_sampling=2,
            grad_step=self.effort.syn_step,
            reg_iterations=(self.effort.syn_iterations,),
        )
        back = deformed["invtransforms"]
        inverted = [path.endswith(".mat") for path in back]
        maps = {}
        for name, values in template.maps.items():
            source = to_ants(values, template.affine)
            maps[name] = ants.apply_transforms(moving, source, back, whichtoinvert=inverted).numpy()
        return {name: values if name == "template" else values.clip(0, 1) for name, values in maps.items()}


def correct_bias(data: np.ndarray, affine: np.ndarray, iterations: tuple[int, ...]) -> np.ndarray:
    """`data` (x, y, z) without negative and extreme values and without coil shading.

    N4, doi:10.1109/TMI.2010.2046908.
    """
    import ants

    data = np.clip(data, 0, np.percentile(data, 99.9))
    head = data > 0.1 * np.percentile(data, 99)
    convergence = {"iters": list(iterations), "tol": 1e-6}
    image, mask = to_ants(data, affine), to_ants(head, affine)
    return ants.n4_bias_field_correction(image, mask=mask, shrink_factor=2, convergence=convergence).numpy()


def to_ants(data: np.ndarray, affine: np.ndarray) -> Any:
    """An ANTsImage of `data` (x, y, z) with a NIfTI (RAS) affine, in ITK's LPS world."""
    import ants

    lps = LPS @ affine
    spacing = np.linalg.norm(lps[:3, :3], axis=0)
    return ants.from_numpy(
        np.asarray(data, dtype=np.float32),
        origin=lps[:3, 3].tolist(),
        spacing=spacing.tolist(),
        direction=lps[:3, :3] / spacing,
    )


def write_transform(matrix: np.ndarray, path: Path) -> None:
    """Write a (4, 4) RAS transform as an ITK affine."""
    import ants

    lps = LPS @ matrix @ LPS
    transform = ants.create_ants_transform(
        transform_type="AffineTransform", matrix=lps[:3, :3], offset=lps[:3, 3].tolist(), precision="double"
    )
    ants.write_transform(transform, str(path))


@contextmanager
def itk_settings(threads: int) -> Iterator[None]:
    """Fixed seed and thread count: ITK jitters its samples, and sums in the order of its threads."""
    wanted = {"ANTS_RANDOM_SEED": "1", "ITK_GLOBAL_DEFAULT_NUMBER_OF_THREADS": str(threads)}
    before = {key: os.environ.get(key) for key in wanted}
    os.environ.update(wanted)
    try:
        yield
    finally:
        for key, value in before.items():
            if value is None:
                del os.environ[key]
            else:
                os.environ[key] = value
