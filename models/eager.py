"""Run a PyTorch network on samples as NumPy arrays: the reference for every other way to run it. Imports torch."""

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from models.coding import example_samples
from models.outputs import in_order
from models.padding import Forward, computing, stacked
from models.samples import Columns
from models.spec import Array, ModelSpec

Network = Callable[..., Any]  # an nn.Module, compiled or not
_CPU = torch.device("cpu")


def eager(network: Network, spec: ModelSpec, device: torch.device = _CPU) -> Callable[[Any], Any]:
    """Return the function that computes outputs of samples, both on the host: a Batch of N each.

    It raises TypeError if the network's outputs are not those that the spec names.
    """
    if not (spec.inputs or spec.outputs):
        return plain(network, device)
    return computing(forward(network, spec, device), spec)


def built(spec: ModelSpec, arguments: Mapping[str, Any]) -> nn.Module:
    """Build a network. If it has lazy modules, such as nn.LazyLinear, it computes the example, which sets their sizes.

    Raises what its constructor or its forward raises.
    """
    network = spec.network(**arguments)
    if any(map(is_lazy, (*network.parameters(), *network.buffers()))):
        samples = example_samples(spec)
        arrays = stacked(samples.take([0]), spec.padding) if isinstance(samples, Columns) else {"samples": samples[:1]}
        tensors = {name: tensor(array) for name, array in arrays.items()}
        network.eval()
        with torch.no_grad():
            network(**tensors) if spec.inputs else network(*tensors.values())
        network.train()
    return network


def forward(network: Network, spec: ModelSpec, device: torch.device = _CPU) -> Forward:
    """Return the function from the arrays of one bucket (N, ...) to the outputs (N, ...), in the order of the spec.

    A network of one tensor gets the only array. The function raises TypeError as `eager` does.
    """

    def run(arrays: Mapping[str, Array]) -> list[Array]:
        tensors = {name: tensor(array).to(device) for name, array in arrays.items()}
        with torch.inference_mode():
            outputs = network(**tensors) if spec.inputs else network(*tensors.values())
            return [output.cpu().numpy() for output in in_order(outputs, spec.outputs)]

    return run


def plain(network: Network, device: torch.device = _CPU) -> Callable[[Array], Array]:
    """Return the function for a network of one tensor and one output."""

    def run(samples: Array) -> Array:
        with torch.inference_mode():
            (output,) = in_order(network(tensor(samples).to(device)), ())
            outputs: Array = output.cpu().numpy()
        return outputs

    return run


def tensor(samples: Array) -> Tensor:
    """Convert an array to a tensor without a copy, unless it is read-only, which PyTorch would warn about."""
    return torch.from_numpy(samples if samples.flags.writeable else samples.copy())
