"""The number of CPU threads of this process."""


def use_threads(n: int) -> None:
    """Set the number of torch's CPU threads in this process. Nothing else in the package sets it."""
    import torch

    torch.set_num_threads(n)
