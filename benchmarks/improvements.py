"""Whether ideas from beside the paper improve what a model makes of a phantom cohort: two rows for each idea.

Trains sigmarat2 on prepared scans (a folder that `bids-alphagan ... participant` wrote, such as that of
results.py), each idea with the same seeds, and compares random samples with scans that no model saw, at five
moments of the second half of the training, whose mean is given: a single one depends on luck. One row is of
the generator as it is ("last"), one of the moving average of its weights. Prints one JSON object a row and
skips what is in --out already:

distance_e3: polynomial-kernel maximum mean discrepancy (unbiased; Binkowski et al. 2018, arXiv:1801.01401) of
4 x 4 x 4 block means, x 1000; less is better, 0 is the same distribution. end_e3: the same at the end alone.
ms_ssim: between samples; nearer to ms_ssim_real is better. nearest: mean distance from a held-out scan to the
nearest sample, relative to that to the nearest other held-out scan; 1 is ideal. sharpness: mean absolute
difference of neighbours, relative to that of scans. seconds: of the training, each row in its turn.
"""

import argparse
import json
import math
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from bids_alphagan.common.volume import read_cube
from bids_alphagan.evaluation.pairs.similarity import ms_ssim
from bids_alphagan.models import MODELS, ModelSpec, variant
from bids_alphagan.models.alphagan.generator import for_sampling
from bids_alphagan.models.alphagan.networks import Networks
from bids_alphagan.training import TrainSettings
from bids_alphagan.training.data import Batches
from bids_alphagan.training.ema import advance, drawn_from, with_average
from bids_alphagan.training.phases import Optimisers, initial_networks, iteration, new_optimisers

SAMPLES = 100
LOOKS = 5  # at samples, in the second half of a training
DECAY = 0.999  # of the average of weights


@dataclass
class Run:
    """What an idea may change before each iteration."""

    networks: Networks
    optimisers: Optimisers
    spec: ModelSpec
    settings: TrainSettings
    size: int
    step: int = 0


Idea = Callable[[Run], None]


def nothing(run: Run) -> None:
    """The paper as it is."""


def mean_gdl(run: Run) -> None:
    """The gradient difference loss as a mean over voxels and batch, with the paper's weight."""
    voxels = run.settings.batch_size * run.size**3
    terms = MODELS[run.spec.name].reconstruction
    run.spec = replace(run.spec, reconstruction={**terms, "gdl": terms["gdl"] / voxels})


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
    weight = MODELS[run.spec.name].gradient_penalty
    run.spec = replace(run.spec, gradient_penalty=0 if run.step % every else weight * every)


def augmented_critic(run: Run) -> None:
    """The discriminator sees shifted and scaled scans, real or not, differentiably (Zhao et al. 2020,
    arXiv:2006.10738); the penalty is measured without.
    """
    if run.step == 0:
        run.networks.discriminator.register_forward_pre_hook(lambda _, inputs: (shifted(inputs[0]),))


def shifted(volumes: Tensor) -> Tensor:
    reach = volumes.shape[-1] // 8
    signal = (volumes + 1) * (0.8 + 0.4 * torch.rand(len(volumes), 1, 1, 1, 1))
    padded = F.pad(signal, [reach] * 6)
    moved = []
    for one, start in zip(padded, torch.randint(0, 2 * reach + 1, (len(volumes), 3)).tolist(), strict=True):
        for axis, at in enumerate(start):
            one = one.narrow(axis + 1, at, volumes.shape[-1])
        moved.append(one)
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


def judge(sampler: torch.nn.Module, latent: int, held_out: Tensor) -> dict[str, float]:
    """The measures of the module's docstring."""
    source = torch.Generator().manual_seed(1)
    with torch.inference_mode():
        generator = for_sampling(sampler, latent)
        samples = generator(torch.randn(SAMPLES, latent, generator=source))
    found, real = blocks(samples), blocks(held_out)
    others = torch.cdist(real, real).fill_diagonal_(torch.inf).min(1).values.mean()

    def alike(volumes: Tensor) -> float:
        half = len(volumes) // 2
        scaled = (volumes[: 2 * half, 0] + 1) / 2
        return float(ms_ssim(scaled[:half], scaled[half:]).mean())

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
    """Train on the first `n` scans with one idea, and judge by the last `SAMPLES`."""
    which, idea = IDEAS[name]
    spec = variant(MODELS["sigmarat2"], which)
    settings = TrainSettings(iterations=options.iterations, channels=options.channels, seed=seed)
    torch.manual_seed(seed)
    networks = initial_networks(spec, settings, scans.shape[-1])
    held = with_average(networks, DECAY)
    run = Run(networks, new_optimisers(networks, spec, settings), spec, settings, scans.shape[-1])
    batches = Batches(scans[:n], settings.batch_size, seed)
    found: dict[str, list[dict[str, float]]] = {"last": [], "average": []}
    began = time.perf_counter()
    for run.step in range(options.iterations):
        idea(run)
        iteration(networks, run.optimisers, batches, run.spec, settings, run.step)
        advance(held, DECAY, run.step + 1)
        left = options.iterations - run.step - 1
        if left % max(1, options.iterations // (2 * LOOKS)) == 0 and left < options.iterations // 2:
            found["last"].append(judge(networks.generator, spec.latent, scans[-SAMPLES:]))
            found["average"].append(judge(drawn_from(held), spec.latent, scans[-SAMPLES:]))
    seconds = round(time.perf_counter() - began)
    return [
        {"idea": name, "weights": weights, "scans": n, "seed": seed}
        | {key: round(float(np.mean([look[key] for look in looks])), 4) for key in looks[0]}
        | {"end_e3": looks[-1]["distance_e3"], "seconds": seconds}
        for weights, looks in found.items()
    ]


def main() -> None:
    """Train, measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("prepared", type=Path, help="folder of prepared scans: at least 200 animals")
    parser.add_argument("--out", type=Path, required=True, help="file of rows, one JSON object a line")
    parser.add_argument("--ideas", nargs="+", choices=IDEAS, default=list(IDEAS))
    parser.add_argument("--scans", nargs="+", type=int, default=[100])
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1])
    parser.add_argument("--iterations", type=int, default=2000)
    parser.add_argument("--channels", type=int, default=8)
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    paths = sorted(options.prepared.glob("sub-*/**/*desc-preproc*.nii.gz"))
    scans = torch.from_numpy(np.stack([read_cube(path) for path in paths])[:, None])
    lines = options.out.read_text().splitlines() if options.out.is_file() else []
    done = {(found["idea"], found["scans"], found["seed"]) for found in map(json.loads, lines)}
    for seed in options.seeds:
        for n in options.scans:
            for name in options.ideas:
                if (name, n, seed) not in done:
                    texts = [json.dumps(row) for row in rows(name, n, seed, scans, options)]
                    print(*texts, sep="\n", flush=True)
                    with options.out.open("a") as stream:
                        stream.writelines(text + "\n" for text in texts)


if __name__ == "__main__":
    main()
