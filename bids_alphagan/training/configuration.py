"""The configuration of a run: its model, settings and data, and what may differ when it is continued."""

import json
import logging
import platform
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch

from bids_alphagan import __version__
from bids_alphagan.common.errors import UserError
from bids_alphagan.models.base import Model
from bids_alphagan.training.data import Volumes
from bids_alphagan.training.settings import MAY_CHANGE, TrainSettings

logger = logging.getLogger(__name__)


def configuration(volumes: Volumes, model: Model, settings: TrainSettings) -> dict[str, Any]:
    """The content of config.json and of every checkpoint: model, settings, data, versions."""
    config = {
        "model": model.record(),
        "settings": asdict(settings),
        "data": {"scans": len(volumes), "shape": list(volumes.array.shape[2:]), "sha256": volumes.sha256},
        "versions": {
            "bids_alphagan": __version__,
            "torch": str(torch.__version__),
            "numpy": np.__version__,
            "python": platform.python_version(),
        },
    }
    return dict(json.loads(json.dumps(config)))  # tuples become lists, as in a checkpoint that is read back


def differences(before: dict[str, Any], now: dict[str, Any]) -> list[str]:
    """The differences that make two configurations different runs, as text; empty if one may continue the other."""
    before = {
        **before,
        "settings": asdict(TrainSettings()) | before["settings"],
    }  # older versions had fewer settings
    return [
        f"{part}.{key} is {now[part].get(key)!r}, was {before[part].get(key)!r}"
        for part in ("model", "settings", "data")
        for key in sorted(before[part].keys() | now[part].keys())
        if before[part].get(key) != now[part].get(key) and key not in MAY_CHANGE
    ]


def refuse_another_run(before: dict[str, Any], now: dict[str, Any], folder: Path) -> None:
    """Raise UserError, with the differences, if a checkpoint's run (`before`) is not the requested one.

    Other software versions do not make another run, but may change the numbers: a warning names them.
    """
    if changes := differences(before, now):
        raise UserError(
            f"The checkpoint in {folder} belongs to another run: {'; '.join(changes)}. "
            "Use the original settings and data, another output folder, or --resume never to start again."
        )
    versions = [
        f"{name} is {version}, was {before['versions'].get(name)}"
        for name, version in now["versions"].items()
        if version != before["versions"].get(name)
    ]
    if versions:
        logger.warning(
            "The checkpoint in %s is from other software versions, whose numbers may differ: %s",
            *(folder, "; ".join(versions)),
        )
