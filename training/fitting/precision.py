"""Mixed precision: choose whether to compute in bfloat16, which has the range of float32 and needs no loss scaling."""

from typing import Literal

import torch

Mixed = Literal["auto", "on", "off"]


def in_bfloat16(mixed: Mixed, device: torch.device) -> bool:
    """Resolve `mixed` for a device; auto: on if it has bfloat16 instructions, without which it would be slower."""
    if mixed != "auto":
        return mixed == "on"
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    if device.type == "cpu":
        known = torch.cpu.get_capabilities()
        return bool(known.get("avx512_bf16") or known.get("amx_bf16"))
    return False
