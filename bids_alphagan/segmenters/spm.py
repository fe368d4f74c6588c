"""Segmentation with SPM's unified segmentation, through SPM's standalone interface.

One call, ``COMMAND script FILE.m``, serves SPM under Octave (bin/spm-octave), under MATLAB (bin/spm-matlab)
and compiled with the MATLAB runtime (run_spm*.sh RUNTIME). The batch is the one of nipype's NewSegment;
nipype itself is not used because segmenters also run at the group level, which does without it.

Source: Ashburner & Friston 2005, Unified segmentation, doi:10.1016/j.neuroimage.2005.02.018.
"""

import logging
import os
import re
import shlex
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from scipy import ndimage

from bids_alphagan.errors import ScanError, UserError
from bids_alphagan.segmenters.ants import correct_bias, itk_settings
from bids_alphagan.segmenters.base import TISSUES, Segmentation, finish, largest_component, read_ras
from bids_alphagan.segmenters.pose import find_pose, load_template
from bids_alphagan.templates import Template
from bids_alphagan.volume import load

log = logging.getLogger(__name__)

SCALE = np.diag([10.0, 10.0, 10.0, 1.0])  # SPM's distances are in mm of a human head
ACROSS, MARGIN = 36, 0.5  # of the tissue probability map: voxels across the brain, and what is kept around it
TIME_LIMIT = 1800  # seconds per scan; a 64x64x40 scan takes one to three minutes
# GM, WM, CSF, then what is around a brain: bone, soft tissue, air. Values that worked on rat EPI.
GAUSSIANS = (1, 1, 2, 3, 2, 2)
PARAMETERS = {
    "BiasRegularisation": 1e-4,
    "BiasFWHM": 60,
    "Sampling": 3,
    "MRF": 1,
    "CleanUp": 0,
    "AffineRegularisation": "none",
    "WarpingRegularisation": [0, 0.001, 0.5, 0.05, 0.2],
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
  job.channel.write = [0 0];
  gaussians = {GaussiansPerClass};
  for k = 1:numel(gaussians)
    job.tissue(k).tpm = {{sprintf('{tpm},%d', k)}};
    job.tissue(k).ngaus = gaussians(k);
    job.tissue(k).native = [k <= 3, 0];
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


def find_spm(spm_cmd: str | None = None) -> tuple[str, ...] | None:
    """The words of the command that runs an SPM script, or None where there is no SPM.

    Looked for in `spm_cmd` (as for nipype, e.g. ``/opt/spm/bin/spm-octave script``), SPMMCRCMD, SPM_HOME and
    on the PATH. Raises UserError when `spm_cmd` or SPMMCRCMD names a program that does not exist.
    """
    for source, command in (("--spm-cmd", spm_cmd), ("SPMMCRCMD", os.environ.get("SPMMCRCMD"))):
        if command:
            try:
                words = shlex.split(command)
            except ValueError as error:
                raise UserError(f"{source} {command}: cannot be read as a command ({error}).") from error
            program = shutil.which(words[0]) if words else None
            if program is None:
                raise UserError(
                    f"{source}: {words[0] if words else 'blank'} is not a program. Give, for example, "
                    "/opt/spm/bin/spm-octave."
                )
            return (program, *words[1:], *(() if words[-1] == "script" else ("script",)))
    home = os.environ.get("SPM_HOME")
    folders = [str(Path(home) / "bin"), home] if home else []
    for interpreter, program in (("octave-cli", "spm-octave"), ("matlab", "spm-matlab")):
        found = shutil.which(program, path=os.pathsep.join([*folders, os.environ.get("PATH", "")]))
        if found and shutil.which(interpreter):
            return (found, "script")
    return None


def spm_version(command: tuple[str, ...]) -> str:
    """Ask SPM for its version, which also shows that it runs. Raises UserError when it does not."""
    program = [*command[:-1], "--version"]
    with tempfile.TemporaryDirectory() as scratch:
        try:
            done = _call(program, Path(scratch), threads=1, time_limit=300)
        except (OSError, subprocess.TimeoutExpired) as error:
            raise UserError(f"SPM does not run: {shlex.join(program)}: {error}") from error
    found = re.search(r"^(\S*)SPM.*version.*$", done.stdout, re.MULTILINE)
    if done.returncode or not found:
        raise UserError(f"SPM does not run: {shlex.join(program)} said: {last_words(done.stdout)}")
    return found[0].strip()


@dataclass(frozen=True)
class SpmSegmenter:
    """SPM's unified segmentation from a start that the template's pose gives, at ten times the rat's size."""

    template: Template
    command: tuple[str, ...]
    version: str
    threads: int = 1
    time_limit: float = TIME_LIMIT
    name: str = "spm"

    def describe(self) -> dict[str, Any]:
        return {
            "Name": "SPM",
            "Version": self.version,
            "Command": shlex.join(self.command),
            "Parameters": PARAMETERS,
            "Template": self.template.name,
            "Registration": "pose by normalised mutual information inside the template's brain from several "
            "starts, then SPM's own deformation",
        }

    def __call__(self, scan: Path, scratch: Path) -> Segmentation:
        data, affine, back = read_ras(scan)
        template = load_template(self.template, ACROSS, MARGIN)
        with itk_settings(self.threads):
            corrected = correct_bias(data, affine, (20, 20))
        pose = find_pose(corrected, affine, template)
        # SPM starts where the header puts the scan: in the template's pose, enlarged to human size.
        posed = np.linalg.inv(pose) @ affine
        scaled = data * (1000 / float(np.percentile(data, 99.9)))
        nib.save(nib.Nifti1Image(scaled, SCALE @ posed), scratch / "scan.nii")
        tpm = tissue_probability_map(template.brain, [template.maps[tissue] for tissue in TISSUES])
        nib.save(nib.Nifti1Image(tpm, SCALE @ template.affine), scratch / "tpm.nii")
        script = SCRIPT.format(scan=scratch / "scan.nii", tpm=scratch / "tpm.nii", **PARAMETERS)
        (scratch / "segment.m").write_text(script)

        output = self._run(scan, scratch)
        maps = {}
        for index, tissue in enumerate(TISSUES, start=1):
            path = scratch / f"c{index}scan.nii"
            if not path.exists():
                raise ScanError(f"{scan}: SPM wrote no {tissue} map. {last_words(output)}")
            values = np.asarray(load(path).dataobj, dtype=np.float32)
            if values.shape != data.shape:
                raise ScanError(
                    f"{scan}: SPM's {tissue} map has shape {values.shape}, the scan {data.shape}."
                )
            maps[tissue] = np.nan_to_num(values).clip(0, 1)
        mask = largest_component(np.sum(list(maps.values()), axis=0) > 0.5)
        brain = np.asarray(ndimage.binary_fill_holes(mask))
        if not brain.any():
            raise ScanError(f"{scan}: SPM found no brain. {last_words(output)}")
        to_template = np.linalg.inv(template.affine) @ posed
        warped = {
            name: ndimage.affine_transform(values, to_template, output_shape=data.shape, order=1)
            for name, values in template.maps.items()
        }
        return finish(corrected, affine, maps, brain, warped, self.describe(), back)

    def _run(self, scan: Path, scratch: Path) -> str:
        try:
            done = _call([*self.command, str(scratch / "segment.m")], scratch, self.threads, self.time_limit)
        except subprocess.TimeoutExpired as error:
            raise ScanError(f"{scan}: SPM was stopped after {self.time_limit:g} s.") from error
        except OSError as error:
            raise ScanError(f"{scan}: {self.command[0]} could not be started ({error}).") from error
        log.info("SPM on %s:\n%s", scan, done.stdout)
        if done.returncode:
            raise ScanError(f"{scan}: SPM ended with code {done.returncode}. {last_words(done.stdout)}")
        return done.stdout


def _call(
    command: Sequence[str], scratch: Path, threads: int, time_limit: float
) -> subprocess.CompletedProcess[str]:
    """Run SPM with its home and temporary folder in `scratch`, so that a read-only system will do.

    It gets a process group of its own: the wrapper scripts would leave Octave or MATLAB running when they are
    stopped at the time limit.
    """
    places = dict.fromkeys(("HOME", "TMPDIR", "MCR_CACHE_ROOT"), str(scratch))
    environment = {"OCTAVE_EXEC": "octave-cli", **os.environ, **places, "OMP_NUM_THREADS": str(threads)}
    process = subprocess.Popen(
        command,
        cwd=scratch,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        start_new_session=True,
    )
    try:
        output, _ = process.communicate(timeout=time_limit)
    except BaseException:
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
        raise
    return subprocess.CompletedProcess(command, process.returncode, output)


def tissue_probability_map(brain: np.ndarray, tissues: list[np.ndarray]) -> np.ndarray:
    """GM, WM, CSF and three classes around the brain, (x, y, z, 6) float32 that sum to 1, none of them zero.

    SPM adds no background of its own. What surrounds a brain is bone near to it, then soft tissue, and air
    more likely with distance; the intensities, not these maps, tell them apart.
    """
    size = float(brain.sum() ** (1 / 3))
    distance = ndimage.distance_transform_edt(~brain) / size
    bone = np.exp(-((distance / 0.12) ** 2))
    air = 0.5 * np.clip(distance / 0.5, 0, 1)
    around = np.stack([0.1 + bone, 0.3 + (1 - bone) * (1 - air), 0.1 + (1 - bone) * air], axis=-1)
    inside = np.stack(tissues, axis=-1).clip(0, 1)
    inside /= np.maximum(inside.sum(axis=-1, keepdims=True), 1)
    background = 1 - inside.sum(axis=-1, keepdims=True)
    tpm = np.concatenate([inside, background * around / around.sum(axis=-1, keepdims=True)], axis=-1) + 1e-4
    return (tpm / tpm.sum(axis=-1, keepdims=True)).astype(np.float32)


def last_words(output: str) -> str:
    """What SPM said of its failure, else its last line."""
    lines = [line.strip() for line in output.splitlines() if line.strip()]
    told = [line for line in lines if line.startswith("SPM failed:")] or lines[-1:]
    return told[0] if told else "It printed nothing."
