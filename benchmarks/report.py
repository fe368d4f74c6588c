"""A large study's group report: its size, how long it takes to compute, to write and to open.

Phantom heads take the place of the paper's data set (105 animals, two sessions each, 64 x 64 x 40 voxels)
and of each model's cohort, with their true tissues for masks; quality measures and losses are random numbers,
for the page has as many of them whatever they say. Evaluation and report are the app's own. The page is then
opened in Chromium, three times. Prints one JSON object.

python benchmarks/report.py --work FOLDER
"""

import argparse
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np

from bids_alphagan.bids.derivatives import (
    SYNTHESIS_RECORD,
    cohort_folder,
    describe_output,
    model_folder,
    synthetic_name,
    write_masks,
    write_prepared,
    write_scan,
)
from bids_alphagan.bids.names import ScanName, uri
from bids_alphagan.bids.prepared import prepared_scans
from bids_alphagan.bids.split import split
from bids_alphagan.common.files import write_json, write_tsv
from bids_alphagan.common.volume import conform, with_header
from bids_alphagan.config import Config
from bids_alphagan.config.run import provenance
from bids_alphagan.group import evaluate as group_evaluation
from bids_alphagan.group.report import group_report
from bids_alphagan.models import MODELS
from bids_alphagan.phantom.acquisition import acquire, scan_affine
from bids_alphagan.phantom.anatomy import head
from bids_alphagan.phantom.animal import draw_animal, draw_pose
from bids_alphagan.phantom.dataset import segment
from bids_alphagan.qc import verdicts as judgement
from bids_alphagan.qc.measures import MEASURES
from bids_alphagan.training import TrainSettings, configuration

SHAPE, ZOOMS, GRID = (64, 64, 40), (0.375, 0.375, 0.5), 64
AFFINE = scan_affine(SHAPE, ZOOMS)
MODEL_ORDER = ("sigmarat2", "sigmarat1", "adni")
ROWS = 20_000  # of losses.tsv: 200 000 iterations, each tenth written
PAINTED = "new Promise(r => requestAnimationFrame(() => requestAnimationFrame(() => r(performance.now()))))"

Head = tuple[np.ndarray, dict[str, np.ndarray]]


def draw(number: int, session: int) -> Head:
    """A phantom scan (64, 64, 40) and its masks; `number` seeds the animal, `session` the pose."""
    animal = draw_animal(np.random.default_rng([17, number]))
    rng = np.random.default_rng([18, number, session])
    made = acquire(head(), animal, draw_pose(rng, animal), rng, SHAPE, ZOOMS, volumes=1)
    dseg, brain = segment(made.fractions)
    maps = dict(zip(("GM", "WM", "CSF"), made.fractions, strict=True))
    return made.series[..., 0].astype(np.float32), {**maps, "dseg": dseg, "brain": brain > 0}


def image(scan: np.ndarray) -> nib.Nifti1Image:
    made = nib.Nifti1Image(scan, AFFINE)
    made.header.set_xyzt_units("mm", "sec")
    return made


def measures(*seed: int) -> dict[str, float]:
    """Random numbers for the quality measures, all sound."""
    return dict(zip(MEASURES, np.random.default_rng(seed).normal(1, 0.05, len(MEASURES)), strict=True))


def real(root: Path, number: int, session: int) -> None:
    """Write a prepared scan as the participant level does."""
    scan, maps = draw(number, session)
    name = ScanName((("sub", f"{number:03d}"), ("ses", str(session))), "T2w")
    raw, made = image(scan), conform(image(scan), GRID, 100.0)
    cube = nib.Nifti1Image(made.data, made.affine)
    write_prepared(root, name, raw, uri(name.image(), "raw"), scan, cube, made.record, {})
    write_masks(root, name, raw, maps, uri(name.image("reference")), {}, measures(number, session))


def synthetic(root: Path, model: str, index: int) -> dict[str, Any]:
    """Write a scan of a cohort as the group level does; what its draw's record says."""
    seed = 1000 * (1 + MODEL_ORDER.index(model)) + index
    scan, maps = draw(seed, 0)
    place, name = cohort_folder(root, model), synthetic_name(index, ScanName((("sub", "00"),), "T2w"))
    write_scan(place, name.image(), with_header(scan, image(scan)), "Synthetic", [], {"RandomSeed": seed})
    write_masks(place, name, image(scan), maps, uri(name.image()), {}, {}, desc="synthetic")
    known = {"draw": 1, "passed": True, "seed": seed, "reasons": [], "measures": measures(seed)}
    return {"scan": name.subject, **known}


def trained(root: Path, model: str, draws: Sequence[dict[str, Any]]) -> None:
    """Write what training and synthesis leave of a model: settings, losses, samples, record."""
    folder, rng = model_folder(root, model), np.random.default_rng(0)
    volumes = np.zeros((2, 1, GRID, GRID, GRID), np.float32)
    write_json(folder / "config.json", configuration(volumes, MODELS[model], TrainSettings()))
    terms = ("generator_loss", "discriminator_loss", "code_discriminator_loss")
    losses = rng.normal(size=(ROWS, len(terms)))
    rows = ({"step": 10 * i, **dict(zip(terms, row, strict=True))} for i, row in enumerate(losses, start=1))
    write_tsv(folder / "losses.tsv", list(rows))
    (folder / "samples").mkdir()
    for step in range(20_000, 200_001, 20_000):
        scans = np.stack([conform(image(draw(step + i, 0)[0]), GRID, 100.0).data for i in range(2)])
        np.save(folder / "samples" / f"step-{step}.npy", scans.astype(np.float16))
    facts = {"n_accepted": len(draws), "n_rejected": 0, "step": 200_000, "gate_width": 5.0, "masks": None}
    write_json(folder / SYNTHESIS_RECORD, {"fingerprint": "", "record": {**facts, "draws": list(draws)}})


def opened(page: Path, times: int = 3) -> float:
    """Median of the seconds until Chromium, running, has loaded and painted the page."""
    sys.path.append(str(Path(__file__).parents[1] / "tests"))
    from browser import chromium

    found = []
    with tempfile.TemporaryDirectory() as profile, chromium(Path(profile)) as browser:
        for _ in range(times):
            tab = browser.tab(page)
            found.append(tab.js(PAINTED) / 1000)
            tab.close()
    return statistics.median(found)


def timed(seconds: dict[str, float], name: str, work: Any, *args: Any) -> Any:
    start = time.perf_counter()
    result = work(*args)
    seconds[name] = round(time.perf_counter() - start, 1)
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument(
        "--work", type=Path, required=True, metavar="FOLDER", help="a new folder, which stays"
    )
    parser.add_argument("--n-animals", type=int, default=105, metavar="N", help="two sessions each")
    parser.add_argument("--n-synthetic", type=int, default=500, metavar="N", help="scans of each model")
    parser.add_argument("--n-models", type=int, default=1, choices=(1, 2, 3))
    parser.add_argument("--processes", type=int, default=2, metavar="N", help="that make heads")
    options = parser.parse_args()

    root, models = options.work / "out", MODEL_ORDER[: options.n_models]
    root.mkdir(parents=True)
    describe_output(root, options.work / "raw")
    with ProcessPoolExecutor(options.processes) as pool:
        prepared = [pool.submit(real, root, i, s) for i in range(options.n_animals) for s in (1, 2)]
        made = {
            m: [pool.submit(synthetic, root, m, i + 1) for i in range(options.n_synthetic)] for m in models
        }
        for job in prepared:
            job.result()
        for model in models:
            trained(root, model, [job.result() for job in made[model]])

    config = Config(
        bids_dir=options.work / "raw", output_dir=root, analysis_level="group", grid=GRID, device="cpu"
    )
    sides = split(config, prepared_scans(config))
    cohorts = {model: cohort_folder(root, model) for model in models}
    limits = judgement.limits_of(config, sides.training)
    judged = judgement.judge_real(sides.training, sides.held_out, limits)
    judgement.write_table(root, judged, limits, list(models))
    seconds: dict[str, float] = {}
    timed(seconds, "evaluation", group_evaluation.evaluate, config, sides, cohorts)
    timed(seconds, "report", group_report, config, sides, cohorts, limits, provenance(config))
    page = root / "group.html"
    seconds["opening"] = round(opened(page), 2)
    facts = {
        "real scans": 2 * options.n_animals,
        "models": len(models),
        "synthetic scans": options.n_synthetic,
    }
    print(json.dumps({**facts, "MB": round(page.stat().st_size / 1e6, 2), "seconds": seconds}, indent=1))


if __name__ == "__main__":
    main()
