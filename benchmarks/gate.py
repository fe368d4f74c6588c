"""What the gate sees: damaged phantom heads and sound ones of unusual size, judged by 12 real heads' limits.

Prints a line per head and, as the last one, JSON: for each kind and strength of damage how many heads were
rejected and by which measures; how many sound heads of each size passed; how many of 24 sound heads pass
limits drawn from the others.

python benchmarks/gate.py --quick
python benchmarks/gate.py --picture damaged.png     # the heads alone, nothing is segmented
"""

import argparse
import json
import tempfile
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from scipy import ndimage

from bids_alphagan.common.errors import ScanError
from bids_alphagan.phantom.acquisition import acquire, scan_affine
from bids_alphagan.phantom.anatomy import head
from bids_alphagan.phantom.animal import draw_animal, draw_pose
from bids_alphagan.phantom.dataset import write_template
from bids_alphagan.qc import limits as rule
from bids_alphagan.segmenters import SEGMENTERS, resolve_segmenter
from bids_alphagan.segmenters.base import Segmenter
from bids_alphagan.segmenters.options import MaskOptions
from bids_alphagan.templates import find_template

SHAPE, ZOOMS = (32, 32, 20), (0.75, 0.75, 1.0)
CENTRE = (16, 16, 11)  # in the middle of the phantom's cerebrum
REAL = 12  # heads that the limits come from
SIZES = (0.88, 0.94, 1.06, 1.12)


def scan(number: int, size: float | None = None, wall: float | None = None) -> np.ndarray:
    """A phantom animal's magnitude image (x, y, z): `number` seeds all of it.

    size: length of the brain, 1 for the mean animal's. wall: shift of the ventricles' wall in mm; -10 closes
    the ventricles, whose place grey and white matter take.
    """
    rng = np.random.default_rng([7, number])
    animal = draw_animal(rng)
    if size is not None:
        animal = animal._replace(size=np.full(3, size))
    if wall is not None:
        animal = animal._replace(ventricles=wall)
    pose = draw_pose(rng, animal)
    return acquire(head(), animal, pose, rng, SHAPE, ZOOMS, volumes=4).series.mean(axis=3)


def blurred(number: int, sigma: float) -> np.ndarray:
    """Smoothed by a Gaussian of `sigma` voxels."""
    return ndimage.gaussian_filter(scan(number), sigma)


def ghosted(number: int, strength: float) -> np.ndarray:
    """Doubled: a second head, half a field of view away along the phase encoding."""
    image = scan(number)
    return image + strength * np.roll(image, SHAPE[1] // 2, axis=1)


def beside(number: int, strength: float) -> np.ndarray:
    """Doubled: a second head, half a field of view away to the side."""
    image = scan(number)
    return image + strength * np.roll(image, SHAPE[0] // 2, axis=0)


def overlaid(number: int, strength: float) -> np.ndarray:
    """Two animals in one image, as a generator between two scans makes them."""
    return scan(number) + strength * scan(number + 1000)


def without_ventricles(number: int, wall: float) -> np.ndarray:
    """Ventricles whose wall lies `wall` mm further in; 10: closed."""
    return scan(number, wall=-wall)


def with_hole(number: int, radius: float) -> np.ndarray:
    """No signal in a ball of `radius` mm inside the brain."""
    image = scan(number)
    place = np.indices(SHAPE).T * ZOOMS - np.multiply(CENTRE, ZOOMS)
    image[radius**2 > (place**2).sum(axis=-1).T] = 0
    return image


def noisy(number: int, share: float) -> np.ndarray:
    """Noise takes the place of a share of the image; 1: nothing but noise."""
    image = scan(number)
    rng = np.random.default_rng([8, number])
    noise = np.hypot(*rng.normal(0, image.std(), (2, *SHAPE)))
    return (1 - share) * image + share * noise


Damage = Callable[[int, float], np.ndarray]
DAMAGES: dict[str, tuple[Damage, str, tuple[float, ...]]] = {
    "blurred": (blurred, "sigma, voxels", (0.6, 1.0, 2.0)),
    "doubled, along the phase encoding": (ghosted, "strength", (0.2, 0.5, 1.0)),
    "doubled, side by side": (beside, "strength", (0.2, 0.5, 1.0)),
    "two animals in one": (overlaid, "strength", (0.3, 1.0)),
    "without ventricles": (without_ventricles, "wall, mm", (0.1, 10.0)),
    "with a hole": (with_hole, "radius, mm", (1.0, 2.0, 3.0)),
    "noise": (noisy, "share", (0.3, 0.6, 1.0)),
}


def measures(image: np.ndarray, segmenter: Segmenter) -> dict[str, float] | str:
    """The measures of an image's masks, or why there are none."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "scan.nii.gz")
        nib.save(nib.Nifti1Image(image.astype(np.float32), scan_affine(SHAPE, ZOOMS)), path)
        try:
            return segmenter(path, Path(folder)).measures
        except ScanError as error:
            return str(error)


def judge(found: dict[str, float] | str, limits: rule.Limits) -> list[str]:
    """The measures that an image fails by; "no masks" where it could not be segmented."""
    return ["no masks"] if isinstance(found, str) else rule.failures(found, limits)


def damaged(segmenter: Segmenter, limits: rule.Limits, n: int) -> list[dict[str, Any]]:
    """For each damage and strength: how many of `n` heads are rejected, and by which measures."""
    rows = []
    for kind, (damage, unit, strengths) in DAMAGES.items():
        for strength in strengths:
            failed = [judge(measures(damage(200 + i, strength), segmenter), limits) for i in range(n)]
            by = Counter(name for names in failed for name in names)
            rows.append({"damage": kind, unit: strength, "heads": n, "rejected": sum(map(bool, failed))})
            rows[-1]["by"] = dict(by.most_common())
            print(rows[-1])
    return rows


def unusual(segmenter: Segmenter, limits: rule.Limits, n: int) -> list[dict[str, Any]]:
    """For each size: how many of `n` sound heads pass, and by which measures the others fail."""
    rows = []
    for size in SIZES:
        failed = [judge(measures(scan(300 + i, size), segmenter), limits) for i in range(n)]
        by = Counter(name for names in failed for name in names)
        rows.append({"size": size, "heads": n, "passed": n - sum(map(bool, failed)), "by": dict(by)})
        print(rows[-1])
    return rows


def picture(path: Path) -> None:
    """Draw a sound head and each damage at its greatest: sagittal slice above, axial slice below."""
    from matplotlib.figure import Figure

    shown = {"sound": scan(200)} | {kind: damage(200, s[-1]) for kind, (damage, _, s) in DAMAGES.items()}
    figure = Figure(figsize=(1.5 * len(shown), 3.2), facecolor="#0b0e12")
    grid = figure.subplots(2, len(shown), gridspec_kw={"wspace": 0.04, "hspace": 0.02})
    figure.subplots_adjust(left=0.005, right=0.995, bottom=0.01, top=0.85)
    for column, (kind, image) in zip(grid.T, shown.items(), strict=True):
        grey = {"cmap": "gray", "origin": "lower", "vmin": 0, "vmax": np.percentile(image, 99.5)}
        column[0].imshow(image[CENTRE[0]].T, aspect=ZOOMS[2] / ZOOMS[1], **grey)
        column[1].imshow(image[:, :, CENTRE[2] - 1].T, **grey)
        column[0].set_title(kind.replace(", ", ",\n").replace(" the ", " the\n"), fontsize=8, color="#dfe6ee")
        for axes in column:
            axes.set_axis_off()
    figure.savefig(path, dpi=100)


def left_out(heads: Sequence[dict[str, float]], width: float) -> dict[str, Any]:
    """How many heads pass the limits that all others give, and by which measures the others fail."""
    failed = []
    for i, mine in enumerate(heads):
        others = [other for j, other in enumerate(heads) if j != i]
        failed.append(rule.failures(mine, rule.thresholds(others, width)))
    by = Counter(name for names in failed for name in names)
    return {"heads": len(heads), "passed": len(heads) - sum(map(bool, failed)), "by": dict(by)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--heads", type=int, default=4, metavar="N", help="for each damage and size")
    parser.add_argument("--sound", type=int, default=24, metavar="N", help="sound heads, each left out once")
    parser.add_argument("--gate-width", type=float, default=5.0, metavar="W")
    parser.add_argument("--quick", action="store_true", help="as in the demo")
    parser.add_argument("--segmenter", choices=SEGMENTERS, default="ants")
    parser.add_argument("--picture", type=Path, metavar="PNG", help="draw the damaged heads, and no more")
    options = parser.parse_args()
    if options.picture:
        picture(options.picture)
        return

    with tempfile.TemporaryDirectory() as folder:
        write_template(Path(folder), head())
        template = find_template(str(Path(folder, "tpl-RatPhantom")))
        segmenter = resolve_segmenter(options.segmenter, template, MaskOptions(quick=options.quick))
        sound = [measures(scan(number), segmenter) for number in range(max(REAL, options.sound))]
        heads = [one for one in sound if not isinstance(one, str)]
        limits = rule.thresholds(heads[:REAL], options.gate_width)
        print({name: limit.bounds for name, limit in limits.items()})
        result = {
            "segmenter": segmenter.describe(),
            "gate_width": options.gate_width,
            "limits": {name: limit.record() for name, limit in limits.items()},
            "damaged": damaged(segmenter, limits, options.heads),
            "unusual size": unusual(segmenter, limits, options.heads),
            "left out": left_out(heads, options.gate_width),
        }
    print(json.dumps(result))


if __name__ == "__main__":
    main()
