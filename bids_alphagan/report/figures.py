"""Scans and masks as pictures that are embedded in a report (data URIs).

Scans are reoriented to RAS and drawn in millimetres, in neurological convention: the animal's right is on the
right.
"""

import base64
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import nibabel as nib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.collections import LineCollection
from matplotlib.colors import to_rgba
from matplotlib.figure import Figure
from PIL import Image

TISSUES = ("GM", "WM", "CSF")  # dseg index = position + 1
COLOURS = {"GM": "#ff8a5c", "WM": "#ffe15c", "CSF": "#4cc3ff", "brain": "#ffffff"}
FILL = {"GM": 0.12, "WM": 0.3, "CSF": 0.4}  # GM fills most of the brain and would hide it
BACKGROUND = "#0b0e12"


class Scan(NamedTuple):
    """A volume with axes to Right, Anterior, Superior, and its voxel size in mm."""

    data: np.ndarray
    zooms: tuple[float, float, float]


class Plane(NamedTuple):
    """The axes across, up and through the plane, and the labels of its four sides."""

    across: int
    up: int
    cut: int
    sides: str  # left, right, bottom, top


PLANES = {
    "axial": Plane(0, 1, 2, "LRPA"),
    "coronal": Plane(0, 2, 1, "LRIS"),
    "sagittal": Plane(1, 2, 0, "PAIS"),
}


class Panel(NamedTuple):
    """One slice to draw: a scan, masks over it, and a caption."""

    scan: Scan
    plane: str
    at: int
    maps: Mapping[str, np.ndarray]
    caption: str = ""


def load(path: Path) -> Scan:
    """Read a NIfTI, 3D or (x, y, z, 1), as RAS float32."""
    image = nib.as_closest_canonical(nib.load(path))
    data = np.asarray(image.dataobj, dtype=np.float32)
    if data.ndim == 4:
        data = data[..., 0]
    x, y, z = image.header.get_zooms()[:3]
    return Scan(data, (float(x), float(y), float(z)))


def tissue_maps(masks: Mapping[str, Path]) -> dict[str, np.ndarray]:
    """Read the maps to outline: probability maps if given, else the dseg's labels, and the brain mask."""
    maps = {name: load(masks[name]).data for name in (*TISSUES, "brain") if name in masks}
    if "dseg" in masks and not set(TISSUES) & set(maps):
        labels = load(masks["dseg"]).data
        maps |= {tissue: (labels == i).astype(np.float32) for i, tissue in enumerate(TISSUES, start=1)}
    return maps


def centre(scan: Scan, maps: Mapping[str, np.ndarray]) -> np.ndarray:
    """The voxel at the centre of the masks, or of the bright part of the scan without masks: (3,) int."""
    weight = np.sum(list(maps.values()), axis=0) if maps else scan.data > scan.data.mean()
    positions = np.argwhere(weight > 0.5)
    if not len(positions):
        return np.array(scan.data.shape) // 2
    return positions.mean(axis=0).round().astype(int)


def three_planes(
    scan: Scan, maps: Mapping[str, np.ndarray], at: np.ndarray, *, twice: bool = False, inches: float = 9.0
) -> str:
    """Axial, coronal and sagittal slice through voxel `at`, with `maps`; `twice`: also without maps, above."""
    row = [Panel(scan, name, int(at[plane.cut]), maps, name) for name, plane in PLANES.items()]
    plain = [panel._replace(maps={}) for panel in row]
    return _draw([plain, row] if twice and maps else [row], inches)


def mosaic(scan: Scan, maps: Mapping[str, np.ndarray], columns: int = 5, rows: int = 3) -> str:
    """Slices along the axis with the thickest slices, over the extent of the masks (else the whole scan)."""
    name = max(PLANES, key=lambda p: (scan.zooms[PLANES[p].cut], -scan.data.shape[PLANES[p].cut]))
    axis = PLANES[name].cut
    first, last = 0, scan.data.shape[axis] - 1
    if maps:
        covered = np.flatnonzero(np.any(np.stack(list(maps.values())) > 0.5, axis=(0, *_other_axes(axis))))
        first, last = (covered[0], covered[-1]) if len(covered) else (first, last)
    indices = np.unique(np.linspace(first, last, columns * rows).round().astype(int))
    panels = [Panel(scan, name, int(i), maps, f"{name} {i + 1}") for i in indices]
    return _draw([panels[i : i + columns] for i in range(0, len(panels), columns)])


def _other_axes(axis: int) -> tuple[int, ...]:
    """The other two spatial axes of a stack of maps (maps, x, y, z)."""
    return tuple(i + 1 for i in range(3) if i != axis)


def gallery(paths: Sequence[Path], dsegs: Sequence[Path | None], masks: bool) -> str:
    """One row per scan: three planes through the centre of its brain, with masks if `masks`."""
    rows = []
    for path, dseg in zip(paths, dsegs, strict=True):
        scan = load(path)
        maps = tissue_maps({"dseg": dseg}) if dseg else {}
        at = centre(scan, maps)
        rows.append([Panel(scan, name, int(at[p.cut]), maps if masks else {}) for name, p in PLANES.items()])
    return _draw(rows, inches=6)


def step_of(path: Path) -> int:
    """The iteration of samples/step-XXXXXX.npy."""
    return int(path.stem.split("-")[1])


def progress(samples: Sequence[Path], rows: int = 6) -> str | None:
    """The same latents at the last stages of training (Figure 9 of the paper); None without samples.

    samples: step-XXXXXX.npy with (n, 3, N, N) uint8, middle slices across x, y and z, on the network's grid.
    """
    if not samples:
        return None
    shown = samples[-rows:]
    slices = [np.load(path, allow_pickle=False)[:, 2] for path in shown]  # axial: (n, x, y)
    n, size = slices[0].shape[:2]
    margin = 0.6 * size  # for the labels
    width, height = margin + n * size, len(shown) * size
    inches = min(5.5, 10 * width / height)
    figure = Figure(figsize=(inches, inches * height / width), facecolor=BACKGROUND)
    axes = figure.add_axes((0, 0, 1, 1))
    for row, (path, planes) in enumerate(zip(shown, slices, strict=True)):
        bottom = height - (row + 1) * size
        label = f"{step_of(path):,}".replace(",", " ")
        axes.text(margin - 0.05 * size, bottom + size / 2, label, color="#dfe6ee", ha="right", va="center")
        for column, plane in enumerate(planes):
            left = margin + column * size
            extent = (left, left + 0.97 * size, bottom, bottom + 0.97 * size)
            grey: dict[str, Any] = {"cmap": "gray", "vmin": 0, "vmax": 255, "interpolation": "bicubic"}
            axes.imshow(plane.T, origin="lower", extent=extent, **grey)
    axes.set(xlim=(0, width), ylim=(0, height), aspect="auto")
    axes.set_axis_off()
    return png(figure)


def _draw(rows: Sequence[Sequence[Panel]], inches: float = 9.0) -> str:
    """Arrange panels on a common scale in mm, in one Axes: a PNG data URI, at most `inches` wide."""
    sizes = [[_extent(panel) for panel in row] for row in rows]
    n_columns = max(len(row) for row in rows)
    widths = [max(row[c][0] for row in sizes if c < len(row)) for c in range(n_columns)]
    heights = [max(height for _, height in row) for row in sizes]
    gap = 0.02 * sum(widths)
    width, height = sum(widths) + gap * (n_columns - 1), sum(heights) + gap * (len(rows) - 1)
    inches = min(inches, 10 * width / height)
    figure = Figure(figsize=(inches, inches * height / width), facecolor=BACKGROUND)
    axes = figure.add_axes((0, 0, 1, 1))
    top = height
    for row, row_height in zip(rows, heights, strict=True):
        left = 0.0
        for panel, column in zip(row, widths, strict=False):
            across, up = _extent(panel)
            _draw_panel(axes, panel, left + (column - across) / 2, top - (row_height + up) / 2)
            left += column + gap
        top -= row_height + gap
    axes.set(xlim=(0, width), ylim=(0, height), aspect="auto")
    axes.set_axis_off()
    return png(figure)


def _extent(panel: Panel) -> tuple[float, float]:
    """Width and height of a panel in mm."""
    plane = PLANES[panel.plane]
    shape, zooms = panel.scan.data.shape, panel.scan.zooms
    return shape[plane.across] * zooms[plane.across], shape[plane.up] * zooms[plane.up]


def _draw_panel(axes: Axes, panel: Panel, left: float, bottom: float) -> None:
    """Draw one slice with its lower left corner at (left, bottom), in mm."""
    plane = PLANES[panel.plane]
    width, height = _extent(panel)
    position: dict[str, Any] = {"origin": "lower", "extent": (left, left + width, bottom, bottom + height)}
    low, high = window(panel.scan.data)
    grey = _slice(panel.scan.data, panel)
    axes.imshow(grey, cmap="gray", vmin=low, vmax=high, interpolation="bicubic", **position)
    fill = np.zeros((*grey.shape, 4), np.float32)
    for name, volume in panel.maps.items():
        inside = _slice(volume, panel) > 0.5
        if name in FILL:
            fill[inside] = to_rgba(COLOURS[name], FILL[name])
        edges = outline(inside) * (panel.scan.zooms[plane.across], panel.scan.zooms[plane.up]) + (
            left,
            bottom,
        )
        axes.add_collection(
            LineCollection(list(edges), colors=COLOURS[name], linewidths=0.7, capstyle="projecting")
        )
    if panel.maps:
        axes.imshow(fill, interpolation="nearest", **position)

    def write(x: float, y: float, text: str, **style: Any) -> None:
        axes.text(left + x * width, bottom + y * height, text, color="#dfe6ee", fontsize=7.5, **style)

    write(0.02, 0.5, plane.sides[0], ha="left", va="center", weight="bold")
    write(0.98, 0.5, plane.sides[1], ha="right", va="center", weight="bold")
    write(0.5, 0.02, plane.sides[2], ha="center", va="bottom", weight="bold")
    write(0.5, 0.98, plane.sides[3], ha="center", va="top", weight="bold")
    write(0.02, 0.02, panel.caption, ha="left", va="bottom")


def outline(inside: np.ndarray) -> np.ndarray:
    """The edges between voxels inside and outside.

    Parameters
    ----------
    inside: (rows, columns) bool.

    Returns
    -------
    (n, 2, 2): n line segments between two points (x, y), where voxel (row, column) spans
    [column, column + 1] x [row, row + 1].
    """
    padded = np.pad(inside, 1)
    row, column = np.nonzero(padded[1:-1, 1:] != padded[1:-1, :-1])
    upright = np.stack([np.stack([column, row], 1), np.stack([column, row + 1], 1)], 1)
    row, column = np.nonzero(padded[1:, 1:-1] != padded[:-1, 1:-1])
    level = np.stack([np.stack([column, row], 1), np.stack([column + 1, row], 1)], 1)
    return np.concatenate([upright, level])


def _slice(volume: np.ndarray, panel: Panel) -> np.ndarray:
    """The slice as (up, across), as imshow needs it."""
    plane = PLANES[panel.plane]
    flat = np.take(volume, panel.at, axis=plane.cut)
    return flat if plane.up < plane.across else flat.T


def window(data: np.ndarray) -> tuple[float, float]:
    """Grey scale limits that are robust to a few bright or dark voxels: 1st and 99.8th percentile."""
    low, high = np.percentile(data, (1, 99.8))
    return (float(low), float(high)) if high > low else (float(data.min()), float(data.max()) + 1e-6)


def png(figure: Figure) -> str:
    """A PNG of at most 256 colours, a third of the size without visible loss."""
    canvas = FigureCanvasAgg(figure)
    figure.set_dpi(150)
    canvas.draw()
    colours = Image.fromarray(np.asarray(canvas.buffer_rgba())[..., :3].copy()).quantize(256)
    stream = io.BytesIO()
    colours.save(stream, "PNG", optimize=True)
    return data_uri(stream.getvalue(), "image/png")


def data_uri(content: bytes, kind: str) -> str:
    """`content` as a data URI; `kind` is its media type."""
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"
