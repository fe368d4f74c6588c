"""How many threads this process computes with."""


def use_threads(n: int) -> None:
    """Have torch compute with `n` threads from now on: in this process, and the only place that sets it."""
    import torch

    torch.set_num_threads(n)
