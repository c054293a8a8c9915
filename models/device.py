"""The device setting -> torch.device, once."""

import torch


def resolve(name: str) -> torch.device:
    """`auto` | `cpu` | `cuda` | `cuda:1` | `mps` -> the device; `auto` takes the first accelerator that is there.

    Raises ValueError, naming the way out, for a name that is unknown or a device that this machine lacks.
    """
    if name == "auto":
        return torch.accelerator.current_accelerator(check_available=True) or torch.device("cpu")
    try:
        device = torch.device(name)
    except RuntimeError as err:
        raise ValueError(f"unknown device {name!r}: use auto, cpu, cuda, cuda:N or mps") from err
    try:
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError, NotImplementedError) as err:
        raise ValueError(f"device {name!r} is not available here: use auto or cpu") from err
    return device
