"""Optimizers and learning rate schedules."""

import math
from collections.abc import Callable, Mapping

from torch import nn, optim

from models.garbage import not_collected
from training.recipe import Hyperparameters, Schedule


def make_optimizer(network: nn.Module, config: Hyperparameters) -> optim.Optimizer:
    """Build the optimizer named in `config` for all weights of the network.

    `fused` updates all weights in one operation, which saves a tenth of a step of the small CNN. PyTorch imports its
    compiler for the first optimizer of a process, which takes a second.
    """
    with not_collected():
        return _optimizer(network, config)


def _optimizer(network: nn.Module, config: Hyperparameters) -> optim.Optimizer:
    weights, lr, decay = network.parameters(), config.lr, config.weight_decay
    match config.optimizer:
        case "sgd":
            return optim.SGD(weights, lr=lr, weight_decay=decay, fused=True)
        case "momentum":
            return optim.SGD(weights, lr=lr, weight_decay=decay, momentum=config.momentum, fused=True)
        case "rmsprop":
            return optim.RMSprop(weights, lr=lr, weight_decay=decay, alpha=config.alpha)
        case "adam":
            return optim.Adam(weights, lr=lr, weight_decay=decay, betas=config.betas, fused=True)
        case "adamw":
            return optim.AdamW(weights, lr=lr, weight_decay=decay, betas=config.betas, fused=True)


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
