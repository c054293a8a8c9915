"""Feature attributions by autograd: gradients and integrated gradients. Imports torch.

They are those of one number of each sample's answer: of an output of k numbers the largest, such as the logit of the
label; of an output of another shape the sum.
"""

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import Tensor, nn

from models.eager import eager, tensor
from models.outputs import in_order
from models.padding import by_bucket
from models.routing import NotRoutable, routing
from models.samples import Batch, Column, Columns
from models.signature import Output, Padded
from models.spec import Array, Method, ModelSpec

_AT_ONCE = 256  # samples in one backward pass
_SAMPLES = "samples"  # the array of a one-tensor model
_CHOSEN = "chosen numbers"  # no name of an argument


class NoGradient(Exception):
    """The network's answer has no gradient with respect to its samples, or none with respect to the entries."""


def attribute(
    spec: ModelSpec, network: nn.Module, samples: Batch, method: Method, inputs: Sequence[str] = (), output: str = ""
) -> tuple[Batch, Batch]:
    """Compute the outputs of N samples, and the attributions of one of them by name; by default the first.

    gradient: d output / d entry. integrated_gradients (Sundararajan et al., 2017): the contribution of each number,
    relative to a sample of zeros; they sum to output(sample) - output(zeros).

    One tensor: the attributions are float32 (N, *entry.shape). They are computed for the samples, and mapped back to
    the entries through the spec's preprocessing. Named inputs: they are Columns of the shapes of the arrays that
    `inputs` names, without those on which the output does not depend. Raises NoGradient.
    """
    if isinstance(samples, Columns):
        return _attributed(spec, network, samples, method, inputs, output)
    try:
        route = routing(spec.preprocess, spec.tensor, spec.example)
    except NotRoutable as err:
        raise NoGradient(f"its attributions cannot be mapped to its inputs: {err}") from err
    batch = Columns({_SAMPLES: np.ascontiguousarray(samples, dtype=np.float32)})
    outputs, found = _attributed(spec, network, batch, method, [_SAMPLES], output)
    attributions = np.asarray(found.arrays[_SAMPLES])
    mapped = route.gradients(attributions) if method == "gradient" else route.contributions(attributions)
    return outputs, mapped.astype(np.float32, copy=False)


def _attributed(
    spec: ModelSpec, network: nn.Module, samples: Columns, method: Method, inputs: Sequence[str], output: str
) -> tuple[Batch, Columns]:
    """Compute outputs, and attributions by name. Raises NoGradient."""
    differentiation = _Differentiation(spec, network, method, inputs, output)
    try:
        outputs = eager(network, spec)(samples if spec.inputs else samples.arrays[_SAMPLES])
        return outputs, differentiation(samples, outputs)
    except (RuntimeError, TypeError, IndexError) as err:
        raise NoGradient("the network takes no floating-point samples, or cannot be differentiated by them") from err


class _Differentiation:
    """Attributions of one output of a network by some of its arguments."""

    def __init__(self, spec: ModelSpec, network: nn.Module, method: Method, inputs: Sequence[str], output: str) -> None:
        self._spec = spec
        self._network = network
        self._method = method
        self._inputs = list(inputs)
        self._output = output or next(iter(spec.outputs), "")
        self._place = list(spec.outputs).index(self._output) if self._output else 0
        self._used: set[str] = set()

    def __call__(self, samples: Columns, outputs: Batch) -> Columns:
        """Return float32 arrays (N, ...) by name, of those that the output depends on."""
        spec = self._spec
        shape = spec.outputs[self._output].shape if self._output else (1,)
        column = outputs.arrays[self._output] if isinstance(outputs, Columns) else outputs
        batch = Columns({**samples.arrays, _CHOSEN: _chosen(column, is_class=len(shape) == 1 and None not in shape)})
        padding = dict(spec.padding)
        if self._output and spec.outputs[self._output].like:
            padding[_CHOSEN] = Padded(axes=tuple(axis for axis, size in enumerate(shape) if size is None))
        cut = {name: _as_long_as(name, samples.arrays[name], padding) for name in self._inputs}
        found = by_bucket(self._bucket, padding, cut)(batch)
        assert isinstance(found, Columns)
        return Columns({name: found.arrays[name] for name in self._inputs if name in self._used})

    def _bucket(self, arrays: Mapping[str, Array]) -> list[Array]:
        """Return the attributions of the samples of one bucket, in the order of the inputs."""
        tensors = {name: tensor(array) for name, array in arrays.items()}
        points = {name: _floating(tensors[name]).clone().requires_grad_() for name in self._inputs}
        answer = self._answer({**tensors, **points}).sum()
        gradients = torch.autograd.grad(answer, list(points.values()), allow_unused=True)
        found = {name: one for name, one in zip(points, gradients, strict=True) if one is not None}
        if not found:
            raise RuntimeError("the output does not depend on its inputs")
        self._used |= found.keys()
        if self._method == "integrated_gradients":
            found = self._integrated(tensors, [name for name in points if name in found])
        return [found.get(name, torch.zeros_like(point)).detach().float().numpy() for name, point in points.items()]

    def _integrated(self, tensors: Mapping[str, Tensor], names: Sequence[str]) -> dict[str, Tensor]:
        """Integrate the gradients by the arrays of these names. NaN, a missing number, contributes nothing."""
        from captum.attr import IntegratedGradients  # noqa: PLC0415 - takes seconds to import

        points = tuple(_floating(tensors[name]) for name in names)
        others = [name for name in tensors if name not in names]
        order = [*names, *others]
        method = IntegratedGradients(lambda *given: self._answer(dict(zip(order, given, strict=True))))
        shares = method.attribute(
            inputs=points,
            additional_forward_args=tuple(tensors[name] for name in others),
            n_steps=64,
            internal_batch_size=max(_AT_ONCE, len(points[0])),
        )
        known = (torch.where(point.isnan(), 0, share) for point, share in zip(points, shares, strict=True))
        return dict(zip(names, known, strict=True))

    def _answer(self, tensors: Mapping[str, Tensor]) -> Tensor:
        """Return the number of each sample that is differentiated, (N,)."""
        given = {name: one for name, one in tensors.items() if name != _CHOSEN}
        outputs = self._network(**given) if self._spec.inputs else self._network(*given.values())
        output: Tensor = in_order(outputs, self._spec.outputs)[self._place]
        numbers = torch.where(tensors[_CHOSEN], output, torch.zeros_like(output))
        return numbers.reshape(len(output), -1).sum(dim=1)


def _floating(array: Tensor) -> Tensor:
    return array if array.is_floating_point() else array.float()


def _chosen(outputs: Column, *, is_class: bool) -> Column:
    """Return which numbers of each sample's output are differentiated, bool of its shape: the largest of k, or all."""
    if isinstance(outputs, list):
        return [np.ones(row.shape, bool) for row in outputs]
    if not is_class or outputs.ndim != 2:
        return np.ones(outputs.shape, bool)
    return np.asarray(outputs.argmax(axis=1)[:, None] == np.arange(outputs.shape[1]))


def _as_long_as(name: str, column: Column, padding: Mapping[str, Padded]) -> Output:
    """Return the form of an input's attributions: cut to the lengths of the input if it is padded."""
    if name not in padding:
        return Output()
    rank = np.ndim(column[0])
    return Output(tuple(None if axis in padding[name].axes else 0 for axis in range(rank)), like=name)
