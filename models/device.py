"""The device setting -> the device's name, once."""

import sys
from pathlib import Path

# Where Linux shows an accelerator that PyTorch could use: NVIDIA's, also under WSL, AMD's, and Intel's graphics.
_LINUX_SIGNS = ("nvidia[0-9]*", "dxg", "kfd", "dri/renderD*")


def resolve(name: str) -> str:
    """`auto` | `cpu` | `cuda` | `cuda:1` | `mps` -> the device; `auto` takes the first accelerator that is there.

    Asks torch, which takes seconds to import, only where the answer may be another than the CPU.
    Raises ValueError, naming the way out, for a name that is unknown or a device that this machine lacks.
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
