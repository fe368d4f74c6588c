"""Apptainer itself, where APPTAINER names its program: Singularity.def built on the stand-in root, and run.

The only change to Singularity.def is where its base comes from: a folder in the place of a registry.
"""

import os
import shutil
import subprocess
from pathlib import Path

import pytest
from base import REVISION, ROOT

from bids_alphagan import __version__

APPTAINER = os.environ.get("APPTAINER") or shutil.which("apptainer") or ""
pytestmark = pytest.mark.skipif(not APPTAINER, reason="no apptainer on the PATH, nor named by APPTAINER")
CLEAN = ("--cleanenv", "--containall", "--no-home", "--net", "--network", "none")
TEMPLATE = ("--preset", "demo", "--template", "/data/derivatives/templateflow/tpl-RatPhantom")


def asked(*words: str | Path, code: int = 0) -> str:
    command = [APPTAINER, *map(str, words)]
    said = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert said.returncode == code, said.stdout[-2000:] + said.stderr[-3000:]
    return said.stdout + said.stderr


@pytest.fixture(scope="module")
def sif(debian: Path, wheels: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("apptainer")
    subprocess.run(["cp", "-a", debian, place / "root"], check=True)
    (place / "root/wheels").mkdir()
    text = (ROOT / "Singularity.def").read_text()
    (place / "local.def").write_text(text.replace("Bootstrap: docker\n", "Bootstrap: localimage\n"))
    arguments = [f"SPM_IMAGE={place / 'root'}", "TORCH=cpu", f"REVISION={REVISION}"]
    options = [word for argument in arguments for word in ("--build-arg", argument)]
    asked("build", *options, "--bind", f"{wheels}:/wheels", place / "bids-alphagan.sif", place / "local.def")
    return place / "bids-alphagan.sif"


def test_labels_and_help(sif: Path) -> None:
    labels = asked("inspect", "--labels", sif)
    assert f"org.opencontainers.image.version: {__version__}" in labels
    assert f"org.opencontainers.image.revision: {REVISION}" in labels
    assert "apptainer run --cleanenv --nv" in asked("run-help", sif)


def test_test_section(sif: Path) -> None:
    assert f"bids-alphagan {__version__}" in asked("test", "--cleanenv", sif)


def test_participant_and_group(sif: Path, heads: Path, output: Path) -> None:
    run = ["run", *CLEAN, "--bind", f"{heads}:/data:ro", "--bind", f"{output}:/out", sif, "/data", "/out"]
    assert "4 of 4 scans are ready" in asked(*run, "participant", *TEMPLATE)
    small = ["--model", "sigmarat1", "--iterations", "4", "--n-synthetic", "2", "--qc-width", "1e9"]
    asked(*run, "group", *TEMPLATE, *small)
    assert (output / "group.html").is_file()


def test_exit_code(sif: Path, heads: Path) -> None:
    run = ["run", *CLEAN, "--bind", f"{heads}:/data:ro", sif, "/data", "/data/out", "participant", *TEMPLATE]
    assert "bids-alphagan: error: /data/out/.work: cannot be written" in asked(*run, code=2)
