"""Training: prepared volumes in, a generator out. Needs torch, NumPy and nothing of nipype or pybids."""

from bids_alphagan.models.trained import TrainedGenerator, draw_latent, generate, load_generator
from bids_alphagan.training.cache import prepared
from bids_alphagan.training.identity import TrainSettings, configuration, differences, precision
from bids_alphagan.training.interrupt import Interrupted
from bids_alphagan.training.loop import TrainResult, train

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
