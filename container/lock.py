"""Write the images' lock files from pyproject.toml and constraints.txt: `make lock`, which has uv at hand.

requirements.lock has every package that the app needs to run, with the hashes of all its files, for any
Python from 3.11 on. PyTorch and what comes with it for GPUs are apart, in torch-cuda.lock: there are several
builds of PyTorch under one version, and only that one comes from the same place as the rest.
"""

import re
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).parent
OPTIONS = "--universal --python-version 3.11 --generate-hashes --no-header --no-annotate --no-emit-index-url"
OF_TORCH = re.compile(r"(torch|triton|nvidia-[\w-]+|cuda-[\w-]+)==")
HEAD = "# Written by `make lock` from pyproject.toml and constraints.txt.\n"


def main(uv: str) -> None:
    """Resolve once, and write each package into its file."""
    command = [uv, "pip", "compile", "pyproject.toml", "--constraint", "constraints.txt", *OPTIONS.split()]
    told = subprocess.run(command, cwd=HERE.parent, check=True, stdout=subprocess.PIPE, text=True).stdout
    packages = re.split(r"^(?=\w)", told, flags=re.MULTILINE)
    torch = [package for package in packages if OF_TORCH.match(package)]
    others = [package for package in packages if not OF_TORCH.match(package)]
    (HERE / "requirements.lock").write_text(HEAD + "".join(others))
    (HERE / "torch-cuda.lock").write_text(HEAD + "".join(torch))


if __name__ == "__main__":
    main(sys.argv[1])
