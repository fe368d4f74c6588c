"""How well masks fit the truth, and what quality control sees, on phantom heads.

python benchmarks/masks.py fit --jobs 2 --picture docs/pictures/segmentation.png     # docs/segmentation.md
python benchmarks/masks.py fit --engines ants --hard --n-heads 8
python benchmarks/masks.py fit --engines ants --grid fine --n-heads 4
python benchmarks/masks.py truth --n-heads 2
python benchmarks/masks.py quality --quick                                           # docs/quality-control.md
python benchmarks/masks.py quality --picture docs/pictures/quality-control.png

Prints one JSON object on stdout; a line for each head goes to stderr. SPM is used where it is found.

fit: Dice of masks by each engine with the truth, mean and worst head, beside the targets; seconds, seconds of a
core, and memory. Each head is another animal than the template: size +-10 %, turned by up to 15 degrees, shifted
by up to 3 mm, coil shading, SNR 20, every third cut by its field of view, stored in four orientations. --hard:
headers that are wrong (orientation, lengths ten times too large) and brains without heads. "ceiling" is what the
template's maps reach when they are carried to the scan by the very deformation that made it: no registration can
do better. The truth of a voxel is taken from samples 0.1 mm apart.

truth: how well labels from coarser samples agree with those from samples 0.05 mm apart: what a truth is worth.

quality: heads that are damaged, and sound ones of unusual size, judged by the limits of 12 sound heads: for each
kind and strength of damage how many are rejected and by which measures, how many of each size pass, and how many
of 24 sound heads pass the limits that the others give. --picture draws the damaged heads and segments nothing.
"""

import argparse
import copy
import json
import resource
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from matplotlib.figure import Figure
from nibabel.affines import apply_affine
from nibabel.orientations import axcodes2ornt, io_orientation, ornt_transform
from scipy import ndimage
from scipy.spatial.transform import Rotation

from bids_alphagan.common.errors import ScanError
from bids_alphagan.common.volume import load, save
from bids_alphagan.phantom import acquisition
from bids_alphagan.phantom.acquisition import acquire, scan_affine
from bids_alphagan.phantom.anatomy import head
from bids_alphagan.phantom.animal import Animal, Pose, draw_animal, draw_pose, to_head
from bids_alphagan.phantom.dataset import segment, write_template
from bids_alphagan.qc.limits import Limits, failures, thresholds
from bids_alphagan.segmenters import SEGMENTERS, resolve_segmenter
from bids_alphagan.segmenters.base import TISSUES, Segmenter
from bids_alphagan.segmenters.options import MaskOptions
from bids_alphagan.segmenters.pose import right_angles
from bids_alphagan.segmenters.spm_program import find_spm
from bids_alphagan.templates import Template, find_template

GRIDS = {  # shape, voxel in mm, slices of a scan that cuts the brain
    "sigma": ((64, 64, 40), (0.375, 0.375, 0.5), 26),
    "fine": ((112, 112, 88), (0.2, 0.2, 0.2), 60),
    "demo": ((32, 32, 20), (0.75, 0.75, 1.0), 13),
}
STORED = ("RAS", "LAS", "PIR", "LPI")
HARD = ("wrong orientation", "ten times larger", "brain only", "wrong orientation, cut")
TARGETS = {"brain": 0.96, "GM": 0.90, "WM": 0.90, "CSF": 0.75}
TRUTH = 0.1  # mm between the samples of a voxel that its truth is the mean of
STRENGTH = (0.6, 1.3)  # of the susceptibility, as `acquire` draws it first

# Of the heads for quality control
SHAPE, ZOOMS, _ = GRIDS["demo"]
CENTRE = (16, 16, 11)  # in the middle of the phantom's cerebrum
SIZES = (0.88, 0.94, 1.06, 1.12)


@contextmanager
def phantom_template() -> Iterator[tuple[Path, Template]]:
    """A folder for scans, and the phantom's template in it."""
    with tempfile.TemporaryDirectory() as name:
        write_template(Path(name), head())
        yield Path(name), find_template(str(Path(name, "tpl-RatPhantom")))


def say(fact: dict[str, Any]) -> None:
    shown = {key: round(value, 3) if isinstance(value, float) else value for key, value in fact.items()}
    print(json.dumps(shown), file=sys.stderr, flush=True)


def processes(n: int, tasks: int | None = None) -> ProcessPoolExecutor:
    """So many at once, each for so many tasks; for one, its peak of memory is the task's."""
    return ProcessPoolExecutor(n, mp_context=get_context("spawn"), max_tasks_per_child=tasks)


# Fit


@dataclass(frozen=True)
class Case:
    """One head to segment: its number, what is special, the scan, and the truth as stored alike."""

    number: int
    kind: str
    scan: Path
    truth: Path
    ceiling: dict[str, float]

    def labels(self, engine: str) -> Path:
        """Where an engine's labels are kept, or those of "truth"."""
        return self.scan.with_name(f"{self.number:02d}_{engine}.nii.gz")


def dice(a: np.ndarray, b: np.ndarray) -> float:
    """Dice coefficient of two masks: 2 |a & b| / (|a| + |b|)."""
    return float(2 * (a & b).sum() / (a.sum() + b.sum()))


def overlaps(made: np.ndarray, truth: np.ndarray) -> dict[str, float]:
    """Dice of the brain and of each tissue; both (x, y, z): 0 outside the brain, then as in TISSUES."""
    tissues = {name: dice(made == k, truth == k) for k, name in enumerate(TISSUES, start=1)}
    return {"brain": dice(made > 0, truth > 0), **tissues}


def draw_head(rng: np.random.Generator) -> tuple[Animal, Pose]:
    """An animal and how it lies, over the whole range that is promised."""
    animal = draw_animal(rng)
    axis, along = (v / np.linalg.norm(v) for v in rng.normal(size=(2, 3)))
    turn = Rotation.from_rotvec(axis * np.deg2rad(15) * rng.uniform() ** (1 / 3)).as_matrix()
    size = animal.size / animal.size.mean() * rng.uniform(0.9, 1.1)
    return animal, Pose(np.diag(1 / size) @ turn, along * 3 * rng.uniform() ** (1 / 3))


def ceiling(template: Template, animal: Animal, pose: Pose, strength: float, grid: Any) -> np.ndarray:
    """The template's labels carried by the true deformation, each voxel the mean of the truth's samples."""
    shape, zooms = grid
    parts = acquisition.parts(zooms)
    axes = [
        ((np.arange(n * p) + 0.5) / p - n / 2).astype(np.float32) * np.float32(z)
        for n, p, z in zip(shape, parts, zooms, strict=True)
    ]
    points = np.stack(np.broadcast_arrays(*np.ix_(*axes)))
    points[1] += acquisition.susceptibility(pose.apply(points), strength)[0]
    to_voxels = np.linalg.inv(load(template.gm).affine)
    where = np.moveaxis(apply_affine(to_voxels, np.moveaxis(to_head(points, animal, pose), 0, -1)), -1, 0)
    maps = [load(path).get_fdata(dtype=np.float32) for path in (template.gm, template.wm, template.csf)]
    carried = [ndimage.map_coordinates(values, where, order=1) for values in maps]
    return segment(np.stack([acquisition.average(values, parts) for values in carried]))[0]


def make_case(folder: Path, template: Template, number: int, grid: str, kind: str, finest: float) -> Case:
    """Scan one head, in one of the storage orders, with what is wrong in the header if `kind` says so.

    finest: mm between the samples of a voxel.
    """
    acquisition.FINEST = finest
    rng = np.random.default_rng([47, number])
    animal, pose = draw_head(rng)
    shape, zooms, slices = GRIDS[grid]
    cut = kind.endswith("cut") or (not kind and number % 3 == 0)
    shape = (*shape[:2], slices) if cut else shape
    strength = float(copy.deepcopy(rng).uniform(*STRENGTH))
    made = acquire(head(), animal, pose, rng, shape, zooms, volumes=1)
    truth, data = segment(made.fractions)[0], made.series[..., 0].astype(np.float32)
    best = overlaps(ceiling(template, animal, pose, strength, (shape, zooms)), truth)
    affine = scan_affine(shape, zooms)
    if kind == "brain only":
        data = data * (truth > 0)
    if kind.startswith("wrong"):
        turn = np.eye(4)
        turn[:3, :3] = right_angles()[int(rng.integers(1, 24))]
        affine = turn @ affine
    if kind == "ten times larger":
        affine = np.diag([10, 10, 10, 1.0]) @ affine
    stored = STORED[number % 4]
    paths = [folder / f"{number:02d}_{what}.nii.gz" for what in ("scan", "truth")]
    for values, path in zip((data, truth), paths, strict=True):
        image = nib.Nifti1Image(values, affine)
        turned = image.as_reoriented(ornt_transform(io_orientation(affine), axcodes2ornt(stored)))
        save(turned, path)
    special = ", ".join(filter(None, (kind or stored, "cut" if cut and not kind else "")))
    return Case(number, special, paths[0], paths[1], best)


def masked(engine: str, template: Template, case: Case, threads: int, quick: bool) -> dict[str, Any]:
    """Segment one head in a process of its own; seconds are of the wall, memory_gb the sum of its peaks."""
    segmenter = resolve_segmenter(engine, template, MaskOptions(quick=quick, threads=threads))
    with tempfile.TemporaryDirectory() as scratch:
        start = time.perf_counter()
        made = segmenter(case.scan, Path(scratch))
        seconds = time.perf_counter() - start
    who = (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
    truth = np.asarray(load(case.truth).dataobj)
    save(nib.Nifti1Image(made.dseg, load(case.scan).affine), case.labels(engine))
    return {
        "engine": engine,
        "head": case.number,
        "kind": case.kind,
        **overlaps(made.dseg, truth),
        "seconds": seconds,
        "cpu_seconds": sum(resource.getrusage(w).ru_utime for w in who),
        "memory_gb": sum(resource.getrusage(w).ru_maxrss for w in who) / 2**20,
        "warnings": len(made.provenance["Warnings"]),
    }


def summary(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Mean and worst Dice, and whether both reach the target; mean seconds; most memory."""
    result: dict[str, Any] = {"n": len(rows)}
    for key, target in TARGETS.items():
        values = [row[key] for row in rows]
        mean, worst = float(np.mean(values)), min(values)
        met = mean >= target and worst >= target - 0.05
        result[key] = {"mean": round(mean, 3), "worst": round(worst, 3), "target": target, "met": met}
    for key, of in (("seconds", np.mean), ("cpu_seconds", np.mean), ("memory_gb", np.max)):
        if key in rows[0]:
            result[key] = round(float(of([row[key] for row in rows])), 2)
    return result


def draw_masks(cases: list[Case], engines: list[str], path: Path) -> None:
    """One row per head: the scan, the truth, and each engine's tissues, coronal slice through the middle."""
    figure = Figure(figsize=(3 * (2 + len(engines)), 2.4 * len(cases)), facecolor="black")
    for row, case in enumerate(cases):
        images = {name: case.labels(name) for name in ("truth", *engines)}
        scan = nib.as_closest_canonical(load(case.scan))
        grey, (dx, _, dz) = scan.get_fdata(), scan.header.get_zooms()[:3]
        labels = {n: np.asarray(nib.as_closest_canonical(load(p)).dataobj) for n, p in images.items()}
        at = int(np.argwhere(labels["truth"] > 0).mean(axis=0)[1].round())
        for column, name in enumerate(("scan", *images)):
            axes = figure.add_subplot(len(cases), 2 + len(engines), row * (2 + len(engines)) + column + 1)
            axes.imshow(
                grey[:, at].T, cmap="gray", origin="lower", aspect=dz / dx, vmax=np.percentile(grey, 99.8)
            )
            if name != "scan":
                shown = np.ma.masked_equal(labels[name][:, at].T, 0)
                axes.imshow(shown, cmap="brg", origin="lower", aspect=dz / dx, alpha=0.5, vmin=1, vmax=3)
            axes.set_title(
                f"{name}, head {case.number} ({case.kind})" if not column else name, color="white", fontsize=8
            )
            axes.set_axis_off()
    figure.tight_layout()
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=80)


def fit(options: argparse.Namespace) -> dict[str, Any]:
    """Masks of every head by every engine."""
    engines = options.engines or [*(["spm"] if find_spm() else []), "ants"]
    kinds = [HARD[n % len(HARD)] if options.hard else "" for n in range(options.n_heads)]
    with phantom_template() as (folder, template), processes(options.jobs, tasks=1) as pool:
        making = [
            pool.submit(make_case, folder, template, n, options.grid, kind, options.finest)
            for n, kind in enumerate(kinds, start=1)
        ]
        cases = [job.result() for job in making]
        jobs = [
            pool.submit(masked, engine, template, case, options.threads, options.quick)
            for engine in engines
            for case in cases
        ]
        rows = []
        for job in jobs:
            rows.append(job.result())
            say(rows[-1])
        result: dict[str, Any] = {"grid": options.grid, "hard": options.hard, "quick": options.quick}
        result["ceiling"] = summary([case.ceiling for case in cases])
        for engine in engines:
            of_engine = [row for row in rows if row["engine"] == engine]
            segmenter = resolve_segmenter(engine, template, MaskOptions(quick=options.quick))
            result[engine] = {"version": segmenter.describe()["Version"], **summary(of_engine)}
            result[engine]["warned"] = sum(bool(row["warnings"]) for row in of_engine)
        if len(engines) == 2:
            pairs = [
                overlaps(*(np.asarray(load(case.labels(engine)).dataobj) for engine in engines))
                for case in cases
            ]
            result["agreement"] = {k: round(float(np.mean([p[k] for p in pairs])), 3) for k in TARGETS}
            first, second = (result[engine]["cpu_seconds"] for engine in engines)
            result["cpu_seconds_ratio"] = round(first / second, 2)
        if options.picture:
            draw_masks(cases[:4], engines, options.picture)
    return result


# Truth


def truth(options: argparse.Namespace) -> dict[str, Any]:
    """Of labels from samples so many mm apart: their agreement with those from the finest samples."""
    heads = []
    for number in range(1, options.n_heads + 1):
        heads.append(truth_by_samples(number, options.grid, options.finest, options.apart))
        say({"head": number})
    return {name: summary([each[name] for each in heads]) for name in heads[0]}


def truth_by_samples(
    number: int, grid: str, finest: float, apart: Sequence[float]
) -> dict[str, dict[str, float]]:
    """How well labels from samples so many mm apart agree with those from the finest ones."""
    rng = np.random.default_rng([47, number])
    animal, pose = draw_head(rng)
    shape, zooms, _ = GRIDS[grid]
    made = {}
    for step in (finest, *apart):
        acquisition.FINEST, acquisition.LEAST = step, 1
        scan = acquire(head(), animal, pose, copy.deepcopy(rng), shape, zooms, volumes=1)
        made[step] = segment(scan.fractions)[0]
    return {f"{step:g} mm": overlaps(made[step], made[finest]) for step in apart}


# Quality control


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
# name: function, what its strength is, strengths
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


def judge(found: dict[str, float] | str, limits: Limits) -> list[str]:
    """The measures that an image fails by; "no masks" where it could not be segmented."""
    return ["no masks"] if isinstance(found, str) else failures(found, limits)


def counted(failed: Sequence[Sequence[str]]) -> dict[str, int]:
    """How many heads fail by each measure, the commonest first."""
    return dict(Counter(name for names in failed for name in names).most_common())


def left_out(heads: Sequence[dict[str, float]], width: float) -> dict[str, Any]:
    """How many heads pass the limits that all others give, and by which measures the others fail."""
    failed = []
    for i, own in enumerate(heads):
        others = [other for j, other in enumerate(heads) if j != i]
        failed.append(failures(own, thresholds(others, width)))
    return {"heads": len(heads), "passed": len(heads) - sum(map(bool, failed)), "by": counted(failed)}


Head = tuple[Damage, int, float | None]  # a function, and its number and strength


def measured(segmenter: Segmenter, case: Head) -> dict[str, float] | str:
    make, number, strength = case
    return measures(make(number, strength), segmenter)  # type: ignore[arg-type]


def quality(options: argparse.Namespace) -> dict[str, Any]:
    """Damaged heads and sound ones, judged by the limits of sound heads."""
    if options.picture:
        draw_damaged(options.picture)
        return {"picture": str(options.picture)}
    with phantom_template() as (_, template), processes(options.jobs) as pool:
        segmenter = resolve_segmenter(options.segmenter, template, MaskOptions(quick=options.quick))

        def all_measures(cases: Sequence[Head]) -> list[dict[str, float] | str]:
            return list(pool.map(partial(measured, segmenter), cases))

        sound = all_measures([(scan, number, None) for number in range(max(options.real, options.sound))])
        heads = [each for each in sound if not isinstance(each, str)]
        limits = thresholds(heads[: options.real], options.qc_width)
        damaged, sizes = [], []
        for kind in options.damages:
            damage, unit, strengths = DAMAGES[kind]
            for strength in strengths:
                found = all_measures([(damage, 200 + i, strength) for i in range(options.heads)])
                failed = [judge(each, limits) for each in found]
                row = {"damage": kind, "unit": unit, "strength": strength, "heads": options.heads}
                damaged.append(row | {"rejected": sum(map(bool, failed)), "by": counted(failed)})
                say(damaged[-1])
        for size in options.sizes:
            found = all_measures([(scan, 300 + i, size) for i in range(options.heads)])
            failed = [judge(each, limits) for each in found]
            passed = options.heads - sum(map(bool, failed))
            sizes.append({"size": size, "heads": options.heads, "passed": passed, "by": counted(failed)})
            say(sizes[-1])
    return {
        "segmenter": segmenter.describe(),
        "qc_width": options.qc_width,
        "limits": {name: limit.record() for name, limit in limits.items()},
        "damaged": damaged,
        "unusual_size": sizes,
        "left_out": left_out(heads[: options.sound], options.qc_width),
    }


def draw_damaged(path: Path) -> None:
    """Draw a sound head and each damage at its greatest: sagittal slice above, axial slice below."""
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
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=100)


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    one = commands.add_parser("fit", help="masks by each engine, beside the truth")
    one.add_argument("--n-heads", type=int, default=12, metavar="N")
    one.add_argument("--grid", choices=GRIDS, default="sigma")
    one.add_argument("--engines", nargs="+", choices=("spm", "ants"), help="default: spm if found, and ants")
    one.add_argument("--hard", action="store_true", help="wrong headers and brains without heads")
    one.add_argument("--quick", action="store_true", help="as in the demo")
    one.add_argument("--jobs", type=int, default=1, metavar="N", help="scans at once")
    one.add_argument("--threads", type=int, default=1, metavar="N", help="of a scan")
    one.add_argument("--finest", type=float, default=TRUTH, metavar="MM", help="between the truth's samples")
    one.add_argument("--picture", type=Path, metavar="PNG")
    two = commands.add_parser("truth", help="how good the truth is")
    two.add_argument("--n-heads", type=int, default=12, metavar="N")
    two.add_argument("--grid", choices=GRIDS, default="sigma")
    two.add_argument("--finest", type=float, default=TRUTH / 2, metavar="MM", help="between the best samples")
    two.add_argument("--apart", type=float, nargs="+", default=[0.25, 0.15, TRUTH], metavar="MM")
    three = commands.add_parser("quality", help="what quality control sees")
    three.add_argument("--heads", type=int, default=4, metavar="N", help="for each damage and size")
    three.add_argument("--real", type=int, default=12, metavar="N", help="heads that the limits come from")
    three.add_argument("--sound", type=int, default=24, metavar="N", help="sound heads, each left out once")
    three.add_argument("--damages", nargs="*", choices=DAMAGES, default=list(DAMAGES))
    three.add_argument("--sizes", nargs="*", type=float, default=SIZES, metavar="LENGTH")
    three.add_argument("--qc-width", type=float, default=5.0, metavar="W", help="of the limits")
    three.add_argument("--quick", action="store_true", help="as in the demo")
    three.add_argument("--segmenter", choices=SEGMENTERS, default="ants")
    three.add_argument("--jobs", type=int, default=1, metavar="N", help="heads at once")
    three.add_argument("--picture", type=Path, metavar="PNG", help="draw the damaged heads, and no more")
    return parser.parse_args()


def main() -> None:
    """Measure and print."""
    options = arguments()
    print(json.dumps({"fit": fit, "truth": truth, "quality": quality}[options.command](options), indent=1))


if __name__ == "__main__":
    main()
