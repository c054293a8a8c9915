"""Resolve the device setting to the name of an available device."""

import sys
from pathlib import Path

# Files in /dev of accelerators that PyTorch can use: NVIDIA's, the same under WSL, AMD's, and Intel's graphics.
_LINUX_SIGNS = ("nvidia[0-9]*", "dxg", "kfd", "dri/renderD*")


def resolve(name: str) -> str:
    """Resolve `auto`, `cpu`, `cuda`, `cuda:1` or `mps`; `auto` picks the first available accelerator, else the CPU.

    Imports torch, which takes seconds, only if the result may be something other than the CPU.
    Raises ValueError, with the alternatives, if the name is unknown or the device is not available.
    """
    if name == "cpu" or (name == "auto" and not _may_have_accelerator()):
        return "cpu"
    import torch  # noqa: PLC0415

    if name == "auto":
        return str(torch.accelerator.current_accelerator(check_available=True) or "cpu")
    try:
        device = torch.device(name)
    except RuntimeError as err:
        raise ValueError(f"unknown device {name!r}: use auto, cpu, cuda, cuda:N or mps") from err
    try:
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError, NotImplementedError) as err:
        raise ValueError(f"device {name!r} is not available here: use auto or cpu") from err
    return str(device)


def _may_have_accelerator() -> bool:
    return sys.platform != "linux" or any(any(Path("/dev").glob(sign)) for sign in _LINUX_SIGNS)
