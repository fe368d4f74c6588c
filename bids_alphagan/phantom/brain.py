"""The undeformed brain: regions, white-matter tracts and ventricles in stereotaxic coordinates.

All numbers are mm from bregma (x from the midline, y forward, z up), after the proportions of an adult
Wistar rat in Paxinos and Watson, The Rat Brain in Stereotaxic Coordinates. Signals are relative to
cerebrospinal fluid = 1 and follow the order seen in T2-weighted images: fluid, gray matter, white matter.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from bids_alphagan.phantom.shapes import Axes, Field, Point, distance, ellipsoid, loft, texture, tube, union

AIR, BONE, SOFT, GM, WM, CSF = range(6)

# y, half width, z of the widest point, z of the top, z of the bottom
CEREBRUM = (
    (6.0, 0.8, -4.5, -3.7, -5.3), (5.2, 2.1, -4.3, -2.4, -6.2), (4.2, 3.3, -4.3, -1.7, -6.9),
    (3.0, 4.3, -4.5, -1.2, -7.7), (1.5, 5.5, -4.9, -0.9, -8.7), (0.0, 6.4, -5.3, -0.7, -9.3),
    (-1.5, 7.0, -5.6, -0.6, -9.7), (-3.0, 7.4, -5.8, -0.6, -9.9), (-4.5, 7.7, -5.9, -0.7, -10.0),
    (-6.0, 7.6, -5.8, -0.9, -9.6), (-7.2, 6.9, -5.4, -1.3, -8.7), (-8.2, 5.5, -4.9, -2.0, -7.4),
    (-8.9, 3.4, -4.4, -3.0, -6.0), (-9.2, 0.6, -4.3, -3.8, -4.8),
)  # fmt: skip
CORE = (  # everything under the corpus callosum and the external capsule
    (4.2, 0.6, -4.2, -3.8, -4.6), (3.4, 1.8, -4.3, -3.2, -5.8), (2.2, 3.1, -4.9, -2.85, -7.2),
    (1.0, 4.1, -5.3, -2.6, -8.0), (0.0, 4.8, -5.6, -2.5, -8.6), (-1.5, 5.3, -5.8, -2.35, -9.1),
    (-3.0, 5.7, -5.9, -2.3, -9.4), (-4.5, 6.0, -6.0, -2.4, -9.4), (-6.0, 5.9, -5.8, -2.65, -8.7),
    (-7.0, 5.1, -5.4, -3.05, -7.7), (-7.7, 3.6, -5.0, -3.7, -6.5), (-8.1, 0.8, -4.9, -4.4, -5.4),
)  # fmt: skip
CEREBELLUM = (
    (-8.9, 1.2, -4.6, -3.3, -5.8), (-9.5, 3.9, -5.0, -2.3, -6.8), (-10.4, 5.2, -5.2, -1.6, -7.2),
    (-11.8, 5.6, -5.2, -1.3, -7.5), (-13.2, 4.7, -5.3, -1.7, -7.6), (-14.3, 2.9, -5.4, -2.8, -7.6),
    (-15.0, 0.8, -5.8, -4.6, -7.0),
)  # fmt: skip
STEM = (
    (-3.8, 1.2, -8.0, -6.8, -9.4), (-5.2, 2.7, -7.6, -5.2, -9.7), (-7.0, 3.2, -7.6, -4.6, -10.2),
    (-8.8, 3.3, -8.2, -5.4, -10.5), (-10.5, 3.3, -8.6, -6.4, -10.6), (-12.5, 3.0, -9.0, -7.1, -10.9),
    (-14.5, 2.4, -9.3, -7.6, -11.1), (-17.0, 1.9, -9.8, -8.2, -11.5), (-21.0, 1.8, -10.4, -8.8, -12.0),
)  # fmt: skip
FORAMEN_MAGNUM = -15.4

# centre, radii, signal: nuclei painted one over the other inside the core
NUCLEI: dict[str, tuple[Point, Point, float]] = {
    "thalamus": ((1.7, -3.2, -5.9), (2.3, 2.1, 1.8), 0.55),
    "hypothalamus": ((0.8, -2.2, -8.6), (1.4, 2.8, 1.4), 0.62),
    "striatum": ((3.0, 0.6, -5.4), (2.0, 3.0, 2.2), 0.585),
    "accumbens": ((1.6, 1.6, -7.2), (1.1, 1.3, 1.0), 0.62),
    "septum": ((0.4, 0.3, -5.0), (0.8, 1.4, 1.7), 0.61),
    "pallidum": ((3.3, -1.3, -6.6), (0.9, 1.1, 1.1), 0.53),
    "amygdala": ((4.6, -2.7, -8.4), (1.3, 1.7, 1.2), 0.65),
    "nigra": ((2.1, -5.5, -8.3), (1.1, 0.8, 0.4), 0.47),
    "central gray": ((0.0, -7.0, -5.6), (0.8, 1.8, 0.8), 0.60),
}
# points, radius or radii, flattening
TRACTS: dict[str, tuple[tuple[Point, ...], float | tuple[float, ...], float]] = {
    "internal capsule": (
        ((2.9, 1.2, -5.7), (3.2, -0.6, -5.9), (3.6, -2.0, -6.2), (3.1, -3.6, -7.6), (2.4, -5.0, -8.9),
         (1.5, -6.8, -9.8), (0.9, -8.6, -10.1), (0.6, -12.0, -10.6), (0.5, -16.0, -11.3)),
        (0.25, 0.45, 0.55, 0.55, 0.5, 0.42, 0.38, 0.36, 0.3), 1.3),
    "anterior commissure": (
        ((0.0, -0.2, -7.1), (1.4, 0.2, -7.1), (2.0, 1.8, -6.7), (1.6, 3.8, -5.2), (1.25, 5.6, -4.4)),
        0.34, 1.0),
    "commissure, posterior limb": (((0.0, -0.2, -7.1), (2.6, -0.5, -7.3), (4.2, -1.2, -7.9)), 0.25, 1.0),
    "fimbria": (((0.7, -0.9, -4.2), (2.2, -1.5, -4.3), (3.8, -2.5, -4.9), (4.9, -3.7, -6.1)), 0.42, 1.2),
    "fornix": (((0.5, -0.4, -4.6), (0.5, -0.7, -6.8), (0.9, -2.2, -8.3), (0.6, -4.3, -8.8)), 0.24, 1.0),
    "optic tract": (((0.0, -0.4, -9.5), (1.7, -1.6, -9.5), (3.4, -2.7, -8.3), (4.1, -3.9, -6.2)), 0.34, 1.0),
    "stria medullaris": (((0.9, -1.2, -6.2), (0.7, -2.4, -4.9), (0.5, -3.8, -4.7)), 0.22, 1.0),
    "posterior commissure": (((0.0, -4.9, -4.9), (1.2, -5.1, -5.2)), 0.3, 1.0),
    "medial lemniscus": (
        ((1.9, -4.4, -7.2), (1.9, -6.0, -8.4), (1.5, -8.0, -9.3), (0.5, -11.0, -9.9), (0.4, -14.0, -10.2)),
        0.33, 1.2),
    "lateral lemniscus": (((2.0, -6.9, -5.4), (2.8, -7.8, -6.4), (2.7, -8.6, -8.6)), 0.33, 1.0),
    "cerebellar peduncle": (
        ((1.5, -8.0, -9.9), (3.0, -8.8, -8.6), (3.2, -9.8, -7.4), (2.7, -10.8, -6.4)),
        (0.5, 0.55, 0.6, 0.7), 1.0),
    "superior peduncle": (((1.0, -7.0, -8.0), (1.6, -8.8, -6.8), (1.6, -10.4, -6.4)), 0.35, 1.0),
    "spinal trigeminal tract": (((2.9, -9.5, -9.0), (2.8, -12.0, -9.2), (2.1, -15.0, -9.4)), 0.36, 1.0),
    "lateral olfactory tract": (((2.2, 4.6, -5.9), (3.2, 2.6, -6.9), (3.9, 0.8, -7.9)), 0.26, 1.0),
}  # fmt: skip
VENTRICLES: dict[str, tuple[tuple[Point, ...], float | tuple[float, ...], float]] = {
    "lateral, frontal": (((1.1, 2.3, -4.8), (1.35, 1.2, -4.5), (1.6, 0.0, -4.1)), (0.24, 0.42, 0.44), 0.9),
    "lateral, body": (
        ((1.6, 0.0, -4.1), (2.3, -1.0, -3.75), (3.6, -2.2, -4.0), (4.8, -3.5, -4.8)), 0.34, 1.4),
    "lateral, temporal": (((4.8, -3.5, -4.8), (5.4, -4.6, -5.9), (5.2, -5.2, -7.4)), (0.36, 0.4, 0.3), 1.0),
    "lateral, wall": (((1.15, 1.6, -5.9), (1.2, 0.4, -5.6)), 0.16, 0.8),
    "interventricular foramen": (((0.2, -1.0, -5.2), (1.2, -0.6, -4.4)), 0.18, 1.0),
    "dorsal third": (((0.0, -0.9, -5.2), (0.0, -2.6, -4.7), (0.0, -4.6, -4.6)), 0.34, 1.1),
    "third, front": (((0.0, -0.8, -5.4), (0.0, -0.5, -7.0), (0.0, -0.9, -8.2)), 0.24, 0.6),
    "third": (((0.0, -0.9, -8.4), (0.0, -3.4, -8.5)), (0.8, 0.9), 0.25),
    "third, back": (((0.0, -3.4, -8.2), (0.0, -4.4, -6.2), (0.0, -4.6, -5.0)), 0.2, 0.7),
    "aqueduct": (((0.0, -4.3, -4.9), (0.0, -5.4, -5.3), (0.0, -8.0, -5.9), (0.0, -9.2, -6.6)), 0.32, 1.0),
    "fourth": (((0.0, -9.2, -6.7), (0.0, -11.0, -7.1), (0.0, -13.4, -7.5)), (0.34, 0.5, 0.3), 2.6),
    "lateral recess": (((1.0, -10.6, -7.2), (3.6, -10.8, -7.4)), 0.32, 1.0),
}  # fmt: skip


Level = float | NDArray[np.floating]


class Brain(NamedTuple):
    """On the given half grid: tissue (uint8), signal (float32), ventricle distance in mm (float32)."""

    tissue: NDArray[np.uint8]
    signal: Field
    ventricle: Field


def step_up(values: Field, low: float, high: float) -> Field:
    """0 below `low`, 1 above `high`, smooth between; a ramp down where low > high."""
    t = np.clip((values - np.float32(low)) / np.float32(high - low), 0, 1)
    return t * t * (3 - 2 * t)


def build_brain(axes: Axes, step: float, rng: np.random.Generator) -> Brain:
    """Fill the half grid `axes` (stereotaxic, `step` mm) with the brain; elsewhere tissue is AIR.

    The fissure between the hemispheres and the folds of the cerebellum contain fluid; the fluid around the
    brain is added with the head.
    """
    x, y, z = axes
    shape = np.broadcast_shapes(x.shape, y.shape, z.shape)
    tissue, signal = np.zeros(shape, np.uint8), np.zeros(shape, np.float32)

    def put(where: NDArray[np.bool_], kind: int, level: Level) -> None:
        tissue[where] = kind
        signal[where] = level if isinstance(level, float) else np.broadcast_to(level, shape)[where]

    fine = texture(rng, shape, step, (0.22, 0.22, 0.22))
    broad = texture(rng, shape, step, (0.7, 0.7, 0.7))

    stem = loft(axes, STEM, 2.1)
    colliculi = union(
        ellipsoid(axes, (1.4, -6.7, -4.5), (1.7, 1.8, 1.3)),
        ellipsoid(axes, (1.8, -8.5, -4.5), (1.7, 1.1, 1.4)),
    )
    edge = distance(union(stem, colliculi) > 0, step)
    bulb = ellipsoid(axes, (1.25, 6.4, -4.1), (1.3, 2.6, 1.8), tilt=-6)
    put(bulb > 0, GM, 0.63 + 0.05 * np.cos(bulb * 10))
    put(ellipsoid(axes, (1.25, 6.0, -4.2), (0.35, 1.6, 0.8), tilt=-6) > 0, WM, 0.46)

    hemispheres = loft((x, y, z + 0.25 * np.exp(-((x / 0.5) ** 2))), CEREBRUM, 2.3)
    depth = distance(hemispheres > 0, step)
    layers = 0.05 * np.exp(-((depth / 0.25) ** 2)) - 0.03 * np.exp(-(((depth - 1.0) / 0.3) ** 2))
    piriform = step_up(z, -6.8, -8.0)
    put(hemispheres > 0, GM, 0.64 + layers + 0.03 * piriform + 0.012 * broad)

    dip = 0.85 * np.exp(-((x / 0.85) ** 2)) - 0.2 * np.exp(-(((x - 1.7) / 0.8) ** 2))
    core = distance(loft((x, y, z + dip * step_up(z, -6.0, -4.0)), CORE, 2.2) > 0, step)
    core[hemispheres <= 0] = -1
    put(core > 0, GM, 0.57 + 0.015 * broad)
    for name, (centre, radii, level) in NUCLEI.items():
        where = (ellipsoid(axes, centre, radii) > 0) & ((core > 0) | (stem > 0))
        grain = {"striatum": -0.035 * np.abs(fine), "thalamus": 0.025 * broad}.get(name, 0.01 * broad)
        put(where, GM, np.float32(level) + grain)

    midbrain = (edge > 0) & ((core < 0) | (y < -5.2 - 0.3 * (z + 6.5)))
    put(midbrain, GM, 0.57 - 0.05 * step_up(y, -5.4, -7.5) - 0.03 * step_up(y, -9.0, -12.0) + 0.02 * broad)
    put(midbrain & (colliculi > 0), GM, 0.58 + 0.03 * np.cos(edge * 9))
    put((stem > 0) & (edge < 0.3) & (z < -6.5) & (y < -6.5), WM, 0.43 + 0.01 * broad)

    caudal = step_up(y, -1.5, -5.0)
    hippocampus = (core > 0.3) & (core < 1.25 + 0.65 * caudal) & (y < -1.7 - 0.16 * np.abs(x - 1.2) ** 1.5)
    hippocampus &= (z > -3.6 - 4.9 * step_up(y, -2.4, -5.0)) & (y > -7.4) & ~midbrain
    lacunosum = np.exp(-(((core - 0.95) / 0.12) ** 2))
    put(hippocampus, GM, 0.68 + 0.07 * lacunosum - 0.05 * np.exp(-(((core - 1.35) / 0.1) ** 2)))

    # The sheet thins out towards the rhinal fissure and, at the midline, behind the splenium.
    sheet = 0.40 + 0.18 * step_up(x, 3.6, 2.0) + 0.12 * np.exp(-(((y - 1.6) / 1.2) ** 2))
    sheet = sheet * step_up(z, -8.0, -6.4) * (1 - step_up(x, 1.6, 1.0) * step_up(y, -4.7, -5.4))
    put((core > 0) & (core < sheet), WM, 0.39 + 0.01 * broad)
    put(
        (tube(axes, ((1.1, 3.2, -3.5), (1.3, 0.0, -2.7), (1.3, -4.0, -2.5)), 0.26) > 0) & (depth > 0),
        WM,
        0.42,
    )

    cerebellum = cerebellar_cortex(axes, step, put, broad)
    inside = (tissue > 0) & (tissue != CSF)
    for points, radius, flat in TRACTS.values():
        put((tube(axes, points, radius, flat) > 0) & inside, WM, 0.39 + 0.01 * broad)

    fissure = (x < 0.08 + 0.14 * step_up(depth, 0.6, 0.0)) & (core < 0) & (hemispheres > 0) & (z > -6.0)
    put(fissure, CSF, 0.85)
    put((x < 0.08) & (bulb > 0) & (y > 5.2), CSF, 0.85)
    cistern = (edge > -0.24) & (edge < 0) & (y < -5.9) & (hemispheres > 0) & (z > -9.0)
    put(cistern & (core > -0.4), CSF, 0.9)
    brain = tissue > 0
    ventricle = union(*(tube(axes, points, radius, flat) for points, radius, flat in VENTRICLES.values()))
    ventricle = np.where(brain & (cerebellum < 0.3), ventricle, np.float32(-1))
    signal[brain] *= 1 + 0.015 * fine[brain]
    return Brain(tissue, signal, ventricle)


def cerebellar_cortex(
    axes: Axes, step: float, put: Callable[[NDArray[np.bool_], int, Level], None], wave: Field
) -> Field:
    """Paint the cerebellum: folia with fluid between them around the arbor vitae. Returns its depth in mm."""
    x, y, z = axes
    groove = 0.5 * np.exp(-(((x - 2.4) / 0.5) ** 2)) * step_up(z, -5.0, -3.5)
    whole = union(
        loft((x, y, z + groove), CEREBELLUM, 2.2), ellipsoid(axes, (6.0, -11.0, -6.5), (1.1, 1.2, 1.2))
    )
    depth = distance(whole > 0, step)
    across, up = y + np.float32(11.2), z + np.float32(6.0)
    radius = np.hypot(across, up)
    # Lobules fan out from the fourth ventricle's roof, their spacing drifting from vermis to hemisphere.
    angle = np.arctan2(up, across)
    angle = angle + 0.16 * radius * np.cos(angle) * step_up(radius, 0.8, 2.0)
    fan = (
        angle * np.float32(12 / (2 * np.pi))
        + 0.22 * np.sin(2.3 * angle + 0.6)
        + np.float32(0.11) * x
        + 0.16 * wave
    )
    phase = np.abs(fan - np.rint(fan)) * 2
    width = phase * radius * np.float32(np.pi / 12)
    gap = (1 - phase) * radius * np.float32(np.pi / 12)
    inside = whole > 0
    put(inside, GM, 0.66 - 0.10 * np.exp(-((width / 0.3) ** 2)))
    put(inside & (gap < 0.075) & (depth < 1.3 + 0.4 * wave) & (radius > 1.5), CSF, 0.85)
    put(inside & (width < 0.10 + 0.05 * depth) & (depth > 0.55 + 0.1 * wave), WM, 0.42)
    put(inside & (depth > 2.1) & (radius < 2.2), WM, 0.41)
    put(ellipsoid(axes, (2.6, -11.2, -6.0), (1.6, 0.9, 0.8)) > 0, WM, 0.42)
    return depth
