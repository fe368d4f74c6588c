"""Which device to compute on, and in which precision."""

import torch

from bids_alphagan.common.errors import UserError


def choose_device(name: str) -> str:
    """'cuda' or 'cpu' for "auto" (a GPU where there is one), "cpu" or "cuda".

    Raises UserError for "cuda" where torch finds no GPU.
    """
    there = torch.cuda.is_available()
    if name == "cuda" and not there:
        raise UserError("--device cuda: torch finds no GPU here. Use --device cpu, or check the driver.")
    return "cuda" if name != "cpu" and there else "cpu"


def choose_precision(name: str, device: torch.device | str) -> str:
    """ "fp32" or "bf16" for `name`, which may be "auto": bf16 where the device multiplies matrices in it.

    A CPU does with AMX or AVX512-BF16; others emulate bf16 and are slower than in fp32.
    """
    if name != "auto":
        return name
    if torch.device(device).type == "cuda":
        fast = torch.cuda.is_bf16_supported(including_emulation=False)
    else:
        has = torch.cpu.get_capabilities()
        fast = bool(has.get("amx_bf16") or has.get("avx512_bf16"))
    return "bf16" if fast else "fp32"
