"""``bids-alphagan-check``: what a run would find on this machine, and whether a run is possible.

``bids-alphagan --version -v`` prints the same. Nothing is downloaded or written. If the default template is
missing, a request shows whether TemplateFlow's archive can be reached.
"""

import argparse
import os
import platform
import shlex
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from importlib import metadata
from pathlib import Path

from bids_alphagan import __version__
from bids_alphagan.common.process.scratch import user_home
from bids_alphagan.config import Config
from bids_alphagan.templates import fetch, templateflow_homes

PACKAGES = ("antspyx", "nipype", "pybids", "nibabel", "numpy", "scipy", "templateflow")
DEFAULT_TEMPLATE = str(Config.__dataclass_fields__["template"].default)


class MissingError(Exception):
    """Something is not installed or does not exist, which may be acceptable."""


@dataclass(frozen=True)
class Finding:
    """The result of checking `what`.

    state: "ok", "missing" or "broken". stops: whether this makes a run impossible.
    """

    what: str
    state: str
    text: str
    stops: bool


def main(argv: Sequence[str] | None = None) -> int:
    """Print the table and return the exit code: 0 if a run is possible, else 1."""
    parser = argparse.ArgumentParser(
        prog="bids-alphagan-check",
        description="Report what a run would find on this machine. Exit code: 0 if a run is possible, else 1.",
        epilog="An SPM or a template given here must exist. Otherwise SPM may be missing, and so may the "
        "default template if it can be fetched.",
    )
    parser.add_argument("--spm-cmd", metavar="CMD", help="command that runs an SPM batch script")
    parser.add_argument(
        "--template", metavar="NAME|DIR", help=f"TemplateFlow name or folder (default: {DEFAULT_TEMPLATE})"
    )
    options = parser.parse_args(argv)
    results = findings(options.spm_cmd, options.template)
    width = max(len(finding.what) for finding in results)
    for finding in results:
        print(f"{finding.state:8}{finding.what:{width + 2}}{finding.text}")
    stopping = [finding.what for finding in results if finding.stops]
    print(f"A run is not possible: see {', '.join(stopping)}." if stopping else "A run is possible.")
    return 1 if stopping else 0


def findings(spm_cmd: str | None = None, template: str | None = None) -> list[Finding]:
    """Check everything that a run depends on. Does not raise for what is missing or broken."""
    always = ("missing", "broken")
    return [
        _look("bids-alphagan", lambda: f"{__version__} ({Path(__file__).parent})"),
        _look("python", lambda: f"{platform.python_version()} ({sys.executable})"),
        _look("machine", _machine),
        _look("torch", _torch, always),
        _look("GPU", _gpu),
        *(_look(name, lambda name=name: _version(name), always) for name in PACKAGES),  # type: ignore[misc]
        _look("BIDS validator", _validator),
        _look("SPM", lambda: _spm(spm_cmd), always if spm_cmd else ("broken",)),
        _masks_template(template),
        _look("TEMPLATEFLOW_HOME", lambda: _folder(templateflow_homes()[0])),
        _look("home", lambda: _folder(user_home() or Path("/nonexistent"))),
        _look("temporary files", lambda: _folder(Path(tempfile.gettempdir())), always),
    ]


def _look(what: str, probe: Callable[[], str], stopping: Sequence[str] = ()) -> Finding:
    try:
        state, text = "ok", probe()
    except MissingError as error:
        state, text = "missing", str(error)
    except Exception as error:  # a broken installation can raise any exception
        state, text = "broken", str(error) or type(error).__name__
    return Finding(what, state, " ".join(text.split()), state in stopping)


def _machine() -> str:
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return f"{platform.platform()}, {len(os.sched_getaffinity(0))} cores, {memory:.0f} GB of memory"


def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError as error:
        raise MissingError(f"pip install {package}") from error


def _torch() -> str:
    version = _version("torch")
    import torch

    return f"{version}, for {f'CUDA {torch.version.cuda}' if torch.version.cuda else 'CPUs'}"


def _gpu() -> str:
    import torch

    if not torch.cuda.is_available():
        raise MissingError("training on the CPU")
    half = "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "no bf16"
    cards = [torch.cuda.get_device_properties(k) for k in range(torch.cuda.device_count())]
    return "; ".join(f"{card.name}, {card.total_memory / 2**30:.0f} GB, {half}" for card in cards)


def _validator() -> str:
    program = Path(sys.executable).with_name("bids-validator-deno")
    if not program.is_file():
        raise MissingError("the input will not be validated: pip install bids-validator-deno")
    # In a git checkout, its --version prints that checkout's commit; so only --help is called.
    subprocess.run([str(program), "--help"], capture_output=True, timeout=120, check=True)
    return _version(program.name)


def _spm(spm_cmd: str | None) -> str:
    from bids_alphagan.segmenters.spm_program import find_spm, spm_banner

    command = find_spm(spm_cmd)
    if command is None:
        raise MissingError("antspyx makes the masks; to use SPM, see --spm-cmd and SPM_HOME (docs/spm.md)")
    return f"{'; '.join(filter(None, spm_banner(command)))} ({shlex.join(command)})"


def _masks_template(named: str | None) -> Finding:
    """A template must exist, except that the default one may be fetched from TemplateFlow's archive."""
    finding = _look("template", lambda: _template(named or DEFAULT_TEMPLATE), ("missing", "broken"))
    if finding.state != "missing" or named:
        return finding
    if fetch.reachable():
        return replace(finding, text=f"A run would fetch it. {finding.text}", stops=False)
    return replace(finding, text=f"TemplateFlow's archive does not answer. {finding.text}")


def _template(spec: str) -> str:
    from bids_alphagan.common.errors import UserError
    from bids_alphagan.common.volume import load
    from bids_alphagan.templates import find_template

    try:
        template = find_template(spec, download=False)
    except UserError as error:
        if "is not in" in str(error):
            raise MissingError(str(error)) from error
        raise
    image = load(template.t2w)
    shape = " x ".join(map(str, image.shape[:3]))
    size = " x ".join(f"{edge:.3g}" for edge in image.header.get_zooms()[:3])
    where = f"{template.t2w.name}, brain mask, GM, WM and CSF maps in {template.t2w.parent}"
    return f"{template.name}: {shape} voxels of {size} mm, {template.species or 'species unknown'}; {where}"


def _folder(folder: Path) -> str:
    """Where a folder is, and how much may be written there."""
    try:
        if not folder.is_dir():
            raise MissingError(f"{folder} does not exist")
    except PermissionError as error:
        raise MissingError(f"{folder} cannot be accessed") from error
    if not os.access(folder, os.W_OK | os.X_OK):
        raise MissingError(f"{folder} cannot be written to")
    return f"{folder}, {shutil.disk_usage(folder).free / 2**30:.0f} GB free"


if __name__ == "__main__":
    sys.exit(main())
