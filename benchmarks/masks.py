"""How well masks fit the truth on phantom heads that the template was not made from, by both engines.

Each head is another animal: size +-10 %, turned by up to 15 degrees, shifted by up to 3 mm, coil shading, SNR
20, every third cut by its field of view, stored in four orientations. With --hard, headers that are wrong
(orientation, lengths ten times too large) and brains without heads. 'ceiling' is what the template's maps
reach when they are carried to the scan by the very deformation that made it: no registration can do better.

The truth of a voxel is taken from samples 0.1 mm apart. With --truth, nothing is segmented: labels from
coarser samples are compared with those from samples twice as fine as these, to tell what a truth is worth.

Prints a line for each scan and one JSON object as the last line. SPM is used where it is found.

python benchmarks/segmentation.py --n-heads 12 --jobs 2 --picture docs/pictures/segmentation.png
"""

import argparse
import copy
import json
import resource
import sys
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from nibabel.affines import apply_affine
from nibabel.orientations import axcodes2ornt, io_orientation, ornt_transform
from scipy import ndimage
from scipy.spatial.transform import Rotation

from bids_alphagan.common.volume import load, save
from bids_alphagan.phantom import acquisition
from bids_alphagan.phantom.anatomy import head
from bids_alphagan.phantom.animal import Animal, Pose, draw_animal, to_head
from bids_alphagan.phantom.dataset import segment, write_template
from bids_alphagan.segmenters import TISSUES, resolve_segmenter
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
COARSER = (0.25, 0.15, TRUTH)
STRENGTH = (0.6, 1.3)  # of the susceptibility, as `acquire` draws it first


@dataclass(frozen=True)
class Case:
    """One head to segment: its number, what is special, the scan, and the truth as stored alike."""

    number: int
    kind: str
    scan: Path
    truth: Path
    ceiling: dict[str, float]


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


def make_case(folder: Path, template: Template, number: int, grid: str, kind: str) -> Case:
    """Scan one head, in one of the storage orders, with what is wrong in the header if `kind` says so."""
    acquisition.FINEST = TRUTH
    rng = np.random.default_rng([47, number])
    animal, pose = draw_head(rng)
    shape, zooms, slices = GRIDS[grid]
    cut = kind.endswith("cut") or (not kind and number % 3 == 0)
    shape = (*shape[:2], slices) if cut else shape
    strength = float(copy.deepcopy(rng).uniform(*STRENGTH))
    made = acquisition.acquire(head(), animal, pose, rng, shape, zooms, volumes=1)
    truth, data = segment(made.fractions)[0], made.series[..., 0].astype(np.float32)
    best = overlaps(ceiling(template, animal, pose, strength, (shape, zooms)), truth)
    affine = acquisition.scan_affine(shape, zooms)
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
    told = ", ".join(filter(None, (kind or stored, "cut" if cut and not kind else "")))
    return Case(number, told, paths[0], paths[1], best)


def truth_by_samples(number: int, grid: str) -> dict[str, dict[str, float]]:
    """How well labels from samples so many mm apart agree with those from samples of half of TRUTH."""
    rng = np.random.default_rng([47, number])
    animal, pose = draw_head(rng)
    shape, zooms, _ = GRIDS[grid]
    made = {}
    for finest in (TRUTH / 2, *COARSER):
        acquisition.FINEST, acquisition.LEAST = finest, 1
        scan = acquisition.acquire(head(), animal, pose, copy.deepcopy(rng), shape, zooms, volumes=1)
        made[f"{finest:g} mm"] = segment(scan.fractions)[0]
    best, *others = made
    return {name: overlaps(made[name], made[best]) for name in others}


def run(engine: str, template: Template, case: Case, threads: int, quick: bool) -> dict[str, Any]:
    """Segment one head in a process of its own; seconds are of the wall, memory_gb the sum of its peaks."""
    segmenter = resolve_segmenter(engine, template, quick=quick, threads=threads)
    with tempfile.TemporaryDirectory() as scratch:
        start = time.perf_counter()
        made = segmenter(case.scan, Path(scratch))
        seconds = time.perf_counter() - start
    who = (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
    truth = np.asarray(load(case.truth).dataobj)
    out = case.scan.with_name(f"{case.number:02d}_{engine}.nii.gz")
    save(nib.Nifti1Image(made.dseg, load(case.scan).affine), out)
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


def picture(cases: list[Case], engines: list[str], path: Path) -> None:
    """One row per head: the scan, the truth, and each engine's tissues, coronal slice through the middle."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(3 * (2 + len(engines)), 2.4 * len(cases)), facecolor="black")
    for row, case in enumerate(cases):
        images = {
            name: case.scan.with_name(f"{case.number:02d}_{name}.nii.gz") for name in ("truth", *engines)
        }
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


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--n-heads", type=int, default=12, metavar="N")
    parser.add_argument("--grid", choices=GRIDS, default="sigma")
    parser.add_argument(
        "--engines", nargs="+", choices=("spm", "ants"), help="default: spm if found, and ants"
    )
    parser.add_argument("--hard", action="store_true", help="wrong headers and brains without heads")
    parser.add_argument("--quick", action="store_true", help="as in the demo")
    parser.add_argument("--jobs", type=int, default=1, metavar="N", help="scans at once")
    parser.add_argument("--threads", type=int, default=1, metavar="N")
    parser.add_argument("--truth", action="store_true", help="segment nothing: ask how good the truth is")
    parser.add_argument("--picture", type=Path, metavar="PNG")
    options = parser.parse_args()
    if options.truth:
        heads = [truth_by_samples(n, options.grid) for n in range(1, options.n_heads + 1)]
        print(json.dumps({name: summary([head[name] for head in heads]) for name in heads[0]}))
        return
    engines = options.engines or [*(["spm"] if find_spm() else []), "ants"]

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_template(folder, head())
        template = find_template(str(folder / "tpl-RatPhantom"))
        kinds = [HARD[n % len(HARD)] if options.hard else "" for n in range(options.n_heads)]
        rows = []
        with ProcessPoolExecutor(
            options.jobs, mp_context=get_context("spawn"), max_tasks_per_child=1
        ) as pool:
            making = [
                pool.submit(make_case, folder, template, n, options.grid, kind)
                for n, kind in enumerate(kinds, start=1)
            ]
            cases = [job.result() for job in making]
            jobs = [
                pool.submit(run, engine, template, case, options.threads, options.quick)
                for engine in engines
                for case in cases
            ]
            for job in jobs:
                rows.append(job.result())
                shown = {k: round(v, 3) if isinstance(v, float) else v for k, v in rows[-1].items()}
                print(json.dumps(shown), file=sys.stderr, flush=True)
        result: dict[str, Any] = {
            "grid": options.grid,
            "hard": options.hard,
            "quick": options.quick,
            "ceiling": summary([case.ceiling for case in cases]),
        }
        for engine in engines:
            made = [row for row in rows if row["engine"] == engine]
            about = resolve_segmenter(engine, template, quick=options.quick).describe()["Version"]
            result[engine] = {"version": about, **summary(made)}
            if options.hard:
                result[engine]["warned"] = sum(bool(row["warnings"]) for row in made)
        if len(engines) == 2:
            pairs = [
                overlaps(
                    *(
                        np.asarray(load(c.scan.with_name(f"{c.number:02d}_{e}.nii.gz")).dataobj)
                        for e in engines
                    )
                )
                for c in cases
            ]
            result["agreement"] = {k: round(float(np.mean([p[k] for p in pairs])), 3) for k in TARGETS}
        if options.picture:
            picture(cases[:4], engines, options.picture)
        print(json.dumps(result))


if __name__ == "__main__":
    main()
