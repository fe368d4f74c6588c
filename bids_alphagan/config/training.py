"""The options of training, a part of `config.Config`: models, length, size and devices."""

from dataclasses import dataclass
from typing import Optional

from bids_alphagan.config.option import option
from bids_alphagan.models import MODELS, VARIANTS
from bids_alphagan.training.settings import ON_DIVERGENCE, PRECISIONS, SPEEDUPS, USE_CHECKPOINT

PRESETS = ("paper", "fast", "demo")


@dataclass(frozen=True, kw_only=True)
class TrainingOptions:
    """Fields whose `step` is "train" change the trained model; other values mean another training run."""

    model: list[str] = option(
        "models to train: the paper's baseline and its two proposals",
        ["sigmarat2"],
        many=True,
        choices=MODELS,
    )
    variant: str = option(
        "paper: the paper's equations; released: as in the code released with the paper (no gradient flows "
        "through the gradient difference loss, and the generator takes two steps)",
        "paper",
        choices=VARIANTS,
        step="train",
    )
    preset: str = option(
        "paper: the publication's settings; fast: half its channels, a tenth of its iterations, and "
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
        "learning rate of the optimisers (0.0002 in the paper)",
        2e-4,
        least=1e-7,
        most=1,
        metavar="R",
        step="train",
    )
    adam_betas: list[float] = option(
        "decay rates of the gradient's first and second moment in Adam or AdamW (0.9 0.999 in the paper); "
        "Gulrajani et al. 2017 use 0 0.9 with gradient penalties",
        [0.9, 0.999],
        many=2,
        type=float,
        least=0,
        most=0.999999,
        metavar="R",
        step="train",
    )
    ema_decay: float = option(
        "decay per iteration, such as 0.999, of the exponential moving average (EMA) of the generator's "
        "weights that scans are drawn from; 0: draw from the generator itself, as in the paper",
        0.0,
        least=0,
        most=0.999999,
        metavar="R",
        step="train",
    )
    channels: int = option(
        "channels of the networks at full resolution (64 in the paper)",
        64,
        least=1,
        most=256,
        metavar="N",
        step="train",
    )
    latent_size: Optional[int] = option(
        "length of the latent vector (default: 500 or 1000, depending on the model)",
        type=int,
        least=1,
        most=10**6,
        metavar="N",
        step="train",
    )
    checkpoint_every: int = option("iterations between checkpoints", 1000, least=1, most=10**9, metavar="N")
    keep_checkpoints: int = option(
        "number of last checkpoints to keep; the best one is always kept", 2, least=2, most=10**6, metavar="N"
    )
    use_checkpoint: str = option(
        "checkpoint whose generator makes the synthetic scans; best: its samples are nearest to the scans in "
        "coarse means and standard deviations (health.tsv)",
        "last",
        choices=USE_CHECKPOINT,
    )
    on_divergence: str = option(
        "if the training diverges or samples look alike: warn, stop, or roll back to the last checkpoint and "
        "continue with other random numbers (3 times at most). NaN stops it even with warn",
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
        "auto: a GPU if there is one",
        "auto",
        choices=("auto", "cpu", "cuda"),
    )
    devices: int = option(
        "devices per machine to train on: GPUs, or processes on a CPU; they share each batch",
        1,
        least=1,
        most=1024,
        metavar="N",
    )
    num_nodes: int = option(
        "machines to train on; above 1, start the command with torchrun or srun, once per device",
        1,
        least=1,
        most=1024,
        metavar="N",
    )
    precision: str = option(
        "precision of the networks' passes in training; auto: bf16 if the hardware supports it, else fp32",
        "auto",
        choices=PRECISIONS,
        step="train",
    )
    speedups: list[str] = option(
        "optimisations that give the same result faster (docs/performance.md); leave some or all out to compare",
        list(SPEEDUPS),
        many="*",
        choices=SPEEDUPS,
        step="train",
    )
    resume: str = option(
        "auto: resume from the last checkpoint; never: start again (a backup of the old run is kept)",
        "auto",
        choices=("auto", "never"),
    )
