"""Training: prepared volumes in, a generator out. Needs torch, NumPy and nothing of nipype or pybids."""

from bids_alphagan.common.process.interrupt import Interrupted
from bids_alphagan.models.alphagan.generator import TrainedGenerator, draw_latent, generate, load_generator
from bids_alphagan.training.cache import prepared
from bids_alphagan.training.loop import TrainResult, train
from bids_alphagan.training.settings import TrainSettings, configuration, differences, precision

__all__ = [
    "Interrupted",
    "TrainResult",
    "TrainSettings",
    "TrainedGenerator",
    "configuration",
    "differences",
    "draw_latent",
    "generate",
    "load_generator",
    "precision",
    "prepared",
    "train",
]
