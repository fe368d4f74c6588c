"""Small phantom data sets, by the phantom's own command."""

from pathlib import Path

SMALL = ("--shape", "32", "32", "20", "--zooms", "0.75", "0.75", "1.0")


def phantom(out: Path, *options: str) -> Path:
    """Make a phantom data set by its own command."""
    from bids_alphagan.cli.phantom import main

    assert main([str(out), *SMALL, *options]) == 0
    return out
