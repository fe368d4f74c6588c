"""The undeformed rat head: tissue labels and mean T2-weighted signal on a fine grid.

Coordinates are RAS in mm with the origin at the brain's centre. The tables below are written in
stereotaxic coordinates of an adult Wistar rat (mm from bregma; x from the midline, y forward, z up), after
the proportions of Paxinos and Watson, The Rat Brain in Stereotaxic Coordinates.
"""

from functools import cache
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from bids_alphagan.phantom.shapes import Axes, Field, distance, ellipsoid, loft, tube, union

BREGMA = (0.0, 4.6, 6.2)
"""Bregma in the head's own coordinates."""
STEP = 0.125
"""Voxel size of the fine grid in mm."""
HALF_EXTENT = 15.0
Y_EXTENT = (-16.0, 16.0)
Z_EXTENT = (-14.0, 10.0)

AIR, BONE, MUSCLE, SKIN, GM, WM, CSF = range(7)


class Anatomy(NamedTuple):
    """Arrays of shape (240, 256, 192) on one grid of 0.125 mm.

    tissue: uint8, see the constants above. signal: float32, T2-weighted signal, CSF about 1.
    ventricle: float32, signed distance to the ventricles' wall in mm, positive inside.
    affine: (4, 4) voxel indices to mm.
    """

    tissue: NDArray[np.uint8]
    signal: Field
    ventricle: Field
    affine: NDArray[np.float64]


CEREBRUM = (
    (5.9, 0.5, -4.5, -3.9, -5.2), (5.2, 1.9, -4.3, -2.5, -6.1), (4.2, 3.1, -4.2, -1.7, -6.9),
    (3.0, 4.1, -4.4, -1.2, -7.7), (1.5, 5.4, -4.8, -0.9, -8.7), (0.0, 6.3, -5.2, -0.7, -9.3),
    (-1.5, 6.9, -5.6, -0.6, -9.7), (-3.0, 7.4, -5.8, -0.6, -9.9), (-4.5, 7.7, -5.9, -0.7, -10.0),
    (-6.0, 7.6, -5.8, -0.9, -9.6), (-7.2, 6.9, -5.4, -1.3, -8.7), (-8.2, 5.5, -4.9, -2.0, -7.4),
    (-8.9, 3.4, -4.4, -3.0, -6.0), (-9.2, 0.6, -4.3, -3.8, -4.8),
)  # fmt: skip
CORE = (
    (3.9, 0.6, -4.2, -3.8, -4.6), (3.3, 1.8, -4.3, -3.3, -5.6), (2.2, 3.3, -4.8, -2.9, -7.0),
    (1.0, 4.5, -5.2, -2.65, -7.9), (0.0, 5.1, -5.4, -2.55, -8.4), (-1.5, 5.6, -5.6, -2.4, -9.0),
    (-3.0, 6.0, -5.8, -2.35, -9.3), (-4.5, 6.2, -5.9, -2.45, -9.3), (-6.0, 6.0, -5.7, -2.7, -8.6),
    (-7.0, 5.1, -5.3, -3.1, -7.6), (-7.7, 3.4, -5.0, -3.8, -6.4), (-8.1, 0.8, -4.9, -4.4, -5.4),
)  # fmt: skip
STEM = (
    (-4.0, 1.5, -8.0, -6.5, -9.6), (-5.5, 2.8, -7.8, -5.5, -9.9), (-7.5, 3.1, -8.0, -5.2, -10.3),
    (-9.5, 3.1, -8.5, -6.4, -10.4), (-12.0, 3.1, -9.0, -7.2, -10.9), (-14.5, 2.4, -9.3, -7.8, -11.0),
    (-17.0, 1.9, -9.7, -8.2, -11.2), (-21.0, 1.8, -10.2, -8.7, -11.7),
)  # fmt: skip
HEAD = (
    (12.0, 6.0, -6.5, -1.6, -12.0), (8.0, 8.6, -6.8, 0.2, -15.0), (4.0, 10.6, -7.0, 1.2, -18.0),
    (0.0, 12.0, -7.3, 1.8, -20.0), (-5.0, 13.2, -7.6, 2.0, -21.0), (-9.0, 13.4, -8.0, 1.6, -21.0),
    (-13.0, 13.0, -8.6, 0.9, -21.0), (-21.0, 12.6, -9.0, 0.5, -21.0),
)  # fmt: skip


def half_axes() -> Axes:
    """Open axes of the right half of the head in stereotaxic coordinates."""
    spans = ((0.0, HALF_EXTENT), Y_EXTENT, Z_EXTENT)
    grids = [
        np.arange(lo + STEP / 2, hi, STEP, dtype=np.float32) - np.float32(b)
        for (lo, hi), b in zip(spans, BREGMA, strict=True)
    ]
    return grids[0][:, None, None], grids[1][None, :, None], grids[2][None, None, :]


@cache
def head() -> Anatomy:
    """Build the head (a few seconds, once per process)."""
    axes = half_axes()
    x, y, z = axes
    shape = np.broadcast_shapes(x.shape, y.shape, z.shape)
    tissue = np.zeros(shape, np.uint8)
    signal = np.zeros(shape, np.float32)

    def put(where: NDArray[np.bool_], kind: int, level: float) -> None:
        tissue[where], signal[where] = kind, level

    cerebrum = loft(axes, CEREBRUM)
    bulb = ellipsoid(axes, (1.2, 6.6, -3.9), (1.3, 2.3, 1.75), tilt=-8)
    cerebellum = union(
        ellipsoid(axes, (0, -11.7, -4.2), (2.6, 2.8, 2.6)),
        ellipsoid(axes, (3.4, -11.4, -4.8), (2.5, 2.1, 2.1)),
        ellipsoid(axes, (5.9, -11.1, -6.2), (1.1, 1.2, 1.3)),
    )
    colliculi = union(
        ellipsoid(axes, (1.5, -6.8, -4.2), (1.7, 1.7, 1.4)), ellipsoid(axes, (1.8, -8.6, -4.1), (1.6, 1.1, 1.5))
    )
    stem = union(loft(axes, STEM, 2.0), colliculi)
    brain = union(cerebrum, bulb, cerebellum, stem)
    outside = distance(brain > 0, STEP)
    skin = distance(loft(axes, HEAD, 2.2) > 0, STEP)

    put(skin > 0, SKIN, 0.40)
    put(skin > 0.5, SKIN, 0.15)
    put(skin > 1.0, MUSCLE, 0.22)
    put((outside > -1.1) & (outside <= -0.3), BONE, 0.04)
    put(outside > -0.3, CSF, 1.0)

    core = loft(axes, CORE, 2.2)
    put(cerebrum > 0, GM, 0.62)
    put((core > 0) & (cerebrum > 0), GM, 0.56)
    sheet = (core > 0) & (core < 0.45) & (z > -7.2) & (cerebrum > 0)
    put(sheet, WM, 0.38)
    put(bulb > 0, GM, 0.60)
    put(stem > 0, GM, 0.50)
    put((stem > 0) & (stem < 0.5) & (z < -8), WM, 0.40)
    put(cerebellum > 0, GM, 0.62)
    put(cerebellum > 0.9, WM, 0.40)
    put(tube(axes, ((3.3, 0.6, -5.8), (3.5, -2.4, -6.4), (2.2, -5.2, -8.8)), 0.6) > 0, WM, 0.38)
    ventricle = union(
        tube(axes, ((1.2, 2.0, -4.4), (1.7, 0.0, -3.9), (3.4, -2.2, -4.1), (5.3, -5.0, -5.2)), 0.35),
        tube(axes, ((0, -0.3, -8), (0, -4, -8)), 0.25),
        tube(axes, ((0, -4.3, -5.0), (0, -8.2, -6.3), (0, -13.5, -7.6)), 0.35),
    )
    return mirror(tissue, signal, ventricle)


def mirror(tissue: NDArray[np.uint8], signal: Field, ventricle: Field) -> Anatomy:
    """Complete the right half with its mirror image."""
    whole = [np.concatenate([half[::-1], half]) for half in (tissue, signal, ventricle)]
    affine = np.diag([STEP, STEP, STEP, 1.0])
    affine[:3, 3] = np.array([-HALF_EXTENT, Y_EXTENT[0], Z_EXTENT[0]]) + STEP / 2
    return Anatomy(whole[0], whole[1], whole[2].astype(np.float32), affine)
