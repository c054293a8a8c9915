"""Which backend computes: ONNX Runtime on a CPU, PyTorch on everything else."""

import os
from typing import Literal

from service.engine import Backend
from service.exports import Exports
from service.onnx import OnnxBackend


def choose(name: Literal["auto", "eager", "onnxruntime"], device: str, exports: Exports, threads: int) -> Backend:
    """The backend that a setting and a device stand for. Raises ValueError where they do not go together."""

    def eager() -> Backend:
        from service.eager import EagerBackend  # noqa: PLC0415 - torch: 200 MB that an exported network does without

        return EagerBackend(device, threads)

    if name == "onnxruntime" and device != "cpu":
        raise ValueError(
            f"the onnxruntime backend computes on the CPU, not on {device}: set DEVICE=cpu or BACKEND=auto"
        )
    if name == "eager" or device != "cpu":
        return eager()
    return OnnxBackend(exports, threads, eager if name == "auto" else None)


def threads_for(web_processes: int) -> int:
    """How many threads one of so many web processes may compute with: the cores that this process may use, shared."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, cores // web_processes)
