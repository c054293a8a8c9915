"""Import torchvision even if it was built for another device than PyTorch.

`import torchvision` fails with "operator torchvision::nms does not exist" if its compiled operators cannot be loaded,
for example with torchvision for CUDA and PyTorch for the CPU. Only its datasets are used here, which need no operators:
so the two missing names are declared without an implementation.
"""

from importlib import import_module
from types import ModuleType

import torch

_OPERATORS = ("nms", "qnms")  # the two that torchvision/_meta_registrations.py registers unconditionally
_SCHEMA = "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor"


def import_torchvision(module: str = "torchvision") -> ModuleType:
    """Import a module of torchvision; declare the operators only if the import fails without them."""
    try:
        return import_module(module)
    except RuntimeError as err:
        if "torchvision::" not in str(err):
            raise
    for operator in _OPERATORS:
        torch.library.define(f"torchvision::{operator}", _SCHEMA)
    return import_module(module)
