"""Whether to compute in bfloat16: half the bits, and the exponents of float32, so that nothing need be scaled."""

from typing import Literal

import torch

Mixed = Literal["auto", "on", "off"]


def in_bfloat16(mixed: Mixed, device: torch.device) -> bool:
    """What `mixed` comes to on a device; auto: where the processor has instructions for it, else it would be slower."""
    if mixed != "auto":
        return mixed == "on"
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    if device.type == "cpu":
        known = torch.cpu.get_capabilities()
        return bool(known.get("avx512_bf16") or known.get("amx_bf16"))
    return False
