"""The number of CPU threads of this process."""


def use_threads(n: int) -> None:
    """Set the number of torch's CPU threads in this process. Only this function sets it in the package."""
    import torch

    torch.set_num_threads(n)
