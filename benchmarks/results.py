"""What the models make of a phantom cohort, and whether ideas from beside the paper improve it.

python benchmarks/results.py models WORK                                             # docs/results.md
python benchmarks/results.py ideas WORK/paper --out ROWS

Prints one JSON object on stdout; progress goes to stderr. Whatever is done already is kept, so either command can be
given again after an interruption.

models: makes a cohort, prepares it, and trains sigmarat2 in both variants and adni through the app itself. Draws
samples.png (middle slices in three planes) and losses.png (the terms of equation (6) by variant). Reported are
seconds for each iteration (of the command that trains; compare them in benchmarks/training.py), the metrics of
group_metrics.tsv, the mean weighted size of each term of the generator's loss in the last tenth of the training,
what the gradient difference loss would be there as a mean over voxels and batch, and of health.tsv the greatest
drift, and diversity and distance at each checkpoint.

ideas: trains sigmarat2 on prepared scans (a folder that `bids-alphagan ... participant` wrote, such as that of
"models"), each idea with the same seeds, and compares random samples with scans that no model saw, at five moments
of the second half of the training, whose mean is given: a single one depends on luck. One row is of the generator
as it is ("last"), one of the moving average of its weights ("average"):

distance_e3: polynomial-kernel maximum mean discrepancy (unbiased; Binkowski et al. 2018, arXiv:1801.01401) of
4 x 4 x 4 block means, x 1000; less is better, 0 is the same distribution. end_e3: the same at the end alone.
ms_ssim: between samples; nearer to ms_ssim_real is better. nearest: mean distance from a held-out scan to the
nearest sample, relative to that to the nearest other held-out scan; 1 is ideal. sharpness: mean absolute
difference of neighbours, relative to that of scans. seconds: of the training, each row in its turn.
"""

import argparse
import json
import math
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import torch
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from torch import Tensor
from torch.nn import functional as F

from bids_alphagan.common.files import read_json, read_tsv
from bids_alphagan.common.process.threads import use_threads
from bids_alphagan.common.volume import read_cube
from bids_alphagan.evaluation.pairs.pairwise import structural_similarities
from bids_alphagan.models import VARIANTS
from bids_alphagan.models.alphagan.generator import for_sampling
from bids_alphagan.models.alphagan.model import AlphaGan
from bids_alphagan.models.alphagan.networks import Generator
from bids_alphagan.models.alphagan.spec import SPECS, ModelSpec, variant
from bids_alphagan.models.base import Networks, Optimisers
from bids_alphagan.training import ema
from bids_alphagan.training.data import Batches
from bids_alphagan.training.phases import initial_networks, iteration
from bids_alphagan.training.settings import TrainSettings

RUNS = (("sigmarat2", "paper"), ("sigmarat2", "released"), ("adni", "paper"))
SHOWN = 3  # scans in the picture
PICTURES = Path(__file__).parents[1] / "docs" / "results"
MOMENTS = 5  # at which samples are compared, in the second half of a training
DECAY = 0.999  # of the average of weights


def say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


# Models


def models(options: argparse.Namespace) -> dict[str, Any]:
    """Train, measure and draw."""
    work, pictures = options.work, options.pictures
    rates = train_all(options, work)
    draw_samples(work, pictures)
    draw_losses(work, pictures)
    sizes = {key: value for key, value in vars(options).items() if not isinstance(value, Path)}
    found = {f"{model} {variant_name}": table(work, model, variant_name) for model, variant_name in RUNS}
    return {**sizes, "seconds_per_iteration": rates, "real": metrics(work / "paper", "real"), **found}


def command(*words: object) -> float:
    """Run a module of the package; seconds that it takes. What it prints goes to stderr."""
    began = time.perf_counter()
    subprocess.run([sys.executable, "-m", *map(str, words)], check=True, stdout=sys.stderr)
    return time.perf_counter() - began


def train_all(options: argparse.Namespace, work: Path) -> dict[str, float]:
    """Phantom, preparation, training, synthesis, metrics; seconds an iteration of each run trained now."""
    phantom, n = work / "phantom", options.grid
    if not phantom.is_dir():
        shape = ("--shape", n, n, n * 5 // 8, "--zooms", 24 / n, 24 / n, 32 / n)
        command("bids_alphagan.cli.phantom", phantom, "--n-subjects", options.n_subjects, *shape)
    common = ("--grid", n, "--segmenter", "none", "--omp-nthreads", options.threads)
    size = ("--channels", options.channels, "--iterations", options.iterations, "--batch-size", 4)
    size += ("--log-every", options.log_every, "--checkpoint-every", options.checkpoint_every)
    rates = {}
    for variant_name in VARIANTS:
        out, names = work / variant_name, [model for model, its in RUNS if its == variant_name]
        command("bids_alphagan", phantom, out, "participant", *common)
        group = ("bids_alphagan", phantom, out, "group", "--variant", variant_name, *common, *size)
        for model in names:
            done = (out / "models" / model / "generator.safetensors").is_file()
            seconds = command(*group, "--model", model, "--steps", "train")
            if not done:
                rates[f"{model} {variant_name}"] = seconds / options.iterations
        drawn = ("--model", *names, "--n-synthetic", options.n_synthetic)
        command(*group, *drawn, "--steps", "synthesise", "evaluate", "report")
    return rates


def metrics(out: Path, model: str) -> dict[str, list[float | None]]:
    """Value and standard deviation of each metric."""
    rows = [row for row in read_tsv(out / "group_metrics.tsv") if row["model"] == model]
    return {row["metric"]: [number(row[name], 4) for name in ("value", "sd")] for row in rows}


def table(work: Path, model: str, variant_name: str) -> dict[str, Any]:
    """Metrics, and the generator's terms at the end."""
    out = work / variant_name
    health = read_tsv(out / "models" / model / "health.tsv")
    config = read_json(out / "models" / model / "config.json")
    voxels = config["settings"]["batch_size"] * math.prod(config["data"]["shape"])
    rows = read_tsv(out / "models" / model / "losses.tsv")
    last = rows[-max(1, len(rows) // 10) :]
    weights = {"adversarial": 1, "code_adversarial": 1, **SPECS[model].reconstruction}
    terms = {
        name: round(weight * float(np.mean([float(row[f"generator_{name}"]) for row in last])), 4)
        for name, weight in weights.items()
    }
    return {
        "metrics": metrics(out, model),
        "weighted_terms_at_the_end": terms,
        "weighted_gdl_as_a_mean": terms["gdl"] / voxels if "gdl" in terms else None,
        "greatest_drift": max(float(row["drift"]) for row in health),
        "diversity": [number(row["diversity"], 3) for row in health],
        "distance": [number(row["distance"], 4) for row in health],
    }


def number(text: str, digits: int) -> float | None:
    """A cell of a table; None for n/a."""
    return None if text == "n/a" else round(float(text), digits)


def middle(path: Path) -> list[np.ndarray]:
    data = np.asanyarray(nib.load(path).dataobj)
    data = data[..., 0] if data.ndim == 4 else data
    return [np.rot90(data.take(data.shape[axis] // 2, axis)) for axis in range(3)]


def draw_samples(work: Path, pictures: Path) -> None:
    """Real scans and each run's first synthetic ones, a column for each plane of each scan."""
    real = sorted((work / "phantom").glob("sub-*/**/*.nii.gz"))[:SHOWN]
    rows = {"real": real}
    for model, variant_name in RUNS:
        cohort = work / variant_name / "derivatives" / model
        rows[f"{model}\n{variant_name}"] = sorted(cohort.glob("sub-*/**/*.nii.gz"))[:SHOWN]
    figure = Figure(figsize=(9, 1.15 * len(rows)))
    grid = figure.subplots(len(rows), 3 * SHOWN)
    for (name, paths), line in zip(rows.items(), grid, strict=True):
        for axes, picture in zip(line, [p for path in paths for p in middle(path)], strict=True):
            axes.imshow(picture, cmap="gray", aspect="auto")
            axes.set(xticks=[], yticks=[])
        line[0].set_ylabel(name, fontsize=8)
    figure.subplots_adjust(left=0.08, right=0.99, top=0.99, bottom=0.01, wspace=0.03, hspace=0.04)
    save(figure, pictures / "samples.png")


def draw_losses(work: Path, pictures: Path) -> None:
    """The reconstruction terms of sigmarat2, weighted, and the discriminator's loss, in both variants."""
    figure = Figure(figsize=(9, 2.8))
    plots = figure.subplots(1, 3)
    for variant_name in VARIANTS:
        rows = read_tsv(work / variant_name / "models" / "sigmarat2" / "losses.tsv")
        step = [int(row["step"]) for row in rows]
        curves = {
            "0.01 GDL": [0.01 * float(row["generator_gdl"]) for row in rows],
            "100 MSE": [100 * float(row["generator_mse"]) for row in rows],
            "discriminator": [float(row["discriminator_loss"]) for row in rows],
        }
        for axes, (name, values) in zip(plots, curves.items(), strict=True):
            axes.plot(step, values, label=variant_name, linewidth=1)
            axes.set_title(name, fontsize=9)
            axes.set_xlabel("iteration", fontsize=8)
            axes.tick_params(labelsize=7)
            if name != "discriminator":
                axes.set_yscale("log")
    plots[0].legend(fontsize=8)
    figure.tight_layout()
    save(figure, pictures / "losses.png")


def save(figure: Figure, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    FigureCanvasAgg(figure).print_png(path, metadata={"Software": None})


# Ideas


@dataclass
class Run:
    """What an idea may change before each iteration."""

    networks: Networks
    optimisers: Optimisers
    model: AlphaGan
    settings: TrainSettings
    size: int
    step: int = 0

    def change(self, **values: Any) -> None:
        """Give the model other numbers than its specification has, from this iteration on."""
        self.model = AlphaGan(replace(self.model.spec, **values))

    @property
    def original(self) -> ModelSpec:
        """The specification without changes."""
        return SPECS[self.model.name]


Idea = Callable[[Run], None]


def nothing(run: Run) -> None:
    """The paper as it is."""


def mean_gdl(run: Run) -> None:
    """The gradient difference loss as a mean over voxels and batch, with the paper's weight."""
    voxels = run.settings.batch_size * run.size**3
    terms = run.original.reconstruction
    run.change(reconstruction={**terms, "gdl": terms["gdl"] / voxels})


def cosine(run: Run) -> None:
    """The learning rate falls to zero along half a cosine (Loshchilov and Hutter 2017, arXiv:1608.03983)."""
    rate = run.settings.learning_rate * (1 + math.cos(math.pi * run.step / run.settings.iterations)) / 2
    set_all(run, lr=rate)


def no_momentum(run: Run) -> None:
    """Adam's betas (0, 0.9), as WGAN-GP has them (Gulrajani et al. 2017, arXiv:1704.00028)."""
    set_all(run, betas=(0.0, 0.9))


def lazy_penalty(run: Run, every: int = 4) -> None:
    """Gradient penalties in every fourth iteration, four times as strong (Karras et al. 2020,
    arXiv:1912.04958). The time that it would save is not saved here.
    """
    run.change(gradient_penalty=0 if run.step % every else run.original.gradient_penalty * every)


def augmented_critic(run: Run) -> None:
    """The discriminator sees shifted and scaled scans, real or not, differentiably (Zhao et al. 2020,
    arXiv:2006.10738); the penalty is measured without.
    """
    if run.step == 0:
        run.networks["discriminator"].register_forward_pre_hook(lambda _, inputs: (shifted(inputs[0]),))


def shifted(volumes: Tensor) -> Tensor:
    reach = volumes.shape[-1] // 8
    signal = (volumes + 1) * (0.8 + 0.4 * torch.rand(len(volumes), 1, 1, 1, 1))
    padded = F.pad(signal, [reach] * 6)
    moved = []
    starts = torch.randint(0, 2 * reach + 1, (len(volumes), 3)).tolist()
    for volume, start in zip(padded, starts, strict=True):
        for axis, at in enumerate(start):
            volume = volume.narrow(axis + 1, at, volumes.shape[-1])
        moved.append(volume)
    return torch.stack(moved) - 1


def set_all(run: Run, **values: Any) -> None:
    for optimiser in run.optimisers.values():
        for group in optimiser.param_groups:
            group.update(values)


# name: (variant, idea)
IDEAS: dict[str, tuple[str, Idea]] = {
    "paper": ("paper", nothing),
    "released": ("released", nothing),
    "GDL as a mean": ("paper", mean_gdl),
    "cosine": ("paper", cosine),
    "no momentum": ("paper", no_momentum),
    "lazy penalty": ("paper", lazy_penalty),
    "augmented critic": ("paper", augmented_critic),
}


def blocks(volumes: Tensor) -> Tensor:
    return F.avg_pool3d((volumes + 1) / 2, 4).flatten(1).double()


def kernel_distance(left: Tensor, right: Tensor) -> float:
    """Unbiased squared maximum mean discrepancy with the kernel (x.y / d + 1)^3."""

    def kernel(a: Tensor, b: Tensor) -> Tensor:
        return (a @ b.T / a.shape[1] + 1) ** 3

    def within(a: Tensor) -> Tensor:
        values = kernel(a, a)
        return (values.sum() - values.diagonal().sum()) / (len(a) * (len(a) - 1))

    return float(within(left) + within(right) - 2 * kernel(left, right).mean())


def compare(network: Generator, latent: int, held_out: Tensor) -> dict[str, float]:
    """As many samples beside the held-out scans: the measures of the module's docstring."""
    source = torch.Generator().manual_seed(1)
    with torch.inference_mode():
        generator = for_sampling(network, latent)
        samples = generator(torch.randn(len(held_out), latent, generator=source))
    found, real = blocks(samples), blocks(held_out)
    others = torch.cdist(real, real).fill_diagonal_(torch.inf).min(1).values.mean()

    def alike(volumes: Tensor) -> float:
        half = len(volumes) // 2
        scaled = (volumes[: 2 * half, 0] + 1) / 2
        each = torch.arange(half)
        return float(structural_similarities(scaled, scaled, torch.stack([each, half + each], dim=1)).mean())

    def sharpness(volumes: Tensor) -> Tensor:
        return torch.stack([volumes.diff(dim=axis).abs().mean() for axis in (2, 3, 4)]).sum()

    return {
        "distance_e3": 1000 * kernel_distance(found, real),
        "ms_ssim": alike(samples),
        "ms_ssim_real": alike(held_out),
        "nearest": float(torch.cdist(real, found).min(1).values.mean() / others),
        "sharpness": float(sharpness(samples) / sharpness(held_out)),
    }


def rows(name: str, n: int, seed: int, scans: Tensor, options: argparse.Namespace) -> list[dict[str, Any]]:
    """Train on the first `n` scans with one idea, and compare with the last ones."""
    which, idea = IDEAS[name]
    model = AlphaGan(variant(SPECS["sigmarat2"], which))
    settings = TrainSettings(iterations=options.iterations, channels=options.channels, seed=seed)
    torch.manual_seed(seed)
    networks, latent = initial_networks(model, settings, scans.shape[-1]), model.latent(settings)
    averaged = ema.with_ema(networks, model.drawn, DECAY)
    run = Run(networks, model.optimisers(networks, settings), model, settings, scans.shape[-1])
    batches, held_out = Batches(scans[:n], settings.batch_size, seed), scans[-options.held_out :]
    found: dict[str, list[dict[str, float]]] = {"last": [], "average": []}
    began = time.perf_counter()
    for run.step in range(options.iterations):
        idea(run)
        iteration(networks, run.optimisers, batches, run.model, settings, run.step)
        ema.update(averaged, model.drawn, DECAY, run.step + 1)
        left = options.iterations - run.step - 1
        if left % max(1, options.iterations // (2 * MOMENTS)) == 0 and left < options.iterations // 2:
            drawn = {"last": networks[model.drawn], "average": ema.drawn_from(averaged, model.drawn)}
            for weights, network in drawn.items():
                found[weights].append(compare(network, latent, held_out))  # type: ignore[arg-type]
    seconds = round(time.perf_counter() - began)
    return [
        {"idea": name, "weights": weights, "scans": n, "seed": seed}
        | {key: round(float(np.mean([moment[key] for moment in moments])), 4) for key in moments[0]}
        | {"end_e3": round(moments[-1]["distance_e3"], 4), "seconds": seconds}
        for weights, moments in found.items()
    ]


def ideas(options: argparse.Namespace) -> dict[str, Any]:
    """Every idea with every seed; rows that --out has already are not made again."""
    use_threads(options.threads)
    paths = sorted(options.prepared.glob("sub-*/**/*desc-preproc*.nii.gz"))
    needed = max(options.scans) + options.held_out
    if len(paths) < needed:
        raise SystemExit(f"{options.prepared} has {len(paths)} prepared scans, and {needed} are needed.")
    scans = torch.from_numpy(np.stack([read_cube(path) for path in paths])[:, None])
    lines = options.out.read_text().splitlines() if options.out and options.out.is_file() else []
    table = [json.loads(line) for line in lines]
    done = {(row["idea"], row["scans"], row["seed"]) for row in table}
    for seed in options.seeds:
        for n in options.scans:
            for name in options.ideas:
                if (name, n, seed) in done:
                    continue
                new = rows(name, n, seed, scans, options)
                table += new
                texts = "".join(json.dumps(row) + "\n" for row in new)
                say(texts.rstrip())
                if options.out:
                    with options.out.open("a") as stream:
                        stream.write(texts)
    sizes = {name: getattr(options, name) for name in ("iterations", "channels", "held_out", "threads")}
    return {**sizes, "rows": table}


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    one = commands.add_parser("models", help="both variants of sigmarat2, and adni, through the app")
    one.add_argument("work", type=Path, help="folder for the data and the runs")
    one.add_argument("--n-subjects", type=int, default=200, metavar="N")
    one.add_argument("--grid", type=int, default=32, metavar="N")
    one.add_argument("--channels", type=int, default=8, metavar="N")
    one.add_argument("--iterations", type=int, default=3000, metavar="N")
    one.add_argument("--log-every", type=int, default=25, metavar="N")
    one.add_argument("--checkpoint-every", type=int, default=500, metavar="N")
    one.add_argument("--n-synthetic", type=int, default=100, metavar="N")
    one.add_argument("--threads", type=int, default=1, metavar="N")
    one.add_argument("--pictures", type=Path, default=PICTURES, metavar="FOLDER")
    two = commands.add_parser("ideas", help="ideas from beside the paper, two rows for each")
    two.add_argument("prepared", type=Path, help="folder of prepared scans, one of each animal")
    two.add_argument("--out", type=Path, metavar="ROWS", help="file that rows are kept in, and looked for")
    two.add_argument("--ideas", nargs="+", choices=IDEAS, default=list(IDEAS))
    two.add_argument(
        "--scans", nargs="+", type=int, default=[100], metavar="N", help="to train on: the first"
    )
    two.add_argument("--held-out", type=int, default=100, metavar="N", help="to compare with: the last")
    two.add_argument("--seeds", nargs="+", type=int, default=[0, 1], metavar="N")
    two.add_argument("--iterations", type=int, default=2000, metavar="N")
    two.add_argument("--channels", type=int, default=8, metavar="N")
    two.add_argument("--threads", type=int, default=1, metavar="N")
    return parser.parse_args()


def main() -> None:
    """Measure and print."""
    options = arguments()
    print(json.dumps({"models": models, "ideas": ideas}[options.command](options), indent=1))


if __name__ == "__main__":
    main()
