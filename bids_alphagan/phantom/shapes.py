"""Implicit shapes on a half grid of a left-right symmetric head; lengths in mm, positive inside.

Every function takes the grid's open axes ``(x, y, z)``, shapes (I, 1, 1), (1, J, 1) and (1, 1, K), and
returns a float32 array of shape (I, J, K): an approximate signed distance to the surface.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Field = NDArray[np.float32]
Axes = tuple[Field, Field, Field]
Point = tuple[float, float, float]
FAR = -1e3
"""The value of a small shape outside its surroundings."""


def within(axes: Axes, low: NDArray, high: NDArray, margin: float = 0.8) -> tuple[slice, ...]:
    """The part of the grid between two corners, `margin` mm wider; elsewhere small shapes are FAR."""
    return tuple(
        slice(*np.searchsorted(axis.ravel(), (lo - margin, hi + margin)))
        for axis, lo, hi in zip(axes, low, high, strict=True)
    )


def cut(axes: Axes, box: tuple[slice, ...]) -> Axes:
    """The open axes of a part of the grid."""
    return axes[0][box[0]], axes[1][:, box[1]], axes[2][:, :, box[2]]


def ellipsoid(axes: Axes, centre: Point, radii: Point, tilt: float = 0.0) -> Field:
    """Ellipsoid, rotated by `tilt` degrees about the left-right axis (positive lifts the front)."""
    field = np.full(np.broadcast_shapes(*(a.shape for a in axes)), FAR, np.float32)
    reach = (radii[0], max(radii[1:]), max(radii[1:])) if tilt else radii
    box = within(axes, np.subtract(centre, reach), np.add(centre, reach))
    x, y, z = (axis - np.float32(c) for axis, c in zip(cut(axes, box), centre, strict=True))
    if tilt:
        cos, sin = np.float32(np.cos(np.radians(tilt))), np.float32(np.sin(np.radians(tilt)))
        y, z = cos * y + sin * z, cos * z - sin * y
    a, b, c = (np.float32(r) for r in radii)
    field[box] = (1 - np.sqrt((x / a) ** 2 + (y / b) ** 2 + (z / c) ** 2)) * np.float32(min(radii))
    return field


def loft(axes: Axes, sections: Sequence[Sequence[float]], power: float = 2.3) -> Field:
    """Superelliptic cross-sections along the front-back axis.

    Each section is (y, half width, z of the widest point, z of the top, z of the bottom); between them
    the four profiles follow monotone cubics; beyond the first and last section the shape ends.
    """
    from scipy.interpolate import PchipInterpolator

    x, y, z = axes
    table = np.asarray(sorted(tuple(s) for s in sections))
    inside = np.clip(y.ravel(), table[0, 0], table[-1, 0])
    width, middle, top, bottom = PchipInterpolator(table[:, 0], table[:, 1:])(inside).T.astype(np.float32)
    width, middle, top, bottom = (p[None, :, None] for p in (width, middle, top, bottom))
    height = np.where(z > middle, top - middle, middle - bottom)
    p = np.float32(power)
    across, up = (np.abs(x) / width) ** p, (np.abs(z - middle) / height) ** p
    field = (1 - (across + up) ** (1 / p)) * np.minimum(width, (top - bottom) / 2)
    beyond = np.maximum(table[0, 0] - y, y - table[-1, 0]).astype(np.float32)
    return np.minimum(field, -beyond)


def tube(axes: Axes, points: Sequence[Point], radius: float | Sequence[float], flat: float = 1.0) -> Field:
    """Round tube along a polyline; `flat` > 1 widens it left to right by that factor."""
    squash = np.array([1 / flat, 1, 1])
    radii = np.broadcast_to(np.asarray(radius, float), len(points))
    nodes, reach = np.asarray(points, float), radii.max() / squash
    field = np.full(np.broadcast_shapes(*(a.shape for a in axes)), FAR, np.float32)
    box = within(axes, nodes.min(0) - reach, nodes.max(0) + reach)
    x, y, z = cut(axes, box)
    x, nodes = x * np.float32(squash[0]), nodes * squash
    part = field[box]
    for a, b, ra, rb in zip(nodes[:-1], nodes[1:], radii[:-1], radii[1:], strict=True):
        a, d = a.astype(np.float32), (b - a).astype(np.float32)
        t = ((x - a[0]) * d[0] + (y - a[1]) * d[1] + (z - a[2]) * d[2]) / np.float32(d @ d)
        t = np.clip(t, 0, 1)
        gap = (x - a[0] - t * d[0]) ** 2 + (y - a[1] - t * d[1]) ** 2 + (z - a[2] - t * d[2]) ** 2
        np.maximum(part, np.float32(ra) + t * np.float32(rb - ra) - np.sqrt(gap), out=part)
    return field


def union(*fields: Field) -> Field:
    """The pointwise maximum: inside where any shape is."""
    out = fields[0]
    for field in fields[1:]:
        out = np.maximum(out, field)
    return out


def enlarge(small: Field, shape: tuple[int, ...], factor: int) -> Field:
    """Interpolate linearly from every `factor`-th voxel, starting at ``factor // 2``, to all of `shape`."""
    out = small
    for axis, n in enumerate(shape):
        where = np.clip((np.arange(n) - factor // 2) / factor, 0, out.shape[axis] - 1)
        low = np.minimum(where.astype(int), out.shape[axis] - 2)
        part = (where - low).astype(np.float32).reshape([-1 if a == axis else 1 for a in range(3)])
        out = out.take(low, axis) * (1 - part) + out.take(low + 1, axis) * part
    return out


def distance(inside: NDArray[np.bool_], step: float, factor: int = 2) -> Field:
    """Signed Euclidean distance (mm, positive inside) to the surface of a mask on a grid of `step` mm.

    Computed on every `factor`-th voxel and interpolated, which is precise enough for layers of 0.3 mm.
    """
    from scipy import ndimage as ndi

    small = inside[(slice(factor // 2, None, factor),) * 3]
    size = step * factor
    signed = ndi.distance_transform_edt(small, size) - ndi.distance_transform_edt(~small, size)
    return enlarge(ndi.gaussian_filter(signed.astype(np.float32), 0.7, mode="nearest"), inside.shape, factor)


def texture(rng: np.random.Generator, shape: tuple[int, ...], step: float, sizes: Point) -> Field:
    """Gaussian random field of unit standard deviation with correlation lengths `sizes` in mm."""
    from scipy import ndimage as ndi

    factor = max(1, min(4, int(min(sizes) / step)))
    small = rng.standard_normal([-(-n // factor) for n in shape], dtype=np.float32)
    small = ndi.gaussian_filter(small, [s / (step * factor) for s in sizes], mode="mirror")
    return enlarge(small / small.std(), shape, factor)
