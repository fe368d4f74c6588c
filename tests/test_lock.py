"""The lock files say what pyproject.toml and constraints.txt say, and every package has its hashes."""

import re
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from paths import ROOT

LOCKS = [ROOT / "container" / name for name in ("requirements.lock", "torch-cuda.lock")]
ELSEWHERE = {"colorama", "setuptools"}  # for Windows only; what `pip freeze` leaves out


def _pins(path: Path) -> dict[str, Requirement]:
    lines = re.sub(r"\s*\\\n\s*--hash\S+", "", path.read_text()).splitlines()
    pins = [Requirement(line) for line in lines if line and not line.startswith("#")]
    assert all(re.fullmatch(r"==[^*]+", str(pin.specifier)) for pin in pins)
    return {canonicalize_name(pin.name): pin for pin in pins}


def _version(pin: Requirement) -> str:
    return str(pin.specifier).removeprefix("==")


@pytest.fixture(scope="module")
def locked() -> dict[str, Requirement]:
    return {name: pin for path in LOCKS for name, pin in _pins(path).items()}


def test_every_dependency_is_locked_as_pyproject_allows(locked: dict[str, Requirement]) -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    needed = [Requirement(text) for text in project["dependencies"]]
    assert len(needed) > 10
    for need in needed:
        assert need.specifier.contains(_version(locked[canonicalize_name(need.name)])), need


def test_locks_and_constraints_name_the_same_versions(locked: dict[str, Requirement]) -> None:
    constraints = _pins(ROOT / "constraints.txt")
    of_torch = set(_pins(LOCKS[1])) - {"torch"}  # a machine without a GPU has none of them
    for name in locked.keys() - of_torch - ELSEWHERE:
        assert _version(locked[name]) == _version(constraints[name]), name


@pytest.mark.parametrize("path", LOCKS, ids=lambda path: path.name)
def test_every_locked_package_has_hashes(path: Path) -> None:
    packages = re.split(r"^(?=\w)", path.read_text(), flags=re.MULTILINE)[1:]
    assert len(packages) == len(_pins(path))
    assert all(re.search(r"--hash=sha256:[0-9a-f]{64}", package) for package in packages)


def test_locks_name_no_place_to_fetch_from() -> None:
    assert not [path.name for path in LOCKS if re.search(r"://|--(index|extra|find)", path.read_text())]
