"""Files about the app, held against the tools of those who read them."""

import json
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from base import ROOT

from bids_alphagan.cli.main import parse

BOUTIQUES = ROOT / "boutiques" / "bids-alphagan.json"
INVOCATION = {
    "bids_dir": "/data",
    "output_dir": "/out",
    "analysis_level": "group",
    "model": ["adni", "sigmarat1"],
    "adam_betas": [0.5, 0.9],
    "iterations": 10,
    "keep_rejected": True,
    "template_name": "Fischer344",
}


@pytest.fixture
def asked(tool: Callable[[str], str], tmp_path: Path) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Run one of the tools with a home of its own."""

    def ask(name: str, *words: str | Path) -> subprocess.CompletedProcess[str]:
        command = [tool(name), *map(str, words)]
        environment = {"PATH": "/usr/bin:/bin", "HOME": str(tmp_path), "LANG": "C.UTF-8"}
        return subprocess.run(
            command, env=environment, cwd=ROOT, capture_output=True, text=True, check=False, timeout=300
        )

    return ask


def test_boutiques_accepts_the_descriptor(asked: Callable[..., subprocess.CompletedProcess[str]]) -> None:
    said = asked("bosh", "validate", BOUTIQUES)
    assert (said.returncode, said.stdout.strip()) == (0, "OK"), said.stderr


def test_boutiques_makes_a_call_that_the_app_understands(
    asked: Callable[..., subprocess.CompletedProcess[str]], tmp_path: Path
) -> None:
    invocation = tmp_path / "invocation.json"
    invocation.write_text(json.dumps(INVOCATION))
    said = asked("bosh", "exec", "simulate", BOUTIQUES, "-i", invocation)
    assert said.returncode == 0, said.stderr
    program, *words = said.stdout.strip().splitlines()[-1].split()
    config = parse(words)
    assert program == "bids-alphagan"
    assert (str(config.bids_dir), str(config.output_dir), config.analysis_level) == ("/data", "/out", "group")
    assert (config.model, config.iterations, config.keep_rejected) == (["adni", "sigmarat1"], 10, True)
    assert list(config.adam_betas) == [0.5, 0.9]
    assert config.template == "Fischer344"


@pytest.mark.parametrize(
    "change",
    [
        {"analysis_level": "cohort"},
        {"iterations": "many"},
        {"iterations": 0},
        {"suffix": ["bold", "epi"]},
        {"model": []},
        {"adam_betas": [0.5]},
        {"template": "/t"},
        {"no_such_option": 1},
    ],
    ids=lambda change: "-".join(map(str, *change.items())),
)
def test_boutiques_refuses_wrong_types_choices_bounds_and_numbers_of_values(
    change: dict[str, object], asked: Callable[..., subprocess.CompletedProcess[str]], tmp_path: Path
) -> None:
    invocation = tmp_path / "invocation.json"
    invocation.write_text(json.dumps(INVOCATION | change))
    assert asked("bosh", "exec", "simulate", BOUTIQUES, "-i", invocation).returncode != 0


def test_citation(asked: Callable[..., subprocess.CompletedProcess[str]]) -> None:
    said = asked("cffconvert", "--validate", "-i", ROOT / "CITATION.cff")
    assert said.returncode == 0, said.stderr
    assert "valid according to schema" in said.stdout


def test_dockerfile_is_well_made(asked: Callable[..., subprocess.CompletedProcess[str]]) -> None:
    said = asked("hadolint", "Dockerfile")
    assert (said.returncode, said.stdout) == (0, "")


def test_shell_scripts_are_well_made(asked: Callable[..., subprocess.CompletedProcess[str]]) -> None:
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    texts = [ROOT / name for name in listed.splitlines() if Path(name).suffix in ("", ".sh")]
    shell = [p for p in texts if p.is_file() and p.read_bytes()[:30].split(b"\n")[0].endswith(b"sh")]
    assert ROOT / "container" / "install.sh" in shell
    said = asked("shellcheck", *shell)
    assert (said.returncode, said.stdout) == (0, "")
