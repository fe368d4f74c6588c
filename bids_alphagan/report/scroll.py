"""Scans to scroll through: a plane's slices side by side in one picture, of which the page shows a part."""

import io
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

from bids_alphagan.report import figures
from bids_alphagan.report.figures import PLANES, Plane, Scan

LEVELS = 25  # slices per plane, evenly over the brain: the same level of two scans shows alike anatomy
PIXELS = 128  # the longer side of a slice at most: finer, hundreds of slices make the page heavy
QUALITY = 80  # of the JPEGs


class Strip(NamedTuple):
    """One plane of one scan: LEVELS slices side by side, and the width of each over its height."""

    image: str
    ratio: float


def strips(paths: Sequence[Path], dsegs: Sequence[Path | None]) -> dict[str, list[Strip]]:
    """For each plane, one strip per scan; the levels span the brain where there is a dseg, else the scan."""
    made: dict[str, list[Strip]] = {name: [] for name in PLANES}
    for path, dseg in zip(paths, dsegs, strict=True):
        scan = figures.load(path)
        brain = figures.load(dseg).data > 0 if dseg else np.ones(scan.data.shape, bool)
        for name, plane in PLANES.items():
            made[name].append(_strip(scan, brain, plane))
    return made


def _strip(scan: Scan, brain: np.ndarray, plane: Plane) -> Strip:
    covered = np.flatnonzero(brain.any(axis=tuple(axis for axis in range(3) if axis != plane.cut)))
    if not len(covered):
        covered = np.arange(scan.data.shape[plane.cut])
    levels = np.linspace(covered[0], covered[-1], LEVELS).round().astype(int)
    low, high = figures.window(scan.data)
    grey = (np.clip((scan.data - low) / (high - low), 0, 1) * 255).astype(np.uint8)
    slices = np.moveaxis(grey, (plane.cut, plane.up, plane.across), (0, 1, 2))
    sides = np.array([grey.shape[axis] * scan.zooms[axis] for axis in (plane.across, plane.up)])
    pixel = max(min(scan.zooms), float(sides.max()) / PIXELS)
    width, height = (max(1, round(side / pixel)) for side in sides)
    picture = Image.new("L", (LEVELS * width, height))
    for i, at in enumerate(levels):
        one = Image.fromarray(np.ascontiguousarray(slices[at, ::-1]))  # pictures begin at the top
        picture.paste(one.resize((width, height), Image.Resampling.BICUBIC), (i * width, 0))
    stream = io.BytesIO()
    picture.save(stream, "JPEG", quality=QUALITY, optimize=True)
    return Strip(figures.data_uri(stream.getvalue(), "image/jpeg"), width / height)
