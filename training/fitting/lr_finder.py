"""Learning rate range test (Smith: Cyclical Learning Rates for Training Neural Networks, 2017)."""

import copy
import math
from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from training.recipe import TrainingError

_STEPS = 100
_LOW, _HIGH = 1e-6, 10.0
_SMOOTH = 0.9  # weight of the past in the running mean of the loss
_DIVERGED = 4.0  # times the best loss
_SETTLED = 10  # steps
_SAFETY = 10.0  # the loss is least shortly before it diverges

Step = Callable[[nn.Module, torch.optim.Optimizer, Any], float]


def found_lr(
    network: nn.Module,
    optimizer_of: Callable[[nn.Module], torch.optim.Optimizer],
    next_batch: Callable[[], Any],
    step: Step,
) -> float:
    """Return a tenth of the learning rate at which the loss of a copy of the network is least.

    The rate grows exponentially from 1e-6 to 10 over 100 steps, or until the loss diverges. `step` takes an optimizer
    step on a batch and returns its loss. Network and random state are left as they are.
    Raises TrainingError if the loss is finite at no rate.
    """
    with torch.random.fork_rng(devices=[]):
        tried = copy.deepcopy(network)
        optimizer = optimizer_of(tried)
        mean, best, best_lr = 0.0, math.inf, 0.0
        for count in range(_STEPS):
            lr = _LOW * (_HIGH / _LOW) ** (count / (_STEPS - 1))
            for group in optimizer.param_groups:
                group["lr"] = lr
            loss = step(tried, optimizer, next_batch())
            mean = _SMOOTH * mean + (1 - _SMOOTH) * loss
            smooth = mean / (1 - _SMOOTH ** (count + 1))
            if not math.isfinite(smooth) or (smooth > _DIVERGED * abs(best) + 1e-12 and count > 10):
                break
            if smooth < best:
                best, best_lr = smooth, lr
    if not best_lr:
        raise TrainingError("no learning rate gives a finite loss: set lr_finder to off, and check the data")
    return max(_LOW, best_lr / _SAFETY)
