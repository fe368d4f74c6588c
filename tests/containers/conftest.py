"""An image built once, by whatever works here; without that the tests skip and say why."""

import os
from collections.abc import Callable
from pathlib import Path

import base
import pytest
from engine import Engine, UnavailableError, working

from bids_alphagan import __version__


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.container)


@pytest.fixture(scope="session")
def tool() -> Callable[[str], str]:
    def find(name: str) -> str:
        try:
            return base.tool(name)
        except UnavailableError as why:
            pytest.skip(str(why))

    return find


@pytest.fixture(scope="session")
def debian(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The root that stands in for SPM's image. Read only: copy it."""
    try:
        return base.debian_root(tmp_path_factory.mktemp("debian") / "root")
    except UnavailableError as why:
        pytest.skip(str(why))


@pytest.fixture(scope="session")
def wheels(tmp_path_factory: pytest.TempPathFactory) -> Path:
    try:
        return base.wheels(tmp_path_factory.mktemp("wheels"))
    except UnavailableError as why:
        pytest.skip(str(why))


@pytest.fixture(scope="session")
def base_archive(debian: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return base.packed(debian, tmp_path_factory.mktemp("base") / "root.tar")


@pytest.fixture(scope="session")
def engine(base_archive: Path) -> Engine:
    try:
        found = working(base_archive, "localhost/bids-alphagan-base:test")
    except UnavailableError as why:
        pytest.skip(str(why))
    print(f"container engine: {found.name} ({' '.join(found.command)})")
    return found


@pytest.fixture(scope="session")
def build(engine: Engine, wheels: Path) -> Callable[[str], str]:
    """Build the Dockerfile as `tag` on the stand-in base image, with PyTorch for CPU."""

    def built(tag: str) -> str:
        arguments = {
            "SPM_IMAGE": "localhost/bids-alphagan-base:test",
            "TORCH": "cpu",
            "VERSION": __version__,
            "REVISION": base.REVISION,
            "SOURCE_DATE_EPOCH": base.DATE,
        }
        engine.build(base.ROOT, tag, arguments, wheels)
        return tag

    return built


@pytest.fixture(scope="session")
def image(engine: Engine, request: pytest.FixtureRequest) -> str:
    """CONTAINER_IMAGE, which the engine has, in place of a build; made as `build` does."""
    given = os.environ.get("CONTAINER_IMAGE")
    return given or request.getfixturevalue("build")("localhost/bids-alphagan:test")


@pytest.fixture(scope="session")
def contents(engine: Engine, image: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """All files of the image, as root sees them."""
    return engine.unpack(image, tmp_path_factory.mktemp("image") / "root")


@pytest.fixture
def output(tmp_path: Path) -> Path:
    """A folder that any user may write to."""
    made = tmp_path / "out"
    made.mkdir()
    made.chmod(0o777)
    return made
