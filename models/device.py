"""Resolve the device setting to the name of an available device."""

import os
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

# Files in /dev of accelerators that PyTorch can use: NVIDIA's, the same under WSL, AMD's, and Intel's graphics.
_LINUX_SIGNS = ("nvidia[0-9]*", "dxg", "kfd", "dri/renderD*")
_ALL = "cuda:all"


def each(name: str, count: Callable[[], int] | None = None) -> Sequence[str]:
    """Resolve the setting to the devices over which a service spreads its web processes.

    `cuda:all` means every CUDA device that PyTorch finds (`count`), in order; any other name is one, see resolve.
    Raises ValueError if there is none.
    """
    if name != _ALL:
        return [resolve(name)]
    found = (count or _cuda_devices)()
    if found < 1:
        raise ValueError(f"device {_ALL!r} is not available here, PyTorch finds no CUDA device: use auto or cpu")
    return [f"cuda:{number}" for number in range(found)]


def _cuda_devices() -> int:
    import torch  # noqa: PLC0415 - takes seconds

    return torch.cuda.device_count()


def resolve(name: str) -> str:
    """Resolve `auto`, `cpu`, `cuda`, `cuda:1` or `mps`; `auto` picks the first available accelerator, else the CPU.

    `cuda:all` is `cuda` for a process that computes on one device: a training run, or an application without a parent.
    Imports torch, which takes seconds, only if the result may be something other than the CPU.
    Raises ValueError, with the alternatives, if the name is unknown or the device is not available.
    """
    if name == "cpu" or (name == "auto" and not _may_have_accelerator()):
        return "cpu"
    import torch  # noqa: PLC0415

    if name == "auto":
        return str(torch.accelerator.current_accelerator(check_available=True) or "cpu")
    try:
        device = torch.device("cuda" if name == _ALL else name)
    except RuntimeError as err:
        raise ValueError(f"unknown device {name!r}: use auto, cpu, cuda, cuda:N, cuda:all or mps") from err
    try:
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError, NotImplementedError) as err:
        raise ValueError(f"device {name!r} is not available here: use auto or cpu") from err
    return str(device)


def _may_have_accelerator(devices: Path = Path("/dev")) -> bool:
    return sys.platform != "linux" or any(any(devices.glob(sign)) for sign in _LINUX_SIGNS)


def cpus() -> int:
    """Return the number of CPUs that this process may use."""
    return len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 1


def accelerators(name: str, environ: Mapping[str, str] = os.environ, devices: Path = Path("/dev")) -> int:
    """Count the accelerators that the device setting leaves to a process, without torch.

    Looks at the files of NVIDIA's devices and at CUDA_VISIBLE_DEVICES; any other accelerator counts as one.
    """
    if name == "cpu" or (name == "auto" and not _may_have_accelerator(devices)):
        return 0
    if ":" in name or name == "mps":
        return 1
    visible = environ.get("CUDA_VISIBLE_DEVICES")
    if visible is not None:
        return len([part for part in visible.split(",") if part.strip() not in {"", "-1"}])
    return len(list(devices.glob("nvidia[0-9]*"))) or 1
