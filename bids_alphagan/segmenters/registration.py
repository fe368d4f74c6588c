"""Registration of a template to a scan (N4, pose, affine, SyN), and transfer of the template's maps to the scan."""

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from scipy import ndimage

from bids_alphagan.common.errors import ScanError
from bids_alphagan.common.volume import load
from bids_alphagan.segmenters.pose import Volumes, find_pose, load_template, true_size
from bids_alphagan.templates import Template

LPS = np.diag([-1.0, -1.0, 1.0, 1.0])  # from NIfTI's world coordinates to ITK's
MARGIN, RIM = 0.2, 0.15  # around the brain: kept space, and space inside the metric, in brain widths
FINEST = 0.8  # of the scan's voxel: a template much finer than the scan fits its noise
PARTS = (2, 2, 2)  # a voxel's value is the mean over these parts; its centre alone misses thin layers

HOW = (
    "N4; pose by normalised mutual information inside the template's brain from many starts, in all "
    "orientations; affine (Mattes) and SyN (cross-correlation) inside the dilated brain"
)


@dataclass(frozen=True)
class Effort:
    """Largest width of the template's brain in voxels, and the iterations of antspyx.

    A brain's width is the cube root of its volume.
    SyN runs at one level, the finest: coarser ones have too few voxels of a rodent's brain and made every tissue
    worse than the affine alone. `syn_step` is its step per iteration, in voxels; `flow_sigma` and `total_sigma` smooth
    its updates and the whole deformation.
    """

    across: int
    syn_iterations: int
    n4_iterations: tuple[int, ...]
    affine_iterations: tuple[int, ...] = (100, 50)
    syn_step: float = 0.2
    flow_sigma: float = 4.0
    total_sigma: float = 1.0


DEMO = Effort(across=19, syn_iterations=6, n4_iterations=(20, 20), affine_iterations=(30, 15), syn_step=0.4)
FULL = Effort(across=28, syn_iterations=25, n4_iterations=(50, 50, 30))


@dataclass(frozen=True)
class Registration:
    """A scan without shading (x, y, z), its affine in true size, and the transforms from the template to it."""

    corrected: np.ndarray
    affine: np.ndarray
    to_scan: tuple[str, ...]
    warnings: tuple[str, ...]

    def grid(self, parts: tuple[int, int, int]) -> tuple[tuple[int, ...], np.ndarray]:
        """Shape and affine of the scan's grid with each voxel divided into `parts`."""
        factor = np.array(parts)
        affine = self.affine @ np.diag([*(1 / factor), 1.0])
        affine[:3, 3] += self.affine[:3, :3] @ ((1 / factor - 1) / 2)
        return tuple(int(n) for n in np.array(self.corrected.shape) * factor), affine

    def carry(
        self, values: np.ndarray, affine: np.ndarray, parts: tuple[int, int, int] = (1, 1, 1)
    ) -> np.ndarray:
        """A map in the template's space, float32, resampled to the scan's grid, or to that grid cut into `parts`."""
        import ants

        shape, grid_affine = self.grid(parts)
        reference = to_ants(np.zeros(shape, np.float32), grid_affine)
        inverted = [path.endswith(".mat") for path in self.to_scan]
        source = to_ants(values, affine)
        return ants.apply_transforms(reference, source, list(self.to_scan), whichtoinvert=inverted).numpy()

    def maps(self, template: Volumes) -> dict[str, np.ndarray]:
        """The template's image, brain and tissues as means over the scan's voxels."""
        carried = {}
        for name, values in template.maps.items():
            fine = self.carry(values, template.affine, PARTS)
            x, y, z = self.corrected.shape
            carried[name] = fine.reshape(x, PARTS[0], y, PARTS[1], z, PARTS[2]).mean(axis=(1, 3, 5))
        return {name: values if name == "template" else values.clip(0, 1) for name, values in carried.items()}


def fine_template(template: Template, affine: np.ndarray, margin: float = MARGIN, parts: int = 3) -> Volumes:
    """The template with voxels of a scan's size (affine, mm) divided by `parts`, or of half its own size if coarser.

    Cubic splines preserve its maps; the image that they sharpen would mislead the search for the pose.
    """
    finest = max(_voxel(affine) / parts, _voxel(load(template.brain_mask).affine) / 2)
    return load_template(template, 1000, margin, round(finest, 3), order=3)


def search_template(template: Template, affine: np.ndarray, effort: Effort) -> Volumes:
    """The template on the grid on which a scan with this affine (true mm) is registered to it."""
    return load_template(template, effort.across, MARGIN, round(FINEST * _voxel(affine), 3))


def register(
    template: Template,
    data: np.ndarray,
    affine: np.ndarray,
    effort: Effort,
    threads: int,
    scan: Path,
    scratch: Path,
) -> Registration:
    """Register a template to `data` (x, y, z), read from `scan`; transforms are written to `scratch`.

    Raises ScanError if antspyx fails.
    """
    with itk_settings(threads):
        try:
            small = load_template(template, effort.across, MARGIN, 0.0)
            affine, warnings = true_size(affine, data.shape, small)
            small = search_template(template, affine, effort)
            corrected = correct_bias(data, affine, effort.n4_iterations)
            pose = find_pose(corrected, affine, small)
            write_transform(pose.matrix, scratch / "pose.mat")
            to_scan = _deform(small, to_ants(corrected, affine), effort, scratch)
        except RuntimeError as error:  # antspyx raises it if a registration fails
            raise ScanError(f"{scan}: antspyx could not register it to {template.name} ({error}).") from error
    return Registration(corrected, affine, to_scan, (*warnings, *pose.warnings))


def _deform(template: Volumes, scan: Any, effort: Effort, scratch: Path) -> tuple[str, ...]:
    """Affine and SyN inside the dilated brain. Returns the transform files from the template to the scan."""
    import ants

    rim = ndimage.distance_transform_edt(~template.brain) <= RIM * template.brain.sum() ** (1 / 3)
    mask = to_ants(rim, template.affine)
    fixed = to_ants(template.maps["template"], template.affine)
    levels = len(effort.affine_iterations)
    linear = ants.registration(
        fixed,
        scan,
        type_of_transform="Affine",
        initial_transform=[str(scratch / "pose.mat")],
        outprefix=str(scratch / "affine_"),
        mask=mask,
        aff_metric="mattes",
        aff_sampling=32,
        aff_random_sampling_rate=0.5,
        aff_iterations=effort.affine_iterations,
        aff_shrink_factors=tuple(range(levels, 0, -1)),
        aff_smoothing_sigmas=tuple(range(levels - 1, -1, -1)),
    )
    deformed = ants.registration(
        fixed,
        scan,
        type_of_transform="SyNOnly",
        initial_transform=linear["fwdtransforms"],
        outprefix=str(scratch / "syn_"),
        mask=mask,
        syn_metric="CC",
        syn_sampling=2,
        grad_step=effort.syn_step,
        flow_sigma=effort.flow_sigma,
        total_sigma=effort.total_sigma,
        reg_iterations=(effort.syn_iterations,),
    )
    return tuple(deformed["invtransforms"])


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


def _voxel(affine: np.ndarray) -> float:
    """The edge of a cube with a voxel's volume, mm."""
    return abs(float(np.linalg.det(affine[:3, :3]))) ** (1 / 3)


@contextmanager
def itk_settings(threads: int) -> Iterator[None]:
    """Fix seed and thread count: ITK draws random samples, and its sums depend on the number of threads."""
    settings: Mapping[str, str] = {
        "ANTS_RANDOM_SEED": "1",
        "ITK_GLOBAL_DEFAULT_NUMBER_OF_THREADS": str(threads),
    }
    before = {key: os.environ.get(key) for key in settings}
    os.environ.update(settings)
    try:
        yield
    finally:
        for key, value in before.items():
            if value is None:
                del os.environ[key]
            else:
                os.environ[key] = value
