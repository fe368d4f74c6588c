"""Train the models side by side on a phantom cohort, by the application itself, and show what came of it.

Makes the cohort, prepares it, and runs the group level for sigmarat2 in both variants and for adni; whatever
is done already is kept, so the command can be given again after an interruption. Writes
docs/results/samples.png (middle slices in three planes) and docs/results/losses.png (the terms of equation
(6) by variant), and prints one JSON object: seconds for each iteration (of the command that trains), the
metrics of group_metrics.tsv, the mean weighted size of each term of the generator's loss in the last tenth of
the training, what the gradient difference loss would be there as a mean over voxels and batch, and of
health.tsv the greatest drift, and diversity and distance at each checkpoint.
"""

import argparse
import json
import math
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from bids_alphagan.common.files import read_json, read_tsv
from bids_alphagan.models import MODELS
from bids_alphagan.phantom import main as make_phantom

RUNS = (("sigmarat2", "paper"), ("sigmarat2", "released"), ("adni", "paper"))
SHOWN = 3  # scans in the picture
PICTURES = Path(__file__).parents[1] / "docs" / "results"


def command(*words: object) -> float:
    """Run a command of the package; seconds that it took."""
    began = time.perf_counter()
    subprocess.run([sys.executable, "-m", *map(str, words)], check=True)
    return time.perf_counter() - began


def train_all(options: argparse.Namespace, work: Path) -> dict[str, float]:
    """Phantom, preparation, training, synthesis, metrics; seconds an iteration of each run trained now."""
    phantom = work / "phantom"
    if not phantom.is_dir():
        n = options.grid
        shape = ("--shape", n, n, n * 5 // 8, "--zooms", 24 / n, 24 / n, 32 / n)
        make_phantom([str(word) for word in (phantom, "--n-subjects", options.n_subjects, *shape)])
    rates = {}
    for model, variant in RUNS:
        out = work / variant
        common = ("--grid", options.grid, "--segmenter", "none", "--omp-nthreads", options.threads)
        if not out.is_dir():
            command("bids_alphagan", phantom, out, "participant", *common)
        size = ("--channels", options.channels, "--iterations", options.iterations, "--batch-size", 4)
        often = ("--log-every", 25, "--checkpoint-every", 500, "--n-synthetic", 100)
        group = ("bids_alphagan", phantom, out, "group", "--model", model, "--variant", variant)
        done = (out / "models" / model / "generator.safetensors").is_file()
        seconds = command(*group, *common, *size, *often, "--steps", "train")
        if not done:
            rates[f"{model} {variant}"] = seconds / options.iterations
        command(*group, *common, *size, *often, "--steps", "synthesise", "evaluate", "report")
    return rates


def metrics(out: Path, model: str) -> dict[str, list[float]]:
    """Value and standard deviation of each metric."""
    rows = [row for row in read_tsv(out / "group_metrics.tsv") if row["model"] == model]
    return {row["metric"]: [round(float(row[name]), 4) for name in ("value", "sd")] for row in rows}


def table(work: Path, model: str, variant: str) -> dict[str, Any]:
    """Metrics, and the generator's terms at the end."""
    out = work / variant
    health = read_tsv(out / "models" / model / "health.tsv")
    config = read_json(out / "models" / model / "config.json")
    voxels = config["settings"]["batch_size"] * math.prod(config["data"]["shape"])
    rows = read_tsv(out / "models" / model / "losses.tsv")
    last = rows[-max(1, len(rows) // 10) :]
    weights = {"adversarial": 1, "code_adversarial": 1, **MODELS[model].reconstruction}
    terms = {
        name: round(weight * float(np.mean([float(row[f"generator_{name}"]) for row in last])), 4)
        for name, weight in weights.items()
    }
    return {
        "metrics": metrics(out, model),
        "weighted_terms_at_the_end": terms,
        "weighted_gdl_as_a_mean": terms["gdl"] / voxels if "gdl" in terms else None,
        "greatest_drift": max(float(row["drift"]) for row in health),
        "diversity": [round(float(row["diversity"]), 3) for row in health],
        "distance": [round(float(row["distance"]), 4) for row in health],
    }


def middle(path: Path) -> list[np.ndarray]:
    data = np.asanyarray(nib.load(path).dataobj)
    data = data[..., 0] if data.ndim == 4 else data
    return [np.rot90(data.take(data.shape[axis] // 2, axis)) for axis in range(3)]


def draw_samples(work: Path) -> None:
    """Real scans and each run's first synthetic ones, a column for each plane of each scan."""
    real = sorted((work / "phantom").glob("sub-*/**/*.nii.gz"))[:SHOWN]
    rows = {"real": real}
    for model, variant in RUNS:
        place = work / variant / "derivatives" / model
        rows[f"{model}\n{variant}"] = sorted(place.glob("sub-*/**/*.nii.gz"))[:SHOWN]
    figure = Figure(figsize=(9, 1.15 * len(rows)))
    grid = figure.subplots(len(rows), 3 * SHOWN)
    for (name, paths), line in zip(rows.items(), grid, strict=True):
        for axes, picture in zip(line, [p for path in paths for p in middle(path)], strict=True):
            axes.imshow(picture, cmap="gray", aspect="auto")
            axes.set(xticks=[], yticks=[])
        line[0].set_ylabel(name, fontsize=8)
    figure.subplots_adjust(left=0.08, right=0.99, top=0.99, bottom=0.01, wspace=0.03, hspace=0.04)
    save(figure, "samples.png")


def draw_losses(work: Path) -> None:
    """The reconstruction terms of sigmarat2, weighted, and the discriminator's loss, in both variants."""
    figure = Figure(figsize=(9, 2.8))
    plots = figure.subplots(1, 3)
    for variant in ("paper", "released"):
        rows = read_tsv(work / variant / "models" / "sigmarat2" / "losses.tsv")
        step = [int(row["step"]) for row in rows]
        curves = {
            "0.01 GDL": [0.01 * float(row["generator_gdl"]) for row in rows],
            "100 MSE": [100 * float(row["generator_mse"]) for row in rows],
            "discriminator": [float(row["discriminator_loss"]) for row in rows],
        }
        for axes, (name, values) in zip(plots, curves.items(), strict=True):
            axes.plot(step, values, label=variant, linewidth=1)
            axes.set_title(name, fontsize=9)
            axes.set_xlabel("iteration", fontsize=8)
            axes.tick_params(labelsize=7)
            if name != "discriminator":
                axes.set_yscale("log")
    plots[0].legend(fontsize=8)
    figure.tight_layout()
    save(figure, "losses.png")


def save(figure: Figure, name: str) -> None:
    PICTURES.mkdir(parents=True, exist_ok=True)
    FigureCanvasAgg(figure).print_png(PICTURES / name, metadata={"Software": None})


def main() -> None:
    """Train, measure, draw and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("work", type=Path, help="folder for the data and the runs")
    parser.add_argument("--n-subjects", type=int, default=200)
    parser.add_argument("--grid", type=int, default=32)
    parser.add_argument("--channels", type=int, default=8)
    parser.add_argument("--iterations", type=int, default=3000)
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    rates = train_all(options, options.work)
    draw_samples(options.work)
    draw_losses(options.work)
    found = {"real": metrics(options.work / "paper", "real")}
    found |= {f"{model} {variant}": table(options.work, model, variant) for model, variant in RUNS}
    sizes = {key: value for key, value in vars(options).items() if key != "work"}
    print(json.dumps({**sizes, "seconds_per_iteration": rates, **found}))


if __name__ == "__main__":
    main()
