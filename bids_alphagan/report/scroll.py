"""Scans to scroll through: a plane's slices side by side in one picture, of which the page shows one."""

import io
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

from bids_alphagan.report import figures
from bids_alphagan.report.figures import PLANES, Plane, Scan

LEVELS = 25  # slices per plane, evenly over the brain, so that a level shows the same anatomy in all scans
PIXELS = 128  # maximum of the longer side of a slice; more would make the page too large
QUALITY = 80  # of the JPEGs


class Strip(NamedTuple):
    """One plane of one scan: LEVELS slices side by side; ratio: the width of a slice over its height."""

    image: str
    ratio: float


def strips(paths: Sequence[Path], dsegs: Sequence[Path | None]) -> dict[str, list[Strip]]:
    """For each plane, one strip per scan; the levels span the brain if there is a dseg, else the scan."""
    result: dict[str, list[Strip]] = {name: [] for name in PLANES}
    for path, dseg in zip(paths, dsegs, strict=True):
        scan = figures.load(path)
        brain = figures.load(dseg).data > 0 if dseg else np.ones(scan.data.shape, bool)
        for name, plane in PLANES.items():
            result[name].append(_strip(scan, brain, plane))
    return result


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
        slice_image = Image.fromarray(np.ascontiguousarray(slices[at, ::-1]))  # image rows start at the top
        picture.paste(slice_image.resize((width, height), Image.Resampling.BICUBIC), (i * width, 0))
    stream = io.BytesIO()
    picture.save(stream, "JPEG", quality=QUALITY, optimize=True)
    return Strip(figures.data_uri(stream.getvalue(), "image/jpeg"), width / height)
