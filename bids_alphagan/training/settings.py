"""The settings of a training run, and their allowed values. No heavy imports here."""

from dataclasses import dataclass

from bids_alphagan.common.errors import UserError

PRECISIONS = ("auto", "fp32", "bf16")
ON_DIVERGENCE = ("warn", "stop", "rollback")
USE_CHECKPOINT = ("last", "best")

# Faster computations of the same training, to rounding; each can be left out, to compare.
SPEEDUPS = ("layers", "slope", "one_pass", "channels_last", "fused")

# Settings that may differ between a run and its continuation.
MAY_CHANGE = {
    *("iterations", "log_every", "checkpoint_every"),
    *("keep_checkpoints", "on_divergence", "use_checkpoint"),
}


@dataclass(frozen=True)
class TrainSettings:
    """The settings of a training; the defaults are the paper's.

    channels: width of the networks (64). latent: length of the latent vector, the model's own if None.
    adam_betas: of Adam and AdamW.
    ema_decay: of the moving average of the generator (`ema`) that draws scans; 0: none.
    precision: "fp32", or "bf16" for the networks' passes (weights, losses and optimisers stay in fp32).
    speedups: names in `SPEEDUPS`; each gives the same numbers, to rounding in fp32.
    log_every, checkpoint_every: in iterations; losses are read from the device only at those steps.
    keep_checkpoints: number of last checkpoints to keep, at least 2; the best (`health.distance`) is also kept.
    on_divergence: reaction to a problem found by `health`: "warn", "stop" or "rollback"; NaN stops even with "warn".
    use_checkpoint: whose generator is written at the end, "last" or "best".
    """

    iterations: int = 200_000
    batch_size: int = 4
    seed: int = 0
    channels: int = 64
    latent: int | None = None
    learning_rate: float = 2e-4
    adam_betas: tuple[float, ...] = (0.9, 0.999)
    ema_decay: float = 0.0
    precision: str = "fp32"
    speedups: tuple[str, ...] = SPEEDUPS
    log_every: int = 100
    checkpoint_every: int = 1000
    keep_checkpoints: int = 2
    on_divergence: str = "warn"
    use_checkpoint: str = "last"


def check_shares(devices: int, nodes: int, batch_size: int, started: int | None, gpus: int) -> None:
    """Raise UserError if the training cannot be distributed as requested.

    started: size of this process's group, None for a single process. gpus: visible GPUs, 0 for a training on CPUs.
    """
    processes = devices * nodes
    if started and processes not in (1, started):
        raise UserError(
            f"--devices {devices} --num-nodes {nodes} make {processes} processes, but {started} were started. "
            "torchrun's --nproc-per-node or srun's --ntasks-per-node must be the number of devices."
        )
    if started is None and nodes > 1:
        raise UserError(
            f"--num-nodes {nodes}: start the same command on each machine, once per device, with torchrun "
            f"(--nnodes {nodes} --nproc-per-node {devices}) or srun (--ntasks-per-node {devices})."
        )
    if started is None and 0 < gpus < devices:
        there = "there is only 1 GPU" if gpus == 1 else f"there are only {gpus} GPUs"
        raise UserError(f"--devices {devices}: {there}. Give at most {gpus}, or --device cpu.")
    check_division(batch_size, started or processes)


def check_division(batch_size: int, devices: int) -> None:
    """Raise UserError if a batch cannot be divided equally."""
    if batch_size % devices:
        raise UserError(
            f"--batch-size {batch_size} is shared by all devices and cannot be divided by {devices}: "
            f"give a multiple of {devices}, or fewer devices."
        )
