"""Probabilities that keep their word: of the answers given with 0.9, nine in ten are right."""

import math

import torch
from torch import Tensor, nn

from training.metrics import outputs
from training.recipe import Split

_RANGE = (0.01, 100.0)  # what logits may be multiplied by
_HALVINGS = 60


def calibrate(network: nn.Module, validation: Split) -> float:
    """Divide the network's logits, in its last Linear layer, by the temperature that fits the validation split best.

    Returns that temperature. No answer changes, only how sure it is (Guo et al.: On Calibration of Modern Neural
    Networks, 2017). Raises ValueError where the network has no Linear layer.
    """
    linear = [module for module in network.modules() if isinstance(module, nn.Linear)]
    if not linear:
        raise ValueError("a network without a Linear layer cannot be calibrated")
    factor = best_factor(outputs(network, validation.samples), validation.targets)
    with torch.no_grad():
        for weights in linear[-1].parameters():
            weights.mul_(factor)
    return 1 / factor


def best_factor(logits: Tensor, targets: Tensor) -> float:
    """What to multiply logits (N, classes) by for the least cross entropy with targets int64 (N,).

    The cross entropy is convex in the factor: its slope is zero in one place only, which halving an interval finds.
    """
    logits = logits.double()
    chosen = logits.gather(1, targets[:, None])[:, 0]
    low, high = _RANGE
    for _ in range(_HALVINGS):
        middle = math.sqrt(low * high)
        slope = ((logits * middle).softmax(dim=1) * logits).sum(dim=1) - chosen
        low, high = (low, middle) if slope.mean() > 0 else (middle, high)
    return math.sqrt(low * high)
