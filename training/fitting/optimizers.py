"""Optimizers and learning rate schedules."""

import inspect
import math
from collections.abc import Callable, Mapping
from typing import TypeVar

import torch
from torch import nn, optim

from training.recipe import Hyperparameters, Schedule

Kind = TypeVar("Kind", bound=optim.Optimizer)
_GUARDED = ("add_param_group", "zero_grad", "state_dict", "load_state_dict")


def make_optimizer(network: nn.Module, config: Hyperparameters) -> optim.Optimizer:
    """Build the optimizer named in `config` for all weights of the network.

    `fused` updates all weights in one operation, which saves a tenth of a step of the small CNN.
    """
    weights, lr, decay = network.parameters(), config.lr, config.weight_decay
    match config.optimizer:
        case "sgd":
            return _eager(optim.SGD)(weights, lr=lr, weight_decay=decay, fused=True)
        case "momentum":
            return _eager(optim.SGD)(weights, lr=lr, weight_decay=decay, momentum=config.momentum, fused=True)
        case "rmsprop":
            return _eager(optim.RMSprop)(weights, lr=lr, weight_decay=decay, alpha=config.alpha)
        case "adam":
            return _eager(optim.Adam)(weights, lr=lr, weight_decay=decay, betas=config.betas, fused=True)
        case "adamw":
            return _eager(optim.AdamW)(weights, lr=lr, weight_decay=decay, betas=config.betas, fused=True)


def _eager(kind: type[Kind]) -> type[Kind]:
    """Return an optimizer class without the guards that keep `torch.compile` out of its methods.

    They import the compiler, with SymPy, at the first call: more than a second in each process that trains. Adam and
    SGD compute the same without them.
    """
    methods = {name: inspect.unwrap(getattr(kind, name)) for name in _GUARDED}
    return type(kind.__name__, (kind,), {**methods, "step": torch.no_grad()(inspect.unwrap(kind.step))})


def lr_factor(schedule: Schedule, done: float) -> float:
    """Factor for `lr` after the fraction `done`, in [0, 1), of the steps."""
    return _FACTORS[schedule](done)


def _one_cycle(done: float) -> float:
    """Rise from 1/25 over the first three tenths, then fall to 0 (Smith, Topin: Super-Convergence, 2018)."""
    rise, start = 0.3, 1 / 25
    return 1 - (1 - start) * _cosine(done / rise) if done < rise else _cosine((done - rise) / (1 - rise))


def _cooldown(done: float) -> float:
    """Stay at 1, fall to 0 over the last fifth (Hägele et al.: Scaling Laws Beyond Fixed Training Durations, 2024)."""
    return min(1.0, (1 - done) / 0.2)


def _cosine(done: float) -> float:
    return (1 + math.cos(math.pi * done)) / 2


_FACTORS: Mapping[Schedule, Callable[[float], float]] = {
    "constant": lambda _: 1.0,
    "cooldown": _cooldown,
    "linear": lambda done: 1.0 - done,
    "cosine": _cosine,
    "one_cycle": _one_cycle,
}
