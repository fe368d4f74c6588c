"""The undeformed rat head: tissue labels and mean T2-weighted signal on a fine grid.

Coordinates are RAS in mm with the origin at the brain's centre; the tables are stereotaxic (see ``brain``).
"""

from collections.abc import Callable
from functools import cache
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from bids_alphagan.phantom.brain import (
    AIR,
    BONE,
    CSF,
    FORAMEN_MAGNUM,
    GM,
    SOFT,
    WM,
    Brain,
    Level,
    build_brain,
    step_up,
)
from bids_alphagan.phantom.shapes import Axes, Field, cut, distance, ellipsoid, loft, texture, tube, within

BREGMA = (0.0, 4.6, 6.2)
"""Bregma in the head's own coordinates."""
STEP = 0.125
"""Voxel size of the fine grid in mm."""
EXTENT = ((0.0, 15.0), (-16.0, 16.0), (-14.0, 10.0))
"""The right half in the head's own coordinates."""
BRAIN_BOX = ((0.0, 7.8), (-21.0, 9.2), (-12.4, -0.5))
"""Where brain and cord are, in stereotaxic coordinates."""

HEAD = (
    (14.0, 5.2, -7.0, -2.6, -12.0), (11.0, 6.6, -7.0, -1.0, -14.0), (8.0, 8.6, -7.0, 0.1, -16.0),
    (4.0, 10.6, -7.2, 1.0, -19.0), (0.0, 12.0, -7.6, 1.5, -22.0), (-5.0, 13.2, -8.0, 1.7, -23.0),
    (-9.0, 13.4, -8.4, 1.4, -23.0), (-13.0, 13.0, -9.0, 1.0, -23.0), (-21.0, 12.8, -9.4, 0.8, -23.0),
)  # fmt: skip


class Anatomy(NamedTuple):
    """Arrays of shape (240, 256, 192) on one grid of 0.125 mm.

    tissue: uint8 (AIR, BONE, SOFT, GM, WM, CSF). signal: float32, T2-weighted, CSF about 1.
    ventricle: float32, signed distance to the ventricles' wall in mm, positive inside.
    affine: (4, 4) voxel indices to mm.
    """

    tissue: NDArray[np.uint8]
    signal: Field
    ventricle: Field
    affine: NDArray[np.float64]


def half_axes() -> Axes:
    """Open axes of the right half of the head in stereotaxic coordinates."""
    grids = [
        (np.arange(low + STEP / 2, high, STEP) - origin).astype(np.float32)
        for (low, high), origin in zip(EXTENT, BREGMA, strict=True)
    ]
    return grids[0][:, None, None], grids[1][None, :, None], grids[2][None, None, :]


@cache
def head() -> Anatomy:
    """Build the head (a few seconds, once per process)."""
    rng = np.random.default_rng(11_7)
    axes = half_axes()
    box = within(axes, *np.transpose(BRAIN_BOX))
    brain = build_brain(cut(axes, box), STEP, rng)
    shape = np.broadcast_shapes(*(axis.shape for axis in axes))
    tissue, signal = surroundings(axes, box, brain, shape, rng)
    ventricle = np.full(shape, -1, np.float32)
    ventricle[box] = brain.ventricle

    part = brain.tissue > 0
    tissue[box][part], signal[box][part] = brain.tissue[part], brain.signal[part]
    behind = axes[1].ravel() < FORAMEN_MAGNUM
    tissue[:, behind] = np.where(np.isin(tissue[:, behind], (GM, WM, CSF)), SOFT, tissue[:, behind])
    return mirror(tissue, signal, ventricle)


def surroundings(
    axes: Axes, box: tuple[slice, ...], brain: Brain, shape: tuple[int, ...], rng: np.random.Generator
) -> tuple[NDArray[np.uint8], Field]:
    """Fluid, bone, muscle, glands, airways, eyes and skin around the brain: tissue and signal."""
    z = axes[2]
    tissue, signal = np.zeros(shape, np.uint8), np.zeros(shape, np.float32)

    def put(where: NDArray[np.bool_], kind: int, level: Level) -> None:
        tissue[where] = kind
        signal[where] = level if isinstance(level, float) else level[where]

    solid = np.zeros(shape, bool)
    solid[box] = brain.tissue > 0
    near = distance(solid, STEP)
    # Closing by 1.1 mm: the skull does not follow the clefts between cerebrum, cerebellum and bulbs.
    shell = distance(near > -1.1, STEP) - 1.1
    skin = distance(loft(axes, HEAD, 2.2) > 0, STEP)
    inside = skin > 0.1
    flesh = texture(rng, shape, STEP, (0.9, 1.8, 0.9))
    fibres = texture(rng, shape, STEP, (0.3, 1.2, 0.3))
    fat = texture(rng, shape, STEP, (1.1, 1.6, 1.1))

    put(skin > 0, SOFT, 0.23 + 0.025 * fibres + 0.02 * flesh)
    put((skin > 0) & (np.abs(flesh) < 0.06), SOFT, 0.30 + 0.03 * fibres)  # fasciae between muscles
    put((skin > 0) & (fat > 1.7), SOFT, 0.42 + 0.03 * fibres)  # glands, vessels, fat left by the saturation
    put((skin > 0) & (skin < 1.1 + 0.2 * flesh), SOFT, 0.13 + 0.02 * fibres)
    put((skin > 0) & (skin < 0.55), SOFT, 0.40 + 0.04 * fibres)
    face(axes, lambda where, kind, level: put(where & inside, kind, level), fibres, fat)

    thick = 0.55 + 0.75 * step_up(z, -8.0, -10.5)
    space = 0.34 + 0.08 * step_up(z, -7.5, -9.0)  # the subarachnoid space is wider at the base
    put((shell <= -space) & (shell > -space - thick), BONE, 0.035 + 0.015 * np.abs(fibres))
    petrous = ellipsoid(axes, (5.2, -9.2, -9.4), (2.0, 1.9, 1.8))
    put((petrous > 0) & (shell < -0.3), BONE, 0.03 + 0.01 * np.abs(fibres))
    put((ellipsoid(axes, (5.0, -8.8, -10.0), (0.6, 0.6, 0.6)) > 0) & (shell < -0.3), SOFT, 0.7)  # cochlea
    put((shell > -space) & (near <= -space - 0.1), BONE, 0.05)  # tentorium, petrous ridge
    put((shell > -space) & (near > -space - 0.1), CSF, 0.97)
    sinus = tube(axes, ((0.0, 4.5, -0.9), (0.0, 0.0, -0.35), (0.0, -5.0, -0.25), (0.0, -9.2, -1.7)), 0.34)
    transverse = tube(axes, ((0.0, -9.2, -1.7), (3.0, -9.3, -2.6), (5.8, -9.3, -5.2)), 0.36)
    put((np.maximum(sinus, transverse) > 0) & (shell < 0.6), SOFT, 0.16)
    return tissue, signal


def face(axes: Axes, put: Callable[[NDArray[np.bool_], int, Level], None], fibres: Field, fat: Field) -> None:
    """Paint temporal muscle, glands, tongue, jaws, airways, ears and eyes."""
    put(ellipsoid(axes, (7.6, 1.0, -4.6), (1.9, 4.2, 3.4)) > 0, SOFT, 0.21 + 0.03 * fibres)
    put(ellipsoid(axes, (5.2, -11.5, -18.5), (3.4, 4.0, 2.2)) > 0.5 * fat, SOFT, 0.42 + 0.04 * fibres)
    put(ellipsoid(axes, (0, 2.0, -16.6), (3.2, 9.0, 2.2)) > 0.2 * fat, SOFT, 0.29 + 0.04 * fibres)
    for points, radius, flat in (
        (((9.4, 5.0, -8.2), (11.2, 1.0, -9.2), (11.4, -3.0, -9.4), (9.4, -6.4, -8.4)), 0.55, 1.0),  # zygoma
        (
            ((5.6, 9.0, -15.0), (7.2, 3.0, -15.6), (8.2, -3.0, -14.0), (8.4, -5.0, -11.0)),
            1.1,
            0.6,
        ),  # mandible
        (((3.0, 12.0, -9.0), (4.6, 5.0, -9.4), (4.2, 1.0, -10.4)), 1.2, 1.0),  # maxilla, molar roots
        (((2.0, 0.0, -11.2), (2.6, -4.0, -12.4)), 0.5, 1.0),  # pterygoid
    ):
        put(tube(axes, points, radius, flat) > 0, BONE, 0.035 + 0.015 * np.abs(fibres))
    nose = ellipsoid(axes, (1.7, 12.0, -5.6), (1.9, 4.4, 3.0))
    put(nose > 0, AIR, 0.0)
    put((nose > 0) & (np.abs(np.sin(3.2 * axes[0] + 1.1 * axes[2])) > 0.72), SOFT, 0.62)  # turbinates
    airway = tube(
        axes,
        ((0.0, 17.0, -8.8), (0.0, 9.0, -10.4), (0.0, 0.0, -12.8), (0.0, -8.0, -14.6), (0.0, -22.0, -16.8)),
        0.6,
        1.5,
    )
    put(airway > -0.3, SOFT, 0.44)
    put(airway > 0, AIR, 0.0)
    bulla = ellipsoid(axes, (5.8, -7.8, -12.2), (2.1, 2.7, 2.0))
    put(bulla > -0.35, BONE, 0.03)
    put(bulla > 0, AIR, 0.0)
    canal = tube(axes, ((7.6, -8.4, -11.0), (10.0, -9.0, -9.0), (14.0, -10.0, -6.0)), (0.5, 0.55, 0.8))
    put(canal > -0.35, SOFT, 0.40)
    put(canal > 0, AIR, 0.0)
    put(
        ellipsoid(axes, (6.2, 5.4, -6.0), (2.1, 2.6, 2.0)) > 0.3 * fibres, SOFT, 0.44 + 0.04 * fibres
    )  # Harderian gland
    eye = ellipsoid(axes, (7.4, 9.4, -4.8), (2.9, 2.8, 2.8))
    put(eye > -0.25, SOFT, 0.10)
    put(eye > 0, SOFT, 0.97)
    put(ellipsoid(axes, (8.7, 9.9, -4.5), (1.6, 1.7, 1.7)) > 0, SOFT, 0.12)  # lens


def mirror(tissue: NDArray[np.uint8], signal: Field, ventricle: Field) -> Anatomy:
    """Complete the right half with its mirror image."""
    whole = [np.concatenate([half[::-1], half]) for half in (tissue, signal, ventricle)]
    affine = np.diag([STEP, STEP, STEP, 1.0])
    affine[:3, 3] = np.array([-EXTENT[0][1], EXTENT[1][0], EXTENT[2][0]]) + STEP / 2
    return Anatomy(whole[0], whole[1], whole[2], affine)
