"""Segmentation with SPM's unified segmentation, under Octave, MATLAB or compiled (see `spm_program`).

The batch is that of nipype's NewSegment. nipype itself is not used, because segmenters also run at the group
level, which works without it.

Source: Ashburner & Friston 2005, Unified segmentation, doi:10.1016/j.neuroimage.2005.02.018.
"""

import logging
import os
import shlex
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, ClassVar, Self

import nibabel as nib
import numpy as np
from scipy import ndimage

from bids_alphagan.common.errors import ScanError
from bids_alphagan.common.files import digest, file_digest
from bids_alphagan.common.volume import load, save
from bids_alphagan.segmenters.base import (
    TISSUES,
    Segmentation,
    finish,
    largest_component,
    read_ras,
)
from bids_alphagan.segmenters.folders import private_folder
from bids_alphagan.segmenters.options import MaskOptions
from bids_alphagan.segmenters.pose import Volumes
from bids_alphagan.segmenters.registration import (
    DEMO,
    FULL,
    HOW,
    PARTS,
    Effort,
    Registration,
    fine_template,
    register,
)
from bids_alphagan.segmenters.spm_program import (
    ELSE,
    call,
    complaint,
    find_spm,
    last_words,
    spm_version,
)
from bids_alphagan.templates import Template

log = logging.getLogger(__name__)

SCALE = np.diag([10.0, 10.0, 10.0, 1.0])  # SPM's distances are in mm, for a human head
MARGIN = 0.5  # around the brain in the tissue probability map, in brain widths
TIME_LIMIT = 1800.0  # seconds per scan; a 64x64x40 scan takes two to three minutes on one core
# One Gaussian does not fit grey matter, whose regions differ as much as grey from white matter: so many parts of
# it, from dark to bright in the template (smoothed by this share of the brain's width), are classes.
GREY_PARTS, SMOOTH = 4, 0.03
# Many voxels of a small brain hold two tissues. With pure classes only, SPM labels voxels that are half white
# matter as white matter, and those that are half fluid as fluid (white matter beside the ventricles).
MIXED = (("GM", "WM"), ("GM", "CSF"), ("WM", "CSF"))
# The tissues of each class; the classes around the brain follow: bone, soft tissue, air.
BRAIN = (*(("GM",),) * GREY_PARTS, ("WM",), ("CSF",), *MIXED)
GAUSSIANS = (*(1,) * len(BRAIN), 3, 2, 2)  # of each class
PARAMETERS = {
    "BiasRegularisation": 1e-4,
    "BiasFWHM": 60,
    "Sampling": 3,
    "MRF": 1,
    "CleanUp": 0,
    "AffineRegularisation": "none",
    "WarpingRegularisation": [0, 0.001, 0.5, 0.05, 0.2],
    "Classes": [*("+".join(tissues) for tissues in BRAIN), "bone", "soft tissue", "air"],
    "GaussiansPerClass": list(GAUSSIANS),
    "Scale": 10,
}
SCRIPT = """
try
  spm('defaults', 'fmri');
  spm_get_defaults('cmdline', true);
  spm_jobman('initcfg');
  job.channel.vols = {{'{scan},1'}};
  job.channel.biasreg = {BiasRegularisation};
  job.channel.biasfwhm = {BiasFWHM};
  job.channel.write = [0 1];
  gaussians = {GaussiansPerClass};
  for k = 1:numel(gaussians)
    job.tissue(k).tpm = {{sprintf('{tpm},%d', k)}};
    job.tissue(k).ngaus = gaussians(k);
    job.tissue(k).native = [k <= {Native}, 0];
    job.tissue(k).warped = [0 0];
  end
  job.warp.mrf = {MRF};
  job.warp.cleanup = {CleanUp};
  job.warp.reg = {WarpingRegularisation};
  job.warp.affreg = '{AffineRegularisation}';
  job.warp.fwhm = 0;
  job.warp.samp = {Sampling};
  job.warp.write = [0 0];
  matlabbatch{{1}}.spm.spatial.preproc = job;
  spm_jobman('run', matlabbatch);
catch problem
  fprintf('SPM failed: %s\\n', strrep(problem.message, sprintf('\\n'), ' '));
  rethrow(problem);
end
"""


@dataclass(frozen=True)
class SpmSegmenter:
    """SPM's unified segmentation at ten times the rat's size, with priors that antspyx has registered to the scan.

    SPM's own deformation needs a good start, and finds thin layers only with priors that fit: started from the
    template's pose alone it lost the fluid around the brain. `cache` holds the tissue probability map.
    """

    template: Template
    command: tuple[str, ...]
    version: str
    threads: int = 1
    effort: Effort = FULL
    cache: Path | None = field(default=None, repr=False)
    time_limit: float = field(default=TIME_LIMIT, repr=False)  # seconds; does not change the result
    name: str = "spm"
    label: ClassVar[str] = "SPM"
    advice: ClassVar[str] = (
        "Give it as --spm-cmd (such as /opt/spm/bin/spm-octave), set SPM_HOME or SPMMCRCMD"
    )
    methods: ClassVar[str] = (
        "by the unified segmentation of {name} {version} [@spm], at ten times the animal's size, from the tissue "
        "probability maps of the template {template}, which bias correction [@n4], an affine and a symmetric "
        "diffeomorphic registration [@syn] by ANTs [@ants] had brought to the scan; voxels that it called "
        "mixtures of two tissues were divided as the registered maps expect, and the brain mask is that of the "
        "registration"
    )

    @classmethod
    def missing(cls, options: MaskOptions) -> str:
        if find_spm(options.spm_cmd):
            return ""
        home = os.environ.get("SPM_HOME")
        absent = f" (SPM_HOME={home} does not exist)" if home and not Path(home).is_dir() else ""
        return f"SPM was not found{absent}"

    @classmethod
    def create(cls, template: Template, options: MaskOptions, note: str = "") -> Self:
        command = find_spm(options.spm_cmd)
        assert command, "call `missing` first"
        effort = DEMO if options.quick else FULL
        limit = options.spm_time_limit * 60
        version = spm_version(command)
        return cls(template, command, version, options.threads, effort, options.cache, limit)

    def memory_gb(self, voxels: int) -> float:
        """GB, of Python and SPM; measured 1.4 for 64x64x40 voxels (benchmarks/masks.py fit)."""
        return 1.2 + 1.8e-6 * voxels

    def describe(self) -> dict[str, Any]:
        return {
            "Name": self.label,
            "Version": self.version,
            "Command": shlex.join(self.command),
            "Parameters": PARAMETERS,
            "Template": self.template.name,
            "Registration": HOW,
            "RegistrationParameters": asdict(self.effort),
        }

    def __call__(self, scan: Path, scratch: Path) -> Segmentation:
        with private_folder(scratch) as folder:
            return self._segment(scan, folder)

    def _segment(self, scan: Path, scratch: Path) -> Segmentation:
        data, affine, back = read_ras(scan)
        registration = register(self.template, data, affine, self.effort, self.threads, scan, scratch)
        gain = 1000 / float(np.percentile(data, 99.9))
        nib.save(nib.Nifti1Image(data * gain, SCALE @ registration.affine), scratch / "scan.nii")
        tpm = template_tpm(self.template, registration.affine, self.cache)
        nib.save(_enlarged(tpm, registration), scratch / "tpm.nii")
        names = {"scan": scratch / "scan.nii", "tpm": scratch / "tpm.nii", "Native": len(BRAIN)}
        script = SCRIPT.format(**names, **PARAMETERS)
        (scratch / "segment.m").write_text(script)

        output = self._run(scan, scratch)
        warped = registration.maps(fine_template(self.template, registration.affine))
        files = [scratch / f"c{index}scan.nii" for index in range(1, len(BRAIN) + 1)]
        maps = together([_read(scan, path, data.shape, output) for path in files], warped)
        for tissue in (tissue for tissue in TISSUES if not maps[tissue].any()):
            raise ScanError(
                f"{scan}: SPM's {tissue} map is empty: the head was not recognised (see the participant's page)."
            )
        # SPM labels much of the thin fluid around the brain as bone; the registration does not.
        brain = largest_component(warped["brain"] > 0.5)
        if not (brain & (np.sum(list(maps.values()), axis=0) > 0.5)).any():
            raise ScanError(f"{scan}: SPM found no brain. {last_words(output)}")
        provenance = {**self.describe(), "Warnings": list(registration.warnings)}
        segmentation = finish(
            registration.corrected, registration.affine, maps, brain, warped, provenance, back
        )
        if not (scratch / "mscan.nii").exists():
            return segmentation  # corrected by N4
        own = _read(scan, scratch / "mscan.nii", data.shape, output) / gain
        provenance = {**segmentation.provenance, "BiasCorrection": "SPM's unified segmentation"}
        return replace(segmentation, corrected=back(own), provenance=provenance)

    def _run(self, scan: Path, folder: Path) -> str:
        try:
            answer = call([*self.command, str(folder / "segment.m")], folder, self.threads, self.time_limit)
        except OSError as error:
            raise ScanError(f"{scan}: {self.command[0]} could not be started ({error}).") from error
        log.debug("SPM on %s said:\n%s", scan, answer.said)
        if answer.code != 0:
            raise ScanError(f"{scan}: {complaint(answer, self.time_limit)}")
        return answer.said


def _read(scan: Path, path: Path, shape: tuple[int, ...], said: str) -> np.ndarray:
    """One of SPM's images (x, y, z), float32, finite. Raises ScanError if it is missing or broken."""
    if not path.exists():
        raise ScanError(f"{scan}: SPM wrote no {path.name}. Its output: {last_words(said)} -- {ELSE}")
    try:
        values = np.asarray(load(path).dataobj, dtype=np.float32)
    except Exception as error:  # nibabel and the file system each raise their own
        why = " ".join(str(error).split())
        raise ScanError(f"{scan}: SPM's {path.name} cannot be read ({why}). Is the disk full?") from error
    if values.shape != shape:
        raise ScanError(f"{scan}: SPM's {path.name} has shape {values.shape}, the scan {shape}.")
    return np.nan_to_num(values, posinf=0, neginf=0)


def template_tpm(template: Template, affine: np.ndarray, cache: Path | None) -> nib.Nifti1Image:
    """The template's tissue probability map for scans with this affine (mm), (x, y, z, K) float32.

    The classes are GREY_PARTS of grey matter, white matter, CSF, bone, soft tissue and air.

    It is computed once for each content of the template and each resolution, and kept in the folder `cache`.
    """
    size = round(float(np.cbrt(abs(np.linalg.det(affine[:3, :3])))), 3)
    parts = [file_digest(path) for path in template.parts.values()]
    content = ["cubic", size, MARGIN, GREY_PARTS, SMOOTH, parts]
    kept = cache and cache / f"tpm-{digest(content)[:16]}.nii.gz"
    if kept and kept.is_file():
        return load(kept)
    fine = fine_template(template, affine, MARGIN, parts=2)  # parts=3 takes three times the memory
    values = tissue_probability_map(fine.brain, [*grey_parts(fine), fine.maps["WM"], fine.maps["CSF"]])
    built = nib.Nifti1Image(values, fine.affine)
    if kept:
        save(built, kept)
    return built


def _enlarged(tpm: nib.Nifti1Image, registration: Registration) -> nib.Nifti1Image:
    """The tissue probability map, registered to the scan and enlarged to human size."""
    values = np.asarray(tpm.dataobj, dtype=np.float32)
    carried = [registration.carry(values[..., k], tpm.affine, PARTS) for k in range(values.shape[3])]
    carried[-1] = np.where(np.sum(carried, axis=0) > 0.5, carried[-1], 1)  # outside the map is air
    _, affine = registration.grid(PARTS)
    return nib.Nifti1Image(with_mixtures(np.stack(carried, axis=-1)), SCALE @ affine)


def with_mixtures(tpm: np.ndarray) -> np.ndarray:
    """Add mixture classes: (x, y, z, K) -> the classes of BRAIN and those around it (x, y, z, K + 3).

    The classes sum to 1 and none is zero. Where two tissues are expected, twice the smaller share goes to their
    mixture: half and half is all mixture, a single tissue none.
    """
    tpm = tpm.clip(0)
    grey, white, fluid = tpm[..., :GREY_PARTS], tpm[..., GREY_PARTS], tpm[..., GREY_PARTS + 1]
    left = {"GM": grey.sum(axis=-1), "WM": white, "CSF": fluid}
    mixtures = []
    for first, second in MIXED:
        both = np.minimum(left[first], left[second])
        left[first], left[second] = left[first] - both, left[second] - both
        mixtures.append(2 * both)
    pure = left["GM"] / np.maximum(grey.sum(axis=-1), 1e-6)
    inner = [*np.moveaxis(grey * pure[..., None], -1, 0), left["WM"], left["CSF"], *mixtures]
    stacked = np.concatenate([np.stack(inner, axis=-1), tpm[..., GREY_PARTS + 2 :]], axis=-1).clip(1e-4)
    return stacked / stacked.sum(axis=-1, keepdims=True)


def together(posteriors: list[np.ndarray], expected: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The tissues' maps, in [0, 1], from the posteriors of BRAIN's classes, all (x, y, z).

    A mixture is divided between its tissues in the ratio that is `expected` in that voxel.
    """
    maps = {tissue: np.zeros_like(posteriors[0]) for tissue in TISSUES}
    for posterior, tissues in zip(posteriors, BRAIN, strict=True):
        shares = {tissue: expected[tissue] + 1e-3 for tissue in tissues}
        for tissue in tissues:
            maps[tissue] += posterior * shares[tissue] / sum(shares.values())
    return {tissue: values.clip(0, 1) for tissue, values in maps.items()}


def grey_parts(template: Volumes) -> list[np.ndarray]:
    """The grey matter's map, split into GREY_PARTS by the local mean of the template's image in grey matter."""
    grey, picture = template.maps["GM"], template.maps["template"]
    pure = grey.clip(0, 1) ** 4
    sigma = SMOOTH * float(template.brain.sum()) ** (1 / 3)
    near = ndimage.gaussian_filter(pure, sigma)
    mean = ndimage.gaussian_filter(pure * picture, sigma) / np.maximum(near, 1e-6)
    cuts = np.quantile(mean[pure > 0.5], np.arange(1, GREY_PARTS) / GREY_PARTS)
    part = np.digitize(mean, cuts)
    return [np.where(part == k, grey, 0) for k in range(GREY_PARTS)]


def tissue_probability_map(brain: np.ndarray, tissues: list[np.ndarray]) -> np.ndarray:
    """The brain's tissues and three classes around them, (x, y, z, K) float32, with sum 1 and none zero.

    SPM adds no background of its own. Around the brain, bone is likely nearby, then soft tissue, and air with
    growing distance; the intensities, not these maps, tell them apart.
    """
    size = float(brain.sum() ** (1 / 3))
    distance = ndimage.distance_transform_edt(~brain).astype(np.float32) / np.float32(size)
    bone = np.exp(-((distance / 0.12) ** 2))
    air = 0.5 * np.clip(distance / 0.5, 0, 1)
    around = np.stack([0.1 + bone, 0.3 + (1 - bone) * (1 - air), 0.1 + (1 - bone) * air], axis=-1)
    inside = np.stack(tissues, axis=-1, dtype=np.float32).clip(0, 1)
    inside /= np.maximum(inside.sum(axis=-1, keepdims=True), 1)
    background = 1 - inside.sum(axis=-1, keepdims=True)
    around *= background / around.sum(axis=-1, keepdims=True)
    tpm = np.concatenate([inside, around], axis=-1) + np.float32(1e-4)
    tpm /= tpm.sum(axis=-1, keepdims=True)
    return tpm
