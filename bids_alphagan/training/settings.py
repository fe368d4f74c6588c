"""What makes a run this run: its settings and data, and what may differ when it is continued."""

import json
import logging
import platform
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

import bids_alphagan
from bids_alphagan.common.errors import UserError
from bids_alphagan.config.choices import SPEEDUPS
from bids_alphagan.models import ModelSpec
from bids_alphagan.training.augment import data_hash

# between a run and its continuation
MAY_CHANGE = {
    *("iterations", "log_every", "checkpoint_every"),
    *("keep_checkpoints", "on_divergence", "use_checkpoint"),
}

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class TrainSettings:
    """How long and how big to train; the defaults are the paper's.

    channels: width of the networks (64). latent: length of the latent vector, the model's own if None.
    adam_betas: of Adam and AdamW.
    ema_decay: of the moving average of the generator (`average`) that scans are drawn from; 0: none.
    precision: "fp32", or "bf16" for the networks' passes (weights, losses and optimisers stay in fp32).
    speedups: names in `choices.SPEEDUPS`; each gives the same numbers to rounding in fp32.
    log_every, checkpoint_every: in iterations; losses are read from the device at those steps alone.
    keep_checkpoints: how many of the last, at least 2; the best (`health.distance`) is kept beside them.
    on_divergence: "warn", "stop" or "rollback" where `health` finds the run ill; NaN always stops at least.
    use_checkpoint: whose generator is written at the end, the "last" or the "best".
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


def precision(name: str, device: torch.device | str) -> str:
    """ "fp32" or "bf16" for `name`, which may be "auto": bf16 where the device multiplies matrices in it.

    A CPU does with AMX or AVX512-BF16; others emulate bf16 and are slower than in fp32.
    """
    if name != "auto":
        return name
    if torch.device(device).type == "cuda":
        fast = torch.cuda.is_bf16_supported(including_emulation=False)
    else:
        has = torch.cpu.get_capabilities()
        fast = bool(has.get("amx_bf16") or has.get("avx512_bf16"))
    return "bf16" if fast else "fp32"


def configuration(volumes: np.ndarray | Tensor, spec: ModelSpec, settings: TrainSettings) -> dict[str, Any]:
    """What config.json and every checkpoint say about a run: model, settings, data, versions."""
    config = {
        "model": asdict(spec),
        "settings": asdict(settings),
        "data": {"scans": len(volumes), "shape": list(volumes.shape[2:]), "sha256": data_hash(volumes)},
        "versions": {
            "bids_alphagan": bids_alphagan.__version__,
            "torch": str(torch.__version__),
            "numpy": np.__version__,
            "python": platform.python_version(),
        },
    }
    return dict(json.loads(json.dumps(config)))  # tuples become lists, as in a checkpoint that is read back


def differences(before: dict[str, Any], now: dict[str, Any]) -> list[str]:
    """What makes two configurations different runs, in words; none where one continues the other."""
    before = {**before, "settings": asdict(TrainSettings()) | before["settings"]}  # of an older version
    return [
        f"{part}.{key} is {now[part].get(key)!r}, was {before[part].get(key)!r}"
        for part in ("model", "settings", "data")
        for key in sorted(before[part].keys() | now[part].keys())
        if before[part].get(key) != now[part].get(key) and key not in MAY_CHANGE
    ]


def refuse_another_run(before: dict[str, Any], now: dict[str, Any], folder: Path) -> None:
    """UserError with the differences, where the run of a checkpoint (`before`) is not the one asked for.

    Other versions of the software are no other run, but the numbers may differ: a warning names them.
    """
    if found := differences(before, now):
        raise UserError(
            f"The checkpoint in {folder} belongs to another run: {'; '.join(found)}. "
            "Give the former settings and data, another output folder, or --resume never to start again."
        )
    versions = [
        f"{name} is {version}, was {before['versions'].get(name)}"
        for name, version in now["versions"].items()
        if version != before["versions"].get(name)
    ]
    if versions:
        logger.warning(
            "The checkpoint in %s is from other versions, whose numbers may have been others: %s",
            *(folder, "; ".join(versions)),
        )
