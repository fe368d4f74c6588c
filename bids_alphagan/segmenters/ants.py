"""Segmentation without SPM: a template's probability maps, warped onto the scan by antspyx."""

import functools
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from scipy import ndimage

from bids_alphagan.errors import ScanError
from bids_alphagan.segmenters import TISSUES, Segmentation, label
from bids_alphagan.segmenters.pose import find_pose
from bids_alphagan.templates import Template

LPS = np.diag([-1.0, -1.0, 1.0, 1.0])  # ITK's world from NIfTI's


@dataclass(frozen=True)
class Effort:
    """How fine the template is resampled (voxels across the brain) and how long antspyx iterates."""

    across: int
    affine_iterations: tuple[int, ...]
    syn_iterations: tuple[int, ...]
    n4_iterations: tuple[int, ...]


DEMO = Effort(across=26, affine_iterations=(100, 50), syn_iterations=(30, 15), n4_iterations=(20, 20))
FULL = Effort(across=42, affine_iterations=(200, 100, 50), syn_iterations=(60, 40, 20), n4_iterations=(50, 50, 30))


@dataclass(frozen=True)
class AntsSegmenter:
    template: Template
    effort: Effort = FULL
    threads: int = 1
    name: str = "ants"

    def describe(self) -> dict[str, Any]:
        return {
            "Name": "antspyx",
            "Version": version("antspyx"),
            "Parameters": asdict(self.effort),
            "Template": self.template.name,
            "Registration": "N4; pose by mutual information inside the template's brain from several starts; "
            "affine (Mattes) inside the dilated brain; SyN (cross-correlation) inside the dilated brain",
        }

    def __call__(self, scan: Path, scratch: Path) -> Segmentation:
        image = nib.load(scan)
        data = np.asarray(image.dataobj, dtype=np.float32).reshape(image.shape[:3])
        with itk_settings(self.threads):
            try:
                warped = self._warp(data, image.affine, scratch)
            except RuntimeError as error:  # what antspyx raises when a registration fails
                raise ScanError(f"{scan}: antspyx could not register it to {self.template.name} ({error}).") from error
        brain = largest_component(warped.pop("brain") > 0.5)
        if not brain.any():
            raise ScanError(f"{scan}: the brain of {self.template.name} was registered outside the scan.")
        total = np.maximum(sum(warped.values()), 1)
        probseg = {tissue: (warped[tissue] / total).astype(np.float32) for tissue in TISSUES}
        return Segmentation(probseg, brain, label(probseg, brain), self.describe())

    def _warp(self, data: np.ndarray, affine: np.ndarray, scratch: Path) -> dict[str, np.ndarray]:
        """The template's brain mask and tissue maps on the scan's grid."""
        import ants

        fixed, maps = load_template(self.template, self.effort.across)
        rim = dilate(maps["brain"].data > 0.5, 0.08 * len(maps["brain"].data[0]) / 2)
        data = np.clip(data, 0, np.percentile(data, 99.9))
        moving = to_ants(data, affine)
        moving = ants.n4_bias_field_correction(
            moving,
            mask=to_ants((data > 0.1 * np.percentile(data, 99)).astype(np.float32), affine),
            shrink_factor=2,
            convergence={"iters": list(self.effort.n4_iterations), "tol": 1e-6},
        )
        pose, _ = find_pose(moving.numpy(), affine, fixed.data, maps["brain"].data > 0.5, fixed.affine)

        write_transform(pose, scratch / "pose.mat")
        mask = to_ants(rim.astype(np.float32), fixed.affine)
        target = to_ants(fixed.data, fixed.affine)
        affine_stage = ants.registration(
            target,
            moving,
            type_of_transform="Affine",
            initial_transform=[str(scratch / "pose.mat")],
            outprefix=str(scratch / "affine_"),
            mask=mask,
            aff_metric="mattes",
            aff_sampling=32,
            aff_random_sampling_rate=0.5,
            aff_iterations=self.effort.affine_iterations,
            aff_shrink_factors=tuple(range(len(self.effort.affine_iterations), 0, -1)),
            aff_smoothing_sigmas=tuple(range(len(self.effort.affine_iterations) - 1, -1, -1)),
        )
        deformed = ants.registration(
            target,
            moving,
            type_of_transform="SyNOnly",
            initial_transform=affine_stage["fwdtransforms"],
            outprefix=str(scratch / "syn_"),
            mask=mask,
            syn_metric="CC",
            syn_sampling=3,
            reg_iterations=self.effort.syn_iterations,
        )
        scan_grid = to_ants(data, affine)
        transforms = deformed["invtransforms"]
        return {
            name: ants.apply_transforms(
                scan_grid,
                to_ants(volume.data, volume.affine),
                transforms,
                whichtoinvert=[path.endswith(".mat") for path in transforms],
            )
            .numpy()
            .clip(0, 1)
            for name, volume in maps.items()
        }


@dataclass(frozen=True)
class Volume:
    data: np.ndarray
    affine: np.ndarray


@functools.lru_cache(maxsize=2)
def load_template(template: Template, across: int) -> tuple[Volume, dict[str, Volume]]:
    """The anatomical image, and brain and tissue maps, on cubic voxels in RAS around the brain.

    The brain's cube root of volume is `across` voxels wide, so the work does not depend on the
    template's own resolution or on the species.
    """
    mask = nib.load(template.brain_mask)
    brain = np.asarray(mask.dataobj, dtype=np.float32).reshape(mask.shape[:3]) > 0
    volume = brain.sum() * abs(np.linalg.det(mask.affine[:3, :3]))
    spacing = float(volume ** (1 / 3) / across)
    corners = nib.affines.apply_affine(mask.affine, np.argwhere(brain))
    low, high = corners.min(0) - 5 * spacing, corners.max(0) + 5 * spacing
    shape = tuple(np.ceil((high - low) / spacing).astype(int) + 1)
    affine = np.diag([spacing] * 3 + [1.0])
    affine[:3, 3] = low
    to_source = np.linalg.inv(mask.affine) @ affine
    # Averages over the coarser voxels, or thin structures alias.
    sigma = np.sqrt(np.maximum((spacing / np.linalg.norm(mask.affine[:3, :3], axis=0)) ** 2 - 1, 0)) * 0.4

    def load(path: Path) -> Volume:
        image = nib.load(path)
        data = np.asarray(image.dataobj, dtype=np.float32).reshape(image.shape[:3])
        smooth = ndimage.gaussian_filter(data, sigma)
        return Volume(ndimage.affine_transform(smooth, to_source, output_shape=shape, order=1), affine)

    parts = {"brain": template.brain_mask, "GM": template.gm, "WM": template.wm, "CSF": template.csf}
    return load(template.t2w), {name: load(path) for name, path in parts.items()}


def to_ants(data: np.ndarray, affine: np.ndarray) -> Any:
    """An ANTsImage of `data` (x, y, z) with a NIfTI (RAS) affine, in ITK's LPS world."""
    import ants

    lps = LPS @ affine
    spacing = np.linalg.norm(lps[:3, :3], axis=0)
    return ants.from_numpy(
        np.asarray(data, dtype=np.float32), origin=lps[:3, 3].tolist(), spacing=spacing.tolist(), direction=lps[:3, :3] / spacing
    )


def write_transform(matrix: np.ndarray, path: Path) -> None:
    """Write a (4, 4) RAS transform as an ITK affine."""
    import ants

    lps = LPS @ matrix @ LPS
    transform = ants.create_ants_transform(
        transform_type="AffineTransform", matrix=lps[:3, :3], offset=lps[:3, 3].tolist(), precision="double"
    )
    ants.write_transform(transform, str(path))


def dilate(mask: np.ndarray, voxels: float) -> np.ndarray:
    return ndimage.distance_transform_edt(~mask) <= voxels


def largest_component(mask: np.ndarray) -> np.ndarray:
    labels, count = ndimage.label(mask)
    return mask if count < 2 else labels == 1 + np.argmax(np.bincount(labels.ravel())[1:])


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
            os.environ.pop(key) if value is None else os.environ.update({key: value})
