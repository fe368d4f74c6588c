"""What makes a run this run: its model, settings and data, and what may differ when it is continued."""

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
    """What config.json and every checkpoint say about a run: model, settings, data, versions."""
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
