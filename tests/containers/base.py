"""What an image is made from here: a base root by debootstrap, wheels by pip, tools in a venv."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

from engine import UnavailableError, call

ROOT = Path(__file__).parents[2]
REVISION = "0123456789abcdef0123456789abcdef01234567"
DATE = "1767225600"  # the Dockerfile's own


def debian_root(place: Path) -> Path:
    """A minimal root of this machine's own Debian, from the mirror that its apt uses."""
    if os.geteuid() != 0 or not shutil.which("debootstrap"):
        raise UnavailableError("a base root needs debootstrap, run by root")
    release = re.search(r"^VERSION_CODENAME=(\w+)", Path("/etc/os-release").read_text(), re.MULTILINE)
    suites = call("apt-get", "indextargets", "--format", "$(RELEASE) $(SITE)", "Created-By: Packages")
    mirrors = dict(line.split(" ", 1) for line in suites.splitlines() if " " in line)
    if not release or release[1] not in mirrors:
        raise UnavailableError("a base root needs Debian's or Ubuntu's own packages in apt's sources")
    call("debootstrap", "--variant=minbase", release[1], place, mirrors[release[1]])
    for leftover in ("dev", "var/cache/apt/archives", "var/log"):  # an engine has devices of its own
        for path in (place / leftover).glob("**/*"):
            if not path.is_dir() or path.is_symlink():
                path.unlink()
    return place


def packed(root: Path, archive: Path) -> Path:
    call("tar", "-C", root, "--numeric-owner", "-cf", archive, ".")
    return archive


def wheels(folder: Path) -> Path:
    """All that the lock file names, and PyTorch for CPU, fetched as this machine's pip is told to."""
    version = re.search(r"^torch==(\S+)", (ROOT / "container" / "torch-cuda.lock").read_text(), re.MULTILINE)
    assert version
    pip = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", str(folder)]
    lock = ROOT / "container" / "requirements.lock"
    for what in (["--require-hashes", "--requirement", str(lock)], [f"torch=={version[1]}+cpu"]):
        done = subprocess.run([*pip, *what], capture_output=True, text=True, check=False)
        if done.returncode:
            raise UnavailableError(f"pip cannot fetch {what[-1]}: {done.stderr.strip()[-300:]}")
    return folder


def tool(name: str) -> str:
    """A program of container/tools.txt, as `make container-test` installs them."""
    found = Path(os.environ.get("CONTAINER_TOOLS", ROOT / ".venv" / "tools" / "bin")) / name
    if not found.is_file():
        raise UnavailableError(f"{name} is not installed: make .venv/tools")
    return str(found)
