"""The options of training, part of `config.Config`: which models, how long, how big, on what."""

from dataclasses import dataclass
from typing import Optional

from bids_alphagan.config.option import option
from bids_alphagan.models import MODELS, VARIANTS
from bids_alphagan.training.settings import ON_DIVERGENCE, PRECISIONS, SPEEDUPS, USE_CHECKPOINT

PRESETS = ("paper", "fast", "demo")


@dataclass(frozen=True, kw_only=True)
class TrainingOptions:
    """Fields whose `step` is "train" change the trained model; a run with other values is another run."""

    model: list[str] = option(
        "models to train: the paper's baseline and its two proposals",
        ["sigmarat2"],
        many=True,
        choices=MODELS,
    )
    variant: str = option(
        "paper: the paper's equations; released: as the code released with the paper trains them (the "
        "gradient difference loss without gradient, the generator stepped twice)",
        "paper",
        choices=VARIANTS,
        step="train",
    )
    preset: str = option(
        "paper: the publication's; fast: half its channels, a tenth of its iterations, and "
        "--adam-betas 0 0.9 --ema-decay 0.999; demo: for a laptop",
        "paper",
        choices=PRESETS,
    )
    iterations: int = option(
        "training iterations",
        200_000,
        least=1,
        most=10**9,
        metavar="N",
        step="train",
    )
    batch_size: int = option(
        "scans per training step",
        4,
        least=1,
        most=4096,
        metavar="N",
        step="train",
    )
    learning_rate: float = option(
        "step size of the optimisers (the paper's 0.0002)",
        2e-4,
        least=1e-7,
        most=1,
        metavar="R",
        step="train",
    )
    adam_betas: list[float] = option(
        "how much of the former mean gradient and mean square stays in each step of Adam or AdamW (the "
        "paper's 0.9 0.999); 0 0.9 are those of Gulrajani et al. 2017 for gradient penalties",
        [0.9, 0.999],
        many=2,
        type=float,
        least=0,
        most=0.999999,
        metavar="R",
        step="train",
    )
    ema_decay: float = option(
        "draw scans from a moving average of the generator's weights (EMA): the part of it that stays in "
        "each iteration, such as 0.999; 0: from the generator itself, as the paper does",
        0.0,
        least=0,
        most=0.999999,
        metavar="R",
        step="train",
    )
    channels: int = option(
        "channels of the networks' widest grid (the paper's 64)",
        64,
        least=1,
        most=256,
        metavar="N",
        step="train",
    )
    latent_size: Optional[int] = option(
        "length of the latent vector (default: the model's own, 500 or 1000)",
        type=int,
        least=1,
        most=10**6,
        metavar="N",
        step="train",
    )
    checkpoint_every: int = option("iterations between checkpoints", 1000, least=1, most=10**9, metavar="N")
    keep_checkpoints: int = option(
        "last checkpoints to keep; the best is kept beside them", 2, least=2, most=10**6, metavar="N"
    )
    use_checkpoint: str = option(
        "whose generator makes the synthetic scans; best: its samples are nearest to the scans in coarse "
        "means and deviations (health.tsv)",
        "last",
        choices=USE_CHECKPOINT,
    )
    on_divergence: str = option(
        "where generator and discriminator drift apart or samples look alike: warn, stop, or go back to the "
        "last checkpoint and on with other random numbers (3 times at most). NaN stops even with warn",
        "warn",
        choices=ON_DIVERGENCE,
    )
    log_every: int = option(
        "iterations between rows of losses.tsv",
        50,
        least=1,
        most=10**9,
        metavar="N",
        step="train",
    )
    seed: int = option(
        "random seed of training, synthesis and evaluation",
        0,
        least=0,
        most=2**31 - 1,
        metavar="N",
        step="train",
    )
    device: str = option(
        "auto: a GPU where there is one",
        "auto",
        choices=("auto", "cpu", "cuda"),
    )
    devices: int = option(
        "devices to train on, on each machine: GPUs, or processes on a CPU; they share each batch",
        1,
        least=1,
        most=1024,
        metavar="N",
    )
    num_nodes: int = option(
        "machines to train on; above 1, start the same command by torchrun or srun, once for each device",
        1,
        least=1,
        most=1024,
        metavar="N",
    )
    precision: str = option(
        "of the networks' passes in training; auto: bf16 where the hardware computes in it, else fp32",
        "auto",
        choices=PRECISIONS,
        step="train",
    )
    speedups: list[str] = option(
        "ways of computing the same faster (docs/performance.md); leave some out, or all, to compare",
        list(SPEEDUPS),
        many="*",
        choices=SPEEDUPS,
        step="train",
    )
    resume: str = option(
        "auto: go on from the last checkpoint; never: start again (the old run is kept aside)",
        "auto",
        choices=("auto", "never"),
    )
