"""A program that answers as ``spm-octave`` does. What it does is chosen by the variable FAKE_SPM."""

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

BANNER = "SPM26, version 00.00\nOctave, version 7.3.0"
# What a failing SPM prints, to standard output and to standard error, and its exit code.
SAYS = {
    "error": ("Running job #1\nSPM failed: All tissues are the same\nError in spm_jobman (line 12)", "", 1),
    "batch": (
        "23-Nov-2026 22:08:00 - Failed  'Segment'\nUnable to estimate the bias\n"
        'In file "/opt/spm/spm_vol.m", function "spm_vol" at line 60.\n'
        "SPM failed: Job execution failed. The full log of this run can be found in MATLAB command window",
        "",
        1,
    ),
    "stderr": ("", "error: Matrix dimensions must agree", 1),
    "killed": ("Running job #1", "spm-octave: line 78:  4711 Killed      ${OCTAVE_EXEC} --norc --quiet", 1),
    "memory": ("", "error: out of memory or dimension too large for Octave's index type", 1),
    "crash": ("", "spm-octave: line 78:  4711 Segmentation fault      ${OCTAVE_EXEC} --norc", 1),
    "no octave": ("", "spm-octave: line 78: octave-cli: command not found", 127),
    "licence": ("License checkout failed.\nLicense Manager Error -9", "", 1),
    "runtime": ("", "error while loading shared libraries: libmwlaunchermain.so: cannot open", 127),
    "full disk": ("", "error: No space left on device", 1),
    "silent": ("Running job #1", "", 0),
}


def write(path: Path) -> Path:
    """Make a program of this file that runs under this Python."""
    path.parent.mkdir(parents=True, exist_ok=True)
    here = str(Path(__file__).parent)
    path.write_text(
        f"#!{sys.executable}\nimport sys\nsys.path.insert(0, {here!r})\nimport fake_spm\nfake_spm.main()\n"
    )
    path.chmod(0o755)
    return path


def is_gone(pid: str) -> bool:
    """Whether a process ends within seconds; a zombie has ended."""
    status = Path("/proc", pid, "stat")
    for _ in range(50):
        try:
            if status.read_text().split()[2] == "Z":
                return True
        except OSError:
            return True
        time.sleep(0.1)
    return False


def main() -> None:
    mode = os.environ.get("FAKE_SPM", "")
    if sys.argv[-1] == "--version":
        print(os.environ.get("FAKE_BANNER", BANNER))
        sys.exit(1 if "FAKE_BANNER" in os.environ else 0)
    assert sys.argv[-2] == "script", sys.argv
    script = Path(sys.argv[-1])
    if "FAKE_ONCE" in os.environ and not (mark := Path(os.environ["FAKE_ONCE"])).exists():
        mark.touch()
        mode = "error"
    if "SEEN" in os.environ:  # what it was given, for the test to look at
        seen = Path(os.environ["SEEN"])
        seen.mkdir(exist_ok=True)
        for path in script.parent.iterdir():
            if path.is_file():
                (seen / path.name).write_bytes(path.read_bytes())
        names = ("HOME", "TMPDIR", "SPM_HOME", "OCTAVE_EXEC", "OMP_NUM_THREADS")
        (seen / "environment").write_text("".join(f"{n}={os.environ.get(n)}\n" for n in names))
    if mode in SAYS:
        out, error, code = SAYS[mode]
        print(out)
        print(error, file=sys.stderr)
        sys.exit(code)
    if mode == "signal":
        os.kill(os.getpid(), signal.SIGKILL)
    if mode == "asks":
        input("Which file? ")
    if mode == "flood":
        for _ in range(100):
            print("x" * 2**20)
        sys.exit("SPM failed: enough")
    if mode == "hang":
        stubborn = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); time.sleep(120)"
        child = subprocess.Popen([sys.executable, "-c", stubborn])
        Path(os.environ["PID_FILE"]).write_text(str(child.pid))
        print("Thinking", flush=True)
        time.sleep(120)
    (Path.home() / "preferences").write_text("")
    answer(script.read_text(), mode)


def answer(text: str, mode: str) -> None:
    """Write c1..cN, the tissue probability map in the scan's grid, and the corrected scan; or broken ones."""
    import nibabel as nib
    import numpy as np
    from scipy import ndimage

    scan = Path(re.search(r"vols = ..(.*?),1", text)[1])
    image, maps = nib.load(scan), nib.load(re.search(r"sprintf\('(.*?),%d'", text)[1])
    to_tpm = np.linalg.inv(maps.affine) @ image.affine
    for k in range(int(re.search(r"k <= (\d+)", text)[1])):
        path = scan.with_name(f"c{k + 1}{scan.name}")
        grid = image.shape[:2] if mode == "shape" else image.shape
        values = ndimage.affine_transform(maps.get_fdata()[..., k], to_tpm, output_shape=image.shape, order=1)
        values = values[..., 0] if len(grid) == 2 else values
        if mode == "loose" and k == 0:
            values[:5, :5, :4] = 1  # tissue in the air beside the head
        values = {"nan": values * np.nan, "zero": values * 0}.get(mode, values)
        nib.save(nib.Nifti1Image(values.astype("f4"), image.affine), path)
        if mode == "truncated":
            path.write_bytes(path.read_bytes()[:5000])
    if mode != "no m":
        shading = np.linspace(2, 1, image.shape[0])[:, None, None]
        corrected = (image.get_fdata() / shading).astype("f4")
        nib.save(nib.Nifti1Image(corrected, image.affine), scan.with_name(f"m{scan.name}"))
