"""SPM as a program: how to find it, run it, and explain its failures. See docs/spm.md.

One call, ``COMMAND script FILE.m``, serves SPM under Octave (bin/spm-octave), under MATLAB (bin/spm-matlab)
and compiled with the MATLAB runtime (run_spm*.sh RUNTIME). It replaces nipype's SPM interface, which reads a
banner that Octave does not print, has no time limit, and is not available at the group level.
"""

import os
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import IO

from bids_alphagan.common.errors import UserError
from bids_alphagan.segmenters import guard
from bids_alphagan.segmenters.folders import private_folder

OLDEST = 12  # SPM8 and older use another batch format
KEPT = 100_000  # last bytes of the output that are kept; a program in a loop may print gigabytes

# By wrapper script: the environment variable of its interpreter, and the interpreter's usual names.
INTERPRETERS = {
    "spm-octave": ("OCTAVE_EXEC", "octave-cli", "octave"),
    "spm-matlab": ("MATLAB_EXEC", "matlab"),
}
RUNTIMES = (
    "/opt/mcr",
    "/opt/matlabruntime",
    "/usr/local/MATLAB/MATLAB_Runtime",
)  # with subfolders R2024b, v97 ...

_MEMORY = "Fewer --nprocs, or a machine with more memory, may help"
# A pattern in the output, and what to try; the first match counts. 137 is 128 + SIGKILL.
ADVICE = (
    (
        r"line \d+: +\d+ Killed|^exit code 137$",
        f"It was killed, perhaps for lack of memory. {_MEMORY}.",
    ),
    (r"out of memory|bad_alloc", f"It ran out of memory. {_MEMORY}."),
    (r"line \d+: +\d+ (Segmentation fault|Aborted|Bus error|Illegal)|^exit code 1(3[2-9])$", "It crashed."),
    (
        r"octave\S*: (command )?not found|octave executable not found",
        "GNU Octave is missing: install it, or set OCTAVE_EXEC to its octave-cli.",
    ),
    (r"matlab executable not found", "MATLAB is missing: set MATLAB_EXEC to it."),
    (
        r"licen[sc]e (checkout|manager)|licen[sc]ing (error|failed)|licen[sc]e.*(expired|invalid|not found)",
        "MATLAB has no licence here: SPM under Octave, or compiled, needs none (--spm-cmd).",
    ),
    (
        r"matlab runtime not found|libmwlaunchermain|libmwmclmcr|could not find version .* matlab runtime",
        "The MATLAB runtime that this SPM was compiled with is missing: set MCR_HOME to its folder.",
    ),
    (r"no space left on device", "The disk is full: use another folder for intermediate files (-w)."),
    (r"cannot find the spm directory|spm directory not found", "SPM_HOME must be the folder with spm.m."),
)
ELSE = "The log has all of its output; --segmenter ants works without SPM."


@dataclass(frozen=True)
class Answer:
    """The end of a program's output (standard error included), and its exit code; None: it took too long."""

    code: int | None
    said: str


def find_spm(spm_cmd: str | None = None) -> tuple[str, ...] | None:
    """The words of the command that runs an SPM script, or None if there is no SPM.

    Searched are `spm_cmd` (as for nipype, e.g. ``/opt/spm/bin/spm-octave script``), SPMMCRCMD, SPM_HOME and the PATH;
    with FORCE_SPMMCR only for a compiled SPM. Raises UserError if `spm_cmd` or SPMMCRCMD names a program that does
    not exist or lacks its MATLAB runtime, and if SPM_HOME is a folder whose SPM cannot be run and there is no other.
    """
    for source, command in (("--spm-cmd", spm_cmd), ("SPMMCRCMD", os.environ.get("SPMMCRCMD"))):
        if command:
            return _given(source, command)
    home = os.environ.get("SPM_HOME")
    words = (_in_home(Path(home).absolute()) if home else None) or _on_path()
    if words is None and home and Path(home).is_dir():
        raise UserError(f"SPM_HOME={home}: {_why_not(Path(home))}")
    return words


def _why_not(home: Path) -> str:
    """Why no SPM in this folder can be run, and what to do."""
    forced = "FORCE_SPMMCR" in os.environ
    for program, name in (("spm-octave", "GNU Octave"), ("spm-matlab", "MATLAB")):
        if not forced and (home / "bin" / program).is_file() and not interpreter(program):
            variable = INTERPRETERS[program][0]
            tried = os.environ.get(variable)
            missing = f"{variable}={tried} is not a program" if tried else f"{name} was not found"
            return f"SPM exists, but {missing}. Install {name}, or set {variable} to it."
    if list(home.glob("run_spm*.sh")):
        return "a compiled SPM exists, but its MATLAB runtime was not found. Set MCR_HOME to its folder."
    only = "compiled SPM, which FORCE_SPMMCR requires" if forced else "SPM that could be run"
    return f"there is no {only}. Give SPM's own folder, or unset SPM_HOME."


def _given(source: str, command: str) -> tuple[str, ...]:
    try:
        words = shlex.split(command)
    except ValueError as error:
        raise UserError(f"{source} {command}: cannot be read as a command ({error}).") from error
    path = shutil.which(words[0]) if words else None
    if path is None:
        raise UserError(
            f"{source}: {words[0] if words else 'blank'} is not a program. Give, for example, "
            "/opt/spm/bin/spm-octave."
        )
    program, *rest = _absolute(path), *words[1:]
    rest = rest[:-1] if rest[-1:] == ["script"] else rest
    if not rest and re.fullmatch(r"run_spm\d*\.sh", Path(program).name):
        runtime = _runtime()
        if runtime is None:
            raise UserError(
                f"{source}: {program} needs the folder of the MATLAB runtime that it was compiled with. "
                f"Give, for example, '{program} /opt/mcr/R2024b', or set MCR_HOME."
            )
        rest = [runtime]
    return (program, *rest, "script")


def _in_home(home: Path) -> tuple[str, ...] | None:
    """SPM in its own folder: programs without a licence first."""
    folders = os.pathsep.join([str(home / "bin"), str(home)])
    return _interpreted("spm-octave", folders) or _compiled(home) or _interpreted("spm-matlab", folders)


def _on_path() -> tuple[str, ...] | None:
    """SPM on the PATH. In SPM's own images ``spm`` is a link to its program in /opt/spm."""
    path = os.environ.get("PATH", "")
    link = shutil.which("spm", path=path)
    target = Path(link).resolve() if link else Path()
    mcr = shutil.which("spm-mcr", path=path)
    return (
        (_in_home(target.parent) if re.fullmatch(r"spm\d+", target.name) else None)
        or (_in_home(target.parent.parent) if target.name == "spm-octave" else None)
        or _interpreted("spm-octave", path)
        or ((mcr, "script") if mcr and _runtime() else None)
        or _interpreted("spm-matlab", path)
    )


def _interpreted(program: str, path: str) -> tuple[str, ...] | None:
    wrapper = None if "FORCE_SPMMCR" in os.environ else shutil.which(program, path=path)
    return (_absolute(wrapper), "script") if wrapper and interpreter(program) else None


def _absolute(program: str) -> str:
    return os.path.abspath(program)  # noqa: PTH100 - keeps the name of a link, which matters here


def interpreter(program: str) -> str | None:
    """The Octave or MATLAB that the wrapper script `program` calls, or None if there is none."""
    variable, *usual = INTERPRETERS[program]
    named = os.environ.get(variable)
    return next((name for name in ([named] if named else usual) if shutil.which(name)), None)


def _compiled(home: Path) -> tuple[str, ...] | None:
    """SPM compiled with MATLAB: run_spm25.sh and the runtime; else spm25, which finds the runtime itself."""
    starters, runtime = sorted(home.glob("run_spm*.sh")), _runtime()
    if starters and runtime:
        through = () if os.access(starters[-1], os.X_OK) else ("/bin/sh",)
        return (*through, str(starters[-1]), runtime, "script")
    programs = [p for p in sorted(home.glob("spm[0-9]*")) if re.fullmatch(r"spm\d+", p.name)]
    programs = [p for p in programs if p.is_file() and os.access(p, os.X_OK)]
    return (str(programs[-1]), "script") if programs else None


def _runtime() -> str | None:
    """The MATLAB runtime's folder: MCR_HOME, MCRROOT, LD_LIBRARY_PATH, or the newest one in a usual folder."""
    named = [os.environ.get(name, "") for name in ("MCR_HOME", "MCRROOT")]
    listed = re.findall(r"([^:]+)/runtime/glnxa64", os.environ.get("LD_LIBRARY_PATH", ""))
    usual = [str(path) for root in RUNTIMES for path in sorted(Path(root).glob("[Rv][0-9]*"), reverse=True)]
    return next((folder for folder in (*named, *listed, *usual) if folder and Path(folder).is_dir()), None)


def spm_banner(command: Sequence[str]) -> tuple[str, str]:
    """The versions that SPM prints: its own and that of Octave or MATLAB. This also shows that it runs.

    Raises UserError if it does not run, or is older than SPM12.
    """
    program = [*command[:-1], "--version"]
    with private_folder(Path(tempfile.gettempdir())) as folder:
        try:
            answer = call(program, folder, time_limit=300)
        except OSError as error:
            raise UserError(f"SPM does not run: {shlex.join(program)}: {error}") from error
    match = re.search(r"(SPM(\d+)\w*, version .*)(?:\n+(.*, version .*))?", answer.said)
    if answer.code != 0 or not match:
        raise UserError(f"SPM does not run: {shlex.join(program)}: {complaint(answer, 300)}")
    if int(match[2]) < OLDEST:
        raise UserError(f"{shlex.join(program)} is {match[1].strip()}. SPM12 or a newer one is needed.")
    return match[1].strip(), (match[3] or "").strip()


def spm_version(command: Sequence[str]) -> str:
    """The version that SPM prints. Raises UserError as `spm_banner` does."""
    return spm_banner(command)[0]


def call(command: Sequence[str], folder: Path, threads: int = 1, time_limit: float | None = None) -> Answer:
    """Run SPM in `folder` for at most `time_limit` seconds. The folder is removed if this process is killed.

    Home and temporary files are in that folder too, so that a read-only system suffices. All processes that it
    starts end with the call (see `guard`).
    """
    words = [sys.executable, "-IS", str(guard.__file__), str(folder), *command]
    with tempfile.TemporaryFile(dir=folder) as said:
        process = subprocess.Popen(
            words,
            cwd=folder,
            env=_environment(command[0], folder, threads),
            stdin=subprocess.PIPE,
            stdout=said,
            stderr=subprocess.STDOUT,
            start_new_session=True,  # Ctrl-C is handled by this process
        )
        code = None
        try:
            code = process.wait(time_limit)
        except subprocess.TimeoutExpired:
            pass
        finally:
            assert process.stdin
            process.stdin.close()
            process.wait()
        return Answer(code, _end(said))


def _end(file: IO[bytes]) -> str:
    size = file.seek(0, os.SEEK_END)
    file.seek(max(0, size - KEPT))
    return file.read().decode(errors="replace").replace("\r", "\n")


def _environment(program: str, folder: Path, threads: int) -> dict[str, str]:
    path = Path(program).resolve()
    environment = {**os.environ, "TMPDIR": str(folder), "OMP_NUM_THREADS": str(threads)}
    if not (path.name == "spm-matlab" and _writable(environment.get("HOME"))):
        environment["HOME"] = str(folder)  # MATLAB's licence may be in the user's home
    if not _writable(environment.get("MCR_CACHE_ROOT")):
        environment["MCR_CACHE_ROOT"] = str(folder)
    if path.name != "spm":  # SPM's bin/spm uses these variables to choose; the other programs need them
        environment["OCTAVE_EXEC"] = interpreter("spm-octave") or "octave-cli"
        environment["MCR_HOME"] = _runtime() or environment.get("MCR_HOME", "")
    # The wrapper scripts prefer SPM_HOME to the SPM that they belong to, and they run in another folder.
    if (path.parent.parent / "spm.m").is_file():
        environment["SPM_HOME"] = str(path.parent.parent)
    elif home := environment.get("SPM_HOME"):
        environment["SPM_HOME"] = str(Path(home).absolute())
    return environment


def _writable(folder: str | None) -> bool:
    return bool(folder) and Path(str(folder)).is_dir() and os.access(str(folder), os.W_OK)


def complaint(answer: Answer, time_limit: float) -> str:
    """Why SPM failed and what to try, in one line."""
    if answer.code is None:
        return (
            f"SPM was stopped after {time_limit / 60:.3g} minutes (--spm-time-limit). "
            f"Its last output: {last_words(answer.said)}"
        )
    text = f"{answer.said}\nexit code {answer.code}"
    flags = re.IGNORECASE | re.MULTILINE
    advice = next((what for pattern, what in ADVICE if re.search(pattern, text, flags)), ELSE)
    return f"SPM ended with code {answer.code}. Its output: {last_words(answer.said)} -- {advice}"


def last_words(said: str) -> str:
    """The message of SPM's failure, else its last line; at most 300 characters.

    A batch ends with a long message without a cause; the cause comes before it, after "Failed 'Segment'".
    """
    lines = [line.strip() for line in said.splitlines() if line.strip()]
    cause = [line for before, line in pairwise(lines) if re.search(r"Failed +'", before)]
    candidates = cause or [line for line in lines if line.startswith("SPM failed:")] or lines[-1:]
    return candidates[0][:300] if candidates else "nothing"
