"""A toy model without networks: the mean of all channels with a little noise. It draws masks beside the scan."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from bids_alphagan.models.base import Model

CHANNELS = ("scan", "GM", "WM", "CSF")
FILE = "mean.npz"


class Sampler(NamedTuple):
    mean: np.ndarray
    info: dict[str, Any]

    def draw(self, seeds: Sequence[int]) -> np.ndarray:
        draws = np.stack([self.mean] * len(seeds))
        for draw, seed in zip(draws, seeds, strict=True):
            draw[0] += 0.05 * np.random.default_rng(seed).standard_normal(draw[0].shape, dtype=np.float32)
        return draws.clip(-1, 1)


class ToyMean(Model):
    def __init__(self, name: str, variant: str) -> None:
        self.name = name

    def record(self):
        return {"name": self.name, "channels": list(CHANNELS)}

    def fit(self, volumes: np.ndarray, settings, folder: Path, device) -> None:
        assert volumes.shape[1] == len(CHANNELS)
        info = json.dumps({"model": self.name, "size": volumes.shape[-1]})
        np.savez(folder / FILE, mean=volumes.mean(axis=0), info=info)

    def load(self, folder: Path, device="cpu"):
        with np.load(folder / FILE, allow_pickle=False) as content:
            return Sampler(content["mean"], json.loads(str(content["info"])))

    def methods(self, training, info):
        return f"A mean scan [@{self.name} source] was drawn with noise."
