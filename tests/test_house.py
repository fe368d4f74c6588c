"""The floor plan, counted: what ARCHITECTURE promises and a reader counts on (README, "How it is built")."""

import ast
import re
import tomllib
from collections.abc import Iterator
from pathlib import Path

from paths import ROOT

from bids_alphagan.config import DEFAULT_STEPS, STEPS
from bids_alphagan.group import STEPS as GROUP_STEPS
from bids_alphagan.slurm import STAGES

PACKAGE = ROOT / "bids_alphagan"
Function = ast.FunctionDef | ast.AsyncFunctionDef


def functions() -> Iterator[tuple[Path, Function]]:
    for path in sorted(PACKAGE.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, Function):
                yield path.relative_to(PACKAGE), node


def signature(function: Function) -> str:
    arguments = function.args
    every = [*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs]
    notes = [node.annotation for node in every if node.annotation]
    return " ".join(ast.unparse(note) for note in [*notes, *([function.returns] if function.returns else [])])


def test_config_ends_at_the_two_levels() -> None:
    signatures = [(str(path), f.name) for path, f in functions() if re.search(r"\bConfig\b", signature(f))]
    assert 5 < len(signatures) <= 15, signatures
    assert {Path(path).parts[0] for path, _ in signatures} <= {"cli", "config", "participant", "group"}


def test_no_module_lies_loose() -> None:
    assert {path.name for path in PACKAGE.glob("*.py")} == {"__init__.py", "__main__.py"}


def test_imports_of_the_package_stand_at_the_top() -> None:
    """But in cli, where nothing heavy is imported before the arguments are known to be good."""
    inner = [
        f"{path}: {function.name}"
        for path, function in functions()
        if path.parts[0] not in ("cli", "__main__.py")
        for node in ast.walk(function)
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("bids_alphagan")
    ]
    assert not inner


def test_a_file_is_a_subject_of_600_lines_at_most() -> None:
    folders = (PACKAGE, ROOT / "tests", ROOT / "benchmarks")
    files = [path for folder in folders for path in folder.rglob("*.py")]
    long = [path for path in files if len(path.read_text().splitlines()) > 600]
    assert not long


def test_layers() -> None:
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
    layers = next(contract["layers"] for contract in contracts if contract["type"] == "layers")
    rooms = {room.strip() for layer in layers for room in layer.split("|")}
    assert len(layers) <= 10
    folders = {path.name for path in PACKAGE.iterdir() if path.is_dir() and (path / "__init__.py").exists()}
    assert rooms == folders | {"__main__"}


def test_the_two_levels_fit_on_a_screen() -> None:
    for level in ("participant", "group"):
        assert len((PACKAGE / level / "__init__.py").read_text().splitlines()) <= 60


def test_steps_have_one_order_everywhere() -> None:
    assert tuple(step.name for step in GROUP_STEPS) == STEPS == STAGES[1:]
    assert set(DEFAULT_STEPS) < set(STEPS)


def test_tests_mirror_the_package() -> None:
    folders = {
        path.name for path in (ROOT / "tests").iterdir() if path.is_dir() and list(path.rglob("test_*.py"))
    }
    rooms = {path.name for path in PACKAGE.iterdir() if path.is_dir() and (path / "__init__.py").exists()}
    assert rooms <= folders
    assert folders - rooms <= {"containers"}


def test_the_readme_is_short() -> None:
    assert len((ROOT / "README.md").read_text().split()) <= 900
