"""torchvision beside a PyTorch that was built for another device.

`import torchvision` describes its own operators to PyTorch and stops with "operator torchvision::nms does not exist"
where their compiled half cannot be loaded: the package for CUDA installed beside PyTorch for the CPU, say. We need its
datasets only, which use no operator, so there the two names that it insists on are declared, with no code behind them.
"""

from importlib import import_module
from types import ModuleType

import torch

_OPERATORS = ("nms", "qnms")  # the two that torchvision/_meta_registrations.py describes unconditionally
_SCHEMA = "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor"


def import_torchvision(module: str = "torchvision") -> ModuleType:
    """That module of torchvision. Where the operators are there, nothing but the import happens."""
    try:
        return import_module(module)
    except RuntimeError as err:
        if "torchvision::" not in str(err):
            raise
    for operator in _OPERATORS:
        torch.library.define(f"torchvision::{operator}", _SCHEMA)
    return import_module(module)
