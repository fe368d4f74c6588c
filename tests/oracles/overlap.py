"""How much of two masks is the same."""

import numpy as np


def dice(a: np.ndarray, b: np.ndarray) -> float:
    """Dice coefficient of two masks: 2 |a & b| / (|a| + |b|)."""
    return float(2 * (a & b).sum() / (a.sum() + b.sum()))
