"""A digital rat head as a BIDS data set: the embedded default, and the tests' data.

``shapes`` -> ``anatomy`` (the mean head) -> ``animal`` (an individual) -> ``acquisition`` (its scan) ->
``dataset`` (files). Nothing heavy is imported before the options are known good.
"""

import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bids_alphagan.errors import UserError

EXPLANATION = """Write a valid raw BIDS data set of digital rat heads that imitates resting-state
T2-weighted EPI at 11.7 T, with the true tissue labels and a TemplateFlow template beside it."""


def option(default: Any, help: str, **metadata: Any) -> Any:
    """A dataclass field that argparse-dataclass shows with its default; sequences take three values."""
    shown = " ".join(map(str, default)) if isinstance(default, tuple) else default
    return field(default=default, metadata={"help": f"{help} (default: {shown})", **metadata})


@dataclass(frozen=True)
class PhantomOptions:
    """Options of ``bids-alphagan-phantom``; every field is a flag."""

    out: Path = field(metadata={"args": ["out"], "metavar": "OUT", "help": "new or empty folder to write to"})
    n_subjects: int = option(24, "number of animals", args=["--n-subjects", "--n_subjects"], metavar="N")
    n_sessions: int = option(1, "sessions per animal", args=["--n-sessions", "--n_sessions"], metavar="N")
    volumes: int = option(3, "volumes per scan", metavar="N")
    shape: tuple[int, ...] = option(
        (64, 64, 40), "voxels along left-right, back-front, bottom-top", nargs=3, metavar=("X", "Y", "Z")
    )
    zooms: tuple[float, ...] = option(
        (0.375, 0.375, 0.5), "voxel sizes in mm", nargs=3, metavar=("X", "Y", "Z")
    )
    seed: int = option(0, "seed of all random draws; an animal depends on it and its own number", metavar="N")

    def __post_init__(self) -> None:
        object.__setattr__(self, "shape", tuple(self.shape))
        object.__setattr__(self, "zooms", tuple(self.zooms))


SMALLEST_FIELD = 10.0
LARGEST_FIELD = 40.0


def check(options: PhantomOptions) -> None:
    """Raise UserError for numbers that make no scan."""
    for name in ("n_subjects", "n_sessions", "volumes"):
        if getattr(options, name) < 1:
            raise UserError(f"--{name.replace('_', '-')} must be at least 1, not {getattr(options, name)}")
    if options.seed < 0:
        raise UserError(f"--seed must not be negative, but is {options.seed}")
    if min(options.shape) < 8:
        raise UserError(f"--shape needs at least 8 voxels along every axis, not {options.shape}")
    if not all(0 < zoom < float("inf") for zoom in options.zooms):
        raise UserError(f"--zooms must be positive numbers, not {options.zooms}")
    for n, zoom in zip(options.shape, options.zooms, strict=True):
        if not SMALLEST_FIELD <= n * zoom <= LARGEST_FIELD:
            raise UserError(
                f"--shape {n} times --zooms {zoom} gives a field of view of {n * zoom:g} mm; a rat's head"
                f" needs {SMALLEST_FIELD:g} to {LARGEST_FIELD:g} mm along every axis"
            )


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point. Returns the exit status: 0, or 2 when the call cannot be carried out."""
    from argparse_dataclass import ArgumentParser

    parser = ArgumentParser(PhantomOptions, prog="bids-alphagan-phantom", description=EXPLANATION)
    options = parser.parse_args(argv)
    try:
        check(options)
        from bids_alphagan.phantom.dataset import write_dataset

        write_dataset(
            options.out,
            options.n_subjects,
            options.n_sessions,
            options.volumes,
            options.shape,
            options.zooms,
            options.seed,
            progress=lambda line: print(line, file=sys.stderr),
        )
    except UserError as error:
        print(f"bids-alphagan-phantom: error: {error}", file=sys.stderr)
        return 2
    out = options.out
    print(f"raw data set: {out}")
    print(f"truth:        {out / 'derivatives' / 'truth'}")
    print(f"template:     {out / 'derivatives' / 'templateflow' / 'tpl-RatPhantom'}")
    print("next:")
    print(
        f"  TEMPLATEFLOW_HOME={out / 'derivatives' / 'templateflow'}"
        f" bids-alphagan {out} {out}-derivatives participant --template RatPhantom"
    )
    return 0
