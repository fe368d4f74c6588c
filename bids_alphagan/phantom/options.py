"""The options of ``bids-alphagan-phantom``, and their limits."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bids_alphagan.common.errors import UserError


def option(default: Any, help: str, **metadata: Any) -> Any:
    """A dataclass field whose default argparse-dataclass shows; sequences take three values."""
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


SMALLEST_FIELD, LARGEST_FIELD = 10.0, 40.0
"""Field of view in mm: it may cut the brain, which must stay recognisable; the head ends at 30 mm."""
LARGEST_SHAPE = 256
MOST = 10_000  # animals, sessions, volumes


def check(options: PhantomOptions) -> None:
    """Raise UserError for numbers that give no scan."""
    for name in ("n_subjects", "n_sessions", "volumes"):
        if not 1 <= getattr(options, name) <= MOST:
            flag = f"--{name.replace('_', '-')}"
            raise UserError(f"{flag} must be at least 1 and at most {MOST}, not {getattr(options, name)}")
    if options.seed < 0:
        raise UserError(f"--seed must not be negative, but is {options.seed}")
    if not all(8 <= n <= LARGEST_SHAPE for n in options.shape):
        shown = " ".join(map(str, options.shape))
        raise UserError(f"--shape needs 8 to {LARGEST_SHAPE} voxels along every axis, not {shown}")
    if not all(0 < zoom < float("inf") for zoom in options.zooms):
        raise UserError(f"--zooms must be positive numbers, not {' '.join(map(str, options.zooms))}")
    for n, zoom in zip(options.shape, options.zooms, strict=True):
        if not SMALLEST_FIELD <= n * zoom <= LARGEST_FIELD:
            raise UserError(
                f"--shape {n} times --zooms {zoom} gives a field of view of {n * zoom:g} mm; the head"
                f" needs {SMALLEST_FIELD:g} to {LARGEST_FIELD:g} mm along every axis"
            )
