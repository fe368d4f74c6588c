"""The images' two recipes and their script, as far as they can be looked at without an engine."""

import re
import shutil
import subprocess

import pytest
from paths import ROOT

from bids_alphagan import __version__

DOCKER, APPTAINER = ((ROOT / name).read_text() for name in ("Dockerfile", "Singularity.def"))


def arguments(recipe: str) -> dict[str, str]:
    """Build arguments and their defaults."""
    if recipe == "docker":
        return dict(re.findall(r"^ARG (\w+)=(.*)$", DOCKER, re.MULTILINE))
    section = APPTAINER.partition("%arguments\n")[2].partition("\n%")[0]
    return dict(re.findall(r"^ *(\w+)=(.*)$", section, re.MULTILINE))


def labels(recipe: str) -> dict[str, str]:
    """OCI labels, with ARGUMENT where a build argument goes."""
    if recipe == "docker":
        found = re.findall(r'(org\.opencontainers\.image\.\w+)="(.*?)"', DOCKER)
        return {name: re.sub(r"\$\{(\w+)\}", r"\1", value) for name, value in found}
    found = re.findall(r"^ *(org\.opencontainers\.image\.\w+) (.*)$", APPTAINER, re.MULTILINE)
    return {name: re.sub(r"\{\{ (\w+) \}\}", r"\1", value) for name, value in found}


def test_both_recipes_have_the_same_arguments_and_labels() -> None:
    assert arguments("docker") == arguments("apptainer")
    assert labels("docker") == labels("apptainer")
    assert labels("docker")["org.opencontainers.image.revision"] == "REVISION"
    assert arguments("docker")["VERSION"] == __version__
    assert all(
        arguments("docker")[name] for name in ("VERSION", "REVISION", "SOURCE")
    )  # a label is not empty


def test_every_argument_is_used() -> None:
    for name in arguments("apptainer"):
        assert f"{{{{ {name} }}}}" in APPTAINER, name


@pytest.mark.parametrize("target", ["image", "sif"])
def test_make_says_which_revision_an_image_is_of(target: str) -> None:
    head = subprocess.run(["git", "rev-parse", "HEAD"], cwd=ROOT, capture_output=True, text=True, check=False)
    if head.returncode or not shutil.which("make"):
        pytest.skip("needs make, and a git checkout")
    command = ["make", "-n", target, "ENGINE=podman", "BUILD=--build-arg TORCH=cpu"]
    said = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert re.search(rf" --build-arg REVISION={head.stdout.strip()}(-dirty)? ", said)
    assert f" --build-arg VERSION={__version__} " in said
    assert " --build-arg TORCH=cpu " in said


def test_pytorch_for_cpus_alone_needs_its_index() -> None:
    command = ["/bin/sh", "container/install.sh", "app", str(ROOT)]
    environment = {
        "PATH": "/nonexistent",
        "TORCH": "cpu",
    }  # so that nothing is installed here, whatever happens
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "TORCH=cpu needs TORCH_INDEX, too" in done.stderr
    assert len(done.stderr.splitlines()) == 1
    done = subprocess.run(
        command, cwd=ROOT, env=environment | {"TORCH": "x"}, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (2, "install.sh: TORCH=x: choose cuda or cpu\n")
