"""Shared data: small phantom heads, made once for all tests."""

import os
import sys
from pathlib import Path

import pytest

os.environ.setdefault("OMP_NUM_THREADS", "1")
SMALL = ("--shape", "32", "32", "20", "--zooms", "0.75", "0.75", "1.0")


@pytest.fixture(autouse=True)
def one_thread() -> None:
    """The app sets torch's threads by its options, for good; sums then have another order, and last bit."""
    if torch := sys.modules.get("torch"):
        torch.set_num_threads(1)


def phantom(out: Path, *options: str) -> Path:
    """Make a phantom data set by its own command."""
    from bids_alphagan.phantom import main

    assert main([str(out), *SMALL, *options]) == 0
    return out


@pytest.fixture(scope="session")
def heads(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four phantom animals on a coarse grid, with truth and template. Read only."""
    return phantom(tmp_path_factory.mktemp("phantom") / "heads", "--n-subjects", "4")


@pytest.fixture(scope="session")
def template(heads: Path) -> Path:
    return heads / "derivatives" / "templateflow" / "tpl-RatPhantom"
