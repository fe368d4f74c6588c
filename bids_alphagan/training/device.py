"""The choice of device and precision."""

import torch

from bids_alphagan.common.errors import UserError


def choose_device(name: str) -> str:
    """'cuda' or 'cpu' for "auto" (a GPU if there is one), "cpu" or "cuda".

    Raises UserError for "cuda" if torch finds no GPU.
    """
    has_gpu = torch.cuda.is_available()
    if name == "cuda" and not has_gpu:
        raise UserError("--device cuda: torch finds no GPU here. Use --device cpu, or check the driver.")
    return "cuda" if name != "cpu" and has_gpu else "cpu"


def choose_precision(name: str, device: torch.device | str) -> str:
    """The precision for `name`, "fp32", "bf16" or "auto": bf16 if the device has hardware for matrix products in it.

    CPUs have it with AMX or AVX512-BF16; others emulate bf16, which is slower than fp32.
    """
    if name != "auto":
        return name
    if torch.device(device).type == "cuda":
        fast = torch.cuda.is_bf16_supported(including_emulation=False)
    else:
        has = torch.cpu.get_capabilities()
        fast = bool(has.get("amx_bf16") or has.get("avx512_bf16"))
    return "bf16" if fast else "fp32"
