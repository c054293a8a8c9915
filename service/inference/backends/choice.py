"""Choose the backend: ONNX Runtime on a CPU, PyTorch on other devices, torch.compile if the settings ask for it."""

import os
from typing import Literal

from service.inference.backends.backend import Backend
from service.inference.backends.exports import Exports
from service.inference.backends.forms import Policy
from service.inference.backends.onnx import OnnxBackend

REST_S = 1.0  # the start of the other web processes, and the first answers


def choose(
    name: Literal["auto", "eager", "onnxruntime", "compile"],
    device: str,
    exports: Exports,
    web_processes: int,
    max_batch: int,
    cores: int | None = None,
    forms: Policy = Policy(),  # noqa: B008 - immutable
) -> Backend:
    """Return the backend for a setting and a device, in one of `web_processes` processes that share the cores.

    `cores` is the number of cores that this process may use, by default all that the system gives it. `forms`: which
    numeric forms it may use; by default none but float32.

    Raises ValueError if the backend does not support the device.
    """
    cores = cores or _available_cores()
    threads = max(1, cores // web_processes)

    def eager() -> Backend:
        from service.inference.backends.pytorch import EagerBackend, compiled  # noqa: PLC0415 - loads torch: 200 MB

        return EagerBackend(device, threads, max_batch, compiled if name == "compile" else None)

    if name == "onnxruntime" and device != "cpu":
        raise ValueError(
            f"the onnxruntime backend computes on the CPU, not on {device}: set DEVICE=cpu or BACKEND=auto",
        )
    if name in {"eager", "compile"} or device != "cpu":
        return eager()
    return OnnxBackend(exports, threads, cores, max_batch, eager if name == "auto" else None, forms, REST_S)


def _available_cores() -> int:
    """Return the number of cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
