"""A toy metric of pairs: the largest difference of two scans."""

import torch

from bids_alphagan.evaluation.pairs.metrics import Metric


def largest(first: torch.Tensor, second: torch.Tensor, pairs: torch.Tensor) -> torch.Tensor:
    i, j = pairs.T
    return (first[i] - second[j]).abs().amax(dim=(1, 2, 3)).double()


LARGEST = Metric("Largest", "Largest difference", "1", "lower", "A test", within=False, on_pairs=largest)
