"""The real and synthetic scans of a study as arrays, each read on first use."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import nibabel as nib
import numpy as np
from nibabel.affines import voxel_sizes
from scipy import ndimage

from bids_alphagan.bids.names import ScanName
from bids_alphagan.bids.prepared import PreparedScan, scan_masks, synthetic_scans
from bids_alphagan.bids.split import animals_of
from bids_alphagan.bids.study import Study
from bids_alphagan.common.errors import ScanError, UserError
from bids_alphagan.common.volume import conform, load, read_reference
from bids_alphagan.evaluation import volumes
from bids_alphagan.evaluation.bootstrap import small_sample_warning

REAL, NOISY = (
    "real",
    "real+noise",
)  # in tables: training scans in place of synthetic ones; the same with noise
NOISE = 0.1  # standard deviation of the floor's noise, as a fraction of the intensity range


@dataclass(frozen=True)
class Scans:
    """All scans of a study as arrays. cohorts: the folder of each model's cohort. seed, device: of computations."""

    study: Study
    cohorts: Mapping[str, Path]
    seed: int = 0
    device: str = "cpu"

    @cached_property
    def box(self) -> tuple[slice, ...]:
        """The smallest part of the networks' cube that contains all scans."""
        return volumes.common_field_of_view([scan.record for scan in self.study.scans])

    @cached_property
    def zooms(self) -> np.ndarray:
        """Voxel sizes of that cube in mm: the median over the scans."""
        sizes = [voxel_sizes(load(scan.preproc).affine)[:3] for scan in self.study.scans]
        return np.asarray(np.median(sizes, axis=0))

    @cached_property
    def paths(self) -> dict[str, list[Path]]:
        """The synthetic scans of each model."""
        return {model: synthetic_scans(folder) for model, folder in self.cohorts.items()}

    @cached_property
    def training(self) -> np.ndarray:
        """The training scans, (n, x, y, z) float32 in [0, 1]."""
        return volumes.real_arrays([scan.preproc for scan in self.study.training], self.box)

    @cached_property
    def held_out(self) -> np.ndarray | None:
        """Like `training`; None if no animal was held out."""
        scans = [scan.preproc for scan in self.study.held_out]
        return volumes.real_arrays(scans, self.box) if scans else None

    @cached_property
    def synthetic(self) -> dict[str, np.ndarray]:
        """Like `training`, for each model."""
        grid, percentile = self.study.grid, self.study.intensity_percentile
        return {
            model: volumes.synthetic_arrays(paths, self.box, grid, percentile)
            for model, paths in self.paths.items()
        }

    @property
    def against(self) -> str:
        """The set that cohorts are compared with: "held-out" if it has two or more animals, else "training"."""
        return "held-out" if len(set(animals_of(self.study.held_out))) > 1 else "training"

    @property
    def reference(self) -> list[PreparedScan]:
        """The scans of that set."""
        return self.study.held_out if self.against == "held-out" else self.study.training

    def notes(self) -> list[str]:
        """Limitations of all numbers by the choice and size of that set."""
        notes = []
        if self.against == "training":
            notes.append(
                "Fewer than two animals were held out, so the synthetic scans are compared with the "
                "training scans: a model that copies them scores best."
            )
        few = small_sample_warning(len(set(animals_of(self.reference))), f"{self.against} animals")
        return [*notes, *([few] if few else [])]

    def brain(self) -> np.ndarray | None:
        """The brain mask of most training scans, dilated by a voxel: bool, (x, y, z). None without masks."""
        masks = [scan.masks["brain"] for scan in self.study.training if "brain" in scan.masks]
        if not masks:
            return None
        inside = np.mean([_on_cube(path, self.study.grid)[self.box] for path in masks], axis=0) > 0.5
        return np.asarray(ndimage.binary_dilation(inside)) if inside.any() else None

    def segmented(self, model: str | None = None) -> list[tuple[str, np.ndarray, np.ndarray, np.ndarray]]:
        """The scans with masks, on their own grid: animal, scan (x, y, z) in RAS, dseg, voxel sizes (mm).

        Those of a model; for None, the real scans, with intensities clipped like those for the networks.
        """
        if model is None:
            return [
                (
                    scan.name.subject,
                    *_in_ras(scan.reference, scan.masks["dseg"], scan.record["IntensityRange"]),
                )
                for scan in self.study.scans
                if "dseg" in scan.masks
            ]
        names = [(path, ScanName.parse(path.name)) for path in self.paths[model]]
        masks = [(path, n, scan_masks(self.cohorts[model], n, "synthetic").get("dseg")) for path, n in names]
        return [(n.subject, *_in_ras(path, dseg)) for path, n, dseg in masks if dseg]


def _in_ras(
    scan: Path, dseg: Path, limits: tuple[float, float] = (-np.inf, np.inf)
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    (data, zooms), (tissue, _) = (_read(path) for path in (scan, dseg))
    if data.shape != tissue.shape:
        raise UserError(
            f"{dseg}: {tissue.shape} voxels, but its scan has {data.shape}. Make the masks again: run "
            "participant (or synthesise) for this scan."
        )
    data = data.astype(np.float32)
    return np.clip(data, *limits), tissue, zooms


def _read(path: Path) -> tuple[np.ndarray, np.ndarray]:
    try:
        image = nib.as_closest_canonical(load(path))
        return np.asarray(image.dataobj).reshape(image.shape[:3]), voxel_sizes(image.affine)
    except Exception as error:  # as in volume.read_reference
        raise UserError(
            f"{path}: cannot be read ({error}). Run participant (or synthesise) again for this scan."
        ) from error


def _on_cube(mask: Path, grid: int) -> np.ndarray:
    """A brain mask on the networks' cube, prepared like its scan: (N, N, N) bool."""
    try:
        return conform(read_reference(mask)[0], grid, 100.0).data > 0
    except ScanError as error:
        raise UserError(f"{error} Make the masks again: run participant for this scan.") from error
