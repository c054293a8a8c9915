"""Feature attributions by autograd: gradients and integrated gradients. Imports torch."""

import numpy as np
import torch
from torch import Tensor, nn

from models.routing import NotRoutable, routing
from models.spec import Array, Method, ModelSpec

_AT_ONCE = 256  # samples in one backward pass


class NoGradient(Exception):
    """The network's answer has no gradient with respect to its samples, or none with respect to the entries."""


def attribute(spec: ModelSpec, network: nn.Module, samples: Array, method: Method) -> tuple[Array, Array]:
    """Compute outputs (N, k) and the attributions, float32 (N, *entry.shape), of each sample's largest output.

    gradient: d output / d entry. integrated_gradients (Sundararajan et al., 2017): the contribution of each number,
    relative to a sample of zeros; they sum to output(sample) - output(zeros). Both are computed for the samples, and
    mapped back to the entries through the spec's preprocessing. Raises NoGradient.
    """
    try:
        route = routing(spec.preprocess, spec.tensor, spec.example)
    except NotRoutable as err:
        raise NoGradient(f"its attributions cannot be mapped to its inputs: {err}") from err
    inputs = torch.from_numpy(np.ascontiguousarray(samples, dtype=np.float32))
    try:
        with torch.no_grad():
            outputs: Tensor = network(inputs)
        largest = outputs.argmax(dim=1)
        shares = _gradient(network, inputs, largest) if method == "gradient" else _integrated(network, inputs, largest)
    except (RuntimeError, TypeError, IndexError) as err:
        raise NoGradient("the network takes no floating-point samples, or cannot be differentiated by them") from err
    attributions = shares.float().numpy()
    mapped = route.gradients(attributions) if method == "gradient" else route.contributions(attributions)
    return outputs.numpy(), mapped.astype(np.float32, copy=False)


def _gradient(network: nn.Module, inputs: Tensor, largest: Tensor) -> Tensor:
    points = inputs.clone().requires_grad_()
    chosen = network(points).gather(1, largest[:, None])  # (N, 1)
    (gradient,) = torch.autograd.grad(chosen.sum(), points)
    return gradient


def _integrated(network: nn.Module, inputs: Tensor, largest: Tensor) -> Tensor:
    from captum.attr import IntegratedGradients  # noqa: PLC0415 - takes seconds to import

    method = IntegratedGradients(network)
    rows = max(_AT_ONCE, len(inputs))
    shares: Tensor = method.attribute(inputs, target=largest, n_steps=64, internal_batch_size=rows)
    return shares.detach()
