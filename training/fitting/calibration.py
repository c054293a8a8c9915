"""Temperature scaling (Guo et al.: On Calibration of Modern Neural Networks, 2017)."""

import math

import torch
from torch import Tensor, nn

from training.metrics import outputs
from training.recipe import Split

_RANGE = (0.01, 100.0)  # bounds of the factor for the logits
_HALVINGS = 60


def calibrate(network: nn.Module, validation: Split) -> float:
    """Scale the weights of the last Linear layer by the temperature that minimises the validation loss.

    Returns the temperature. Labels do not change, only probabilities. Raises ValueError if the network has no Linear
    layer.
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
    """Find the factor for logits (N, classes) that minimises the cross entropy with targets int64 (N,).

    The cross entropy is convex in the factor, so bisection finds the zero of its slope.
    """
    logits = logits.double()
    chosen = logits.gather(1, targets[:, None])[:, 0]
    low, high = _RANGE
    for _ in range(_HALVINGS):
        middle = math.sqrt(low * high)
        slope = ((logits * middle).softmax(dim=1) * logits).sum(dim=1) - chosen
        low, high = (low, middle) if slope.mean() > 0 else (middle, high)
    return math.sqrt(low * high)
