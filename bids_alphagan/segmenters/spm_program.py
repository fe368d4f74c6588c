"""SPM as a program: where it is, how it is run, and what it says when it fails. See docs/spm.md.

One call, ``COMMAND script FILE.m``, serves SPM under Octave (bin/spm-octave), under MATLAB (bin/spm-matlab)
and compiled with the MATLAB runtime (run_spm*.sh RUNTIME). It stands in for nipype's SPM interface, which
reads a banner that Octave does not print, has no time limit, and is not there at the group level.
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

OLDEST = 12  # SPM8 and before read another batch
KEPT = 100_000  # bytes of the output's end that are kept: a program in a loop may print gigabytes

# By wrapper script: the variable that names its interpreter, and the interpreter's usual names.
INTERPRETERS = {
    "spm-octave": ("OCTAVE_EXEC", "octave-cli", "octave"),
    "spm-matlab": ("MATLAB_EXEC", "matlab"),
}
RUNTIMES = (
    "/opt/mcr",
    "/opt/matlabruntime",
    "/usr/local/MATLAB/MATLAB_Runtime",
)  # each holds R2024b, v97 ...

_MEMORY = "Fewer --nprocs, or a machine with more memory, may help"
# What is found in the output, and what to try then; the first that fits. 137 is 128 + SIGKILL.
ADVICE = (
    (
        r"line \d+: +\d+ Killed|^exit code 137$",
        f"It was killed, for want of memory perhaps. {_MEMORY}.",
    ),
    (r"out of memory|bad_alloc", f"It had not enough memory. {_MEMORY}."),
    (r"line \d+: +\d+ (Segmentation fault|Aborted|Bus error|Illegal)|^exit code 1(3[2-9])$", "It crashed."),
    (
        r"octave\S*: (command )?not found|octave executable not found",
        "GNU Octave is missing: install it, or name its octave-cli with OCTAVE_EXEC.",
    ),
    (r"matlab executable not found", "MATLAB is missing: name it with MATLAB_EXEC."),
    (
        r"licen[sc]e (checkout|manager)|licen[sc]ing (error|failed)|licen[sc]e.*(expired|invalid|not found)",
        "MATLAB has no licence here: SPM under Octave, or compiled, needs none (--spm-cmd).",
    ),
    (
        r"matlab runtime not found|libmwlaunchermain|libmwmclmcr|could not find version .* matlab runtime",
        "The MATLAB runtime that this SPM was compiled with is missing: name its folder with MCR_HOME.",
    ),
    (r"no space left on device", "The disk is full: -w puts intermediate files elsewhere."),
    (r"cannot find the spm directory|spm directory not found", "SPM_HOME must be the folder that has spm.m."),
)
ELSE = "The log has all that it said; --segmenter ants does without SPM."


@dataclass(frozen=True)
class Answer:
    """What a program said (its end, standard error included), and its exit code; None: it took too long."""

    code: int | None
    said: str


def find_spm(spm_cmd: str | None = None) -> tuple[str, ...] | None:
    """The words of the command that runs an SPM script, or None where there is no SPM.

    Looked for in `spm_cmd` (as for nipype, e.g. ``/opt/spm/bin/spm-octave script``), SPMMCRCMD, SPM_HOME and
    on the PATH; with FORCE_SPMMCR only for a compiled SPM. Raises UserError when `spm_cmd` or SPMMCRCMD names
    a program that does not exist, or that lacks its MATLAB runtime, and when SPM_HOME is a folder whose SPM
    cannot be run and no other is found.
    """
    for source, command in (("--spm-cmd", spm_cmd), ("SPMMCRCMD", os.environ.get("SPMMCRCMD"))):
        if command:
            return _given(source, command)
    home = os.environ.get("SPM_HOME")
    found = (_in_home(Path(home).absolute()) if home else None) or _on_path()
    if found is None and home and Path(home).is_dir():
        raise UserError(f"SPM_HOME={home}: {_why_not(Path(home))}")
    return found


def _why_not(home: Path) -> str:
    """Why no SPM in this folder can be run, and what to do."""
    forced = "FORCE_SPMMCR" in os.environ
    for program, name in (("spm-octave", "GNU Octave"), ("spm-matlab", "MATLAB")):
        if not forced and (home / "bin" / program).is_file() and not interpreter(program):
            variable = INTERPRETERS[program][0]
            tried = os.environ.get(variable)
            missing = f"{variable}={tried} is no program" if tried else f"{name} was not found"
            return f"SPM is there, but {missing}. Install {name}, or name it with {variable}."
    if list(home.glob("run_spm*.sh")):
        return "a compiled SPM is there, but its MATLAB runtime was not found. Name its folder with MCR_HOME."
    only = "compiled SPM, which FORCE_SPMMCR asks for" if forced else "SPM that could be run"
    return f"there is no {only}. Give SPM's own folder, or unset SPM_HOME."


def _given(source: str, command: str) -> tuple[str, ...]:
    try:
        words = shlex.split(command)
    except ValueError as error:
        raise UserError(f"{source} {command}: cannot be read as a command ({error}).") from error
    found = shutil.which(words[0]) if words else None
    if found is None:
        raise UserError(
            f"{source}: {words[0] if words else 'blank'} is not a program. Give, for example, "
            "/opt/spm/bin/spm-octave."
        )
    program, *rest = _absolute(found), *words[1:]
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
    """SPM in its own folder: what needs no licence first."""
    folders = os.pathsep.join([str(home / "bin"), str(home)])
    return _interpreted("spm-octave", folders) or _compiled(home) or _interpreted("spm-matlab", folders)


def _on_path() -> tuple[str, ...] | None:
    """SPM among the programs. In SPM's own images ``spm`` is a link to its program in /opt/spm."""
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
    found = None if "FORCE_SPMMCR" in os.environ else shutil.which(program, path=path)
    return (_absolute(found), "script") if found and interpreter(program) else None


def _absolute(program: str) -> str:
    return os.path.abspath(program)  # noqa: PTH100 - a link's own name says what it is


def interpreter(program: str) -> str | None:
    """The Octave or MATLAB that the wrapper script `program` is to call, or None where there is none."""
    variable, *usual = INTERPRETERS[program]
    named = os.environ.get(variable)
    return next((name for name in ([named] if named else usual) if shutil.which(name)), None)


def _compiled(home: Path) -> tuple[str, ...] | None:
    """SPM compiled with MATLAB: run_spm25.sh and the runtime; else spm25, which knows where that is."""
    starters, runtime = sorted(home.glob("run_spm*.sh")), _runtime()
    if starters and runtime:
        through = () if os.access(starters[-1], os.X_OK) else ("/bin/sh",)
        return (*through, str(starters[-1]), runtime, "script")
    programs = [p for p in sorted(home.glob("spm[0-9]*")) if re.fullmatch(r"spm\d+", p.name)]
    programs = [p for p in programs if p.is_file() and os.access(p, os.X_OK)]
    return (str(programs[-1]), "script") if programs else None


def _runtime() -> str | None:
    """The MATLAB runtime's folder: MCR_HOME, MCRROOT, LD_LIBRARY_PATH, or the newest in a usual place."""
    named = [os.environ.get(name, "") for name in ("MCR_HOME", "MCRROOT")]
    listed = re.findall(r"([^:]+)/runtime/glnxa64", os.environ.get("LD_LIBRARY_PATH", ""))
    usual = [str(path) for place in RUNTIMES for path in sorted(Path(place).glob("[Rv][0-9]*"), reverse=True)]
    return next((place for place in (*named, *listed, *usual) if place and Path(place).is_dir()), None)


def spm_banner(command: Sequence[str]) -> tuple[str, str]:
    """SPM's version and that of Octave or MATLAB, as it says them; so it is shown to run, too.

    Raises UserError when it does not, or is older than SPM12.
    """
    program = [*command[:-1], "--version"]
    with private_folder(Path(tempfile.gettempdir())) as folder:
        try:
            answer = call(program, folder, time_limit=300)
        except OSError as error:
            raise UserError(f"SPM does not run: {shlex.join(program)}: {error}") from error
    told = re.search(r"(SPM(\d+)\w*, version .*)(?:\n+(.*, version .*))?", answer.said)
    if answer.code != 0 or not told:
        raise UserError(f"SPM does not run: {shlex.join(program)}: {complaint(answer, 300)}")
    if int(told[2]) < OLDEST:
        raise UserError(f"{shlex.join(program)} is {told[1].strip()}. SPM12 or a newer one is needed.")
    return told[1].strip(), (told[3] or "").strip()


def spm_version(command: Sequence[str]) -> str:
    """SPM's version, as it says it. Raises UserError as `spm_banner` does."""
    return spm_banner(command)[0]


def call(command: Sequence[str], folder: Path, threads: int = 1, time_limit: float | None = None) -> Answer:
    """Run SPM in `folder`, which is removed should this process be killed, for `time_limit` seconds at most.

    Home and temporary files are there, too, so that a read-only system will do. Nothing that it has started
    outlives the call (see `guard`).
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
            start_new_session=True,  # Ctrl-C is for this process to handle
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
        environment["HOME"] = str(folder)  # but MATLAB's licence may lie in the user's own home
    if not _writable(environment.get("MCR_CACHE_ROOT")):
        environment["MCR_CACHE_ROOT"] = str(folder)
    if path.name != "spm":  # SPM's bin/spm chooses by these variables, and the others need them
        environment["OCTAVE_EXEC"] = interpreter("spm-octave") or "octave-cli"
        environment["MCR_HOME"] = _runtime() or environment.get("MCR_HOME", "")
    # The wrapper scripts prefer SPM_HOME to the SPM that they are part of; and they run in another folder.
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
            f"Last it said: {last_words(answer.said)}"
        )
    text = f"{answer.said}\nexit code {answer.code}"
    flags = re.IGNORECASE | re.MULTILINE
    advice = next((what for pattern, what in ADVICE if re.search(pattern, text, flags)), ELSE)
    return f"SPM ended with code {answer.code}. It said: {last_words(answer.said)} -- {advice}"


def last_words(said: str) -> str:
    """What SPM said of its failure, else its last line; at most 300 characters.

    A batch ends with a long message that names no cause: that comes before it, after "Failed 'Segment'".
    """
    lines = [line.strip() for line in said.splitlines() if line.strip()]
    cause = [line for before, line in pairwise(lines) if re.search(r"Failed +'", before)]
    told = cause or [line for line in lines if line.startswith("SPM failed:")] or lines[-1:]
    return told[0][:300] if told else "nothing"
