"""The activation functions that every network takes as a constructor argument."""

from typing import Literal

from torch import nn

Activation = Literal["relu", "sigmoid", "tanh", "softplus"]

_MODULES: dict[Activation, type[nn.Module]] = {
    "relu": nn.ReLU,
    "sigmoid": nn.Sigmoid,
    "tanh": nn.Tanh,
    "softplus": nn.Softplus,
}


def activation_module(name: Activation) -> nn.Module:
    """The module of that name. Raises ValueError for an unknown one."""
    try:
        return _MODULES[name]()
    except KeyError as err:
        raise ValueError(f"unknown activation {name!r}: use {', '.join(_MODULES)}") from err
