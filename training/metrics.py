"""Figures of merit on a split."""

import torch
from torch import Tensor, nn

from training.recipe import Split

_BATCH = 100  # samples at once: their activations stay in the cache, larger batches are slower


def outputs(network: nn.Module, samples: Tensor) -> Tensor:
    """What the network puts out for the samples, in eval mode and without gradients; its mode is then as before."""
    training = network.training
    network.eval()
    with torch.inference_mode():
        out = torch.cat([network(batch) for batch in torch.split(samples, _BATCH)])
    network.train(training)
    return out


def classification(network: nn.Module, split: Split) -> dict[str, float]:
    """`accuracy`, a share in 0..1, and `loss`, the mean cross entropy in nats. Targets are int64 (N,)."""
    logits = outputs(network, split.samples)
    return {
        "accuracy": (logits.argmax(dim=1) == split.targets).double().mean().item(),
        "loss": nn.functional.cross_entropy(logits, split.targets).item(),
    }


def regression(network: nn.Module, split: Split) -> dict[str, float]:
    """`mse`, the mean squared error. Targets are float32 (N, 1)."""
    return {"mse": nn.functional.mse_loss(outputs(network, split.samples), split.targets).item()}
