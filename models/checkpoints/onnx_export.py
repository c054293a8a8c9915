"""Export a PyTorch network to ONNX, and prove that ONNX Runtime gives the same outputs."""

import io
import os
import re
import sys
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import torch
from torch import nn

from models.artifacts import Artifacts
from models.checkpoints.onnx_file import Exported
from models.checkpoints.onnx_session import OF_INPUT, OF_OUTPUT, ONE_OUTPUT, open_session
from models.checkpoints.parity import Case, DisagreementError, cases, compare
from models.coding import Coder
from models.eager import forward, tensor
from models.errors import CheckpointError, in_one_line
from models.outputs import in_order
from models.samples import Batch, Columns, all_finite
from models.signature import Picture, Tensor
from models.spec import Array, ModelSpec

_NONE: Artifacts = MappingProxyType({})
_Traced: type[Warning] = torch.jit.TracerWarning  # type: ignore[attr-defined]  # it is public, but not listed
CHEAP = 8 * 2**20  # bytes of a network and its batches: all of them are computed again whenever it is loaded
_GRAPH = "[Caused by the value"  # part of the graph follows, in the exporter's message
_STDOUT = 1  # file descriptor
# Warnings of the tracer about a value of a tensor that becomes a constant of the export. Booleans are left out: most
# come from checks of shapes, and the other branch of a network shows in the random batches.
_CONSTANT = re.compile(r"Converting a tensor to a (Python (?!boolean)\w+|NumPy array)")


def export(spec: ModelSpec, network: nn.Module, artifacts: Artifacts = _NONE) -> Exported:
    """Export `network` with a dynamic batch size, and compare it with PyTorch on the example and on random batches.

    If it cannot be exported or gives other outputs, `onnx` is empty and `refusal` says why. Raises CheckpointError if
    the network itself fails on the spec's example or returns NaN or infinity.
    """

    try:
        short, random = cases(spec, _computing(network, spec), Coder(spec, artifacts) if spec.inputs else None)
    except (RuntimeError, ValueError, TypeError, AttributeError) as err:
        raise CheckpointError(f"the network fails on the model's example: {in_one_line(err)}") from err
    if not all(all_finite(case.outputs) for case in short):
        raise CheckpointError("the network returns NaN or infinity for the model's example")
    try:
        onnx = _to_onnx(spec, network, [case.samples for case in (*short, *random)])
        session = open_session(onnx, 1)
        for case in (*short, *random):
            compare(session, case)
    except DisagreementError as err:
        return Exported(b"", refusal=in_one_line(err))
    except Exception as err:  # noqa: BLE001 - the exporter's errors have no common class; without ONNX the network runs eagerly
        reason = in_one_line(err).partition(_GRAPH)[0].rstrip()
        return Exported(b"", refusal=f"{type(err).__name__}: {reason}")
    return Exported(onnx, [*short, *random] if _size(onnx, random) <= CHEAP else short)


def _traced(spec: ModelSpec, batches: Sequence[Batch]) -> tuple[Mapping[str, Array], list[dict[int, str]]]:
    """Return the arrays that are traced, and the names of the dynamic axes of each: of the samples, and variable ones.

    A batch of several samples of several elements is traced: the tracer takes sizes of 1 for constants.
    """
    arrays = list(map(_arrays, batches))
    if not spec.inputs:
        return arrays[0], [{0: "n"}]
    chosen = max(arrays, key=lambda batch: (len(next(iter(batch.values()))) > 1, sum(a.size for a in batch.values())))
    axes = []
    for name, array in chosen.items():
        sizes = [{batch[name].shape[axis] for batch in arrays} for axis in range(array.ndim)]
        padded = _variable_axes(spec, name)
        variable = [axis for axis in range(1, array.ndim) if len(sizes[axis]) > 1 or axis - 1 in padded]
        axes.append({0: "n", **{axis: f"{name}_{axis}" for axis in variable}})
    return chosen, axes


def _variable_axes(spec: ModelSpec, name: str) -> Sequence[int]:
    """Return the axes of one sample's array, or mask, that have other sizes in other batches, as the spec says."""
    for padded, how in spec.padding.items():
        if name == padded:
            return how.axes
        if name == how.mask:
            return range(len(how.axes))
    kind = spec.inputs.get(name)
    if spec.encode is not None or not isinstance(kind, Tensor | Picture):
        return ()
    return [axis for axis, size in enumerate(kind.shape) if size is None]


def _size(onnx: bytes, batches: Iterable[Case]) -> int:
    return len(onnx) + sum(int(case.samples.nbytes + case.outputs.nbytes) for case in batches)


def _computing(network: nn.Module, spec: ModelSpec) -> Callable[[Batch], Batch]:
    """Return the function from samples to outputs, without the buckets of `eager`."""
    compute = forward(network, spec)

    def run(samples: Batch) -> Batch:
        outputs = compute(_arrays(samples))
        return Columns(dict(zip(spec.outputs, outputs, strict=True))) if spec.outputs else outputs[0]

    return run


def _arrays(samples: Batch) -> dict[str, Array]:
    """Return the arrays of one bucket by name."""
    named = samples.arrays if isinstance(samples, Columns) else {"samples": samples}
    return {name: np.asarray(array) for name, array in named.items()}


class _Positional(nn.Module):
    """A network that takes its arrays by position, and returns its outputs in the order of the spec."""

    def __init__(self, network: nn.Module, spec: ModelSpec, names: Sequence[str]) -> None:
        super().__init__()
        self.network = network
        self.keywords = list(names) if spec.inputs else []
        self.outputs = list(spec.outputs)

    def forward(self, *tensors: torch.Tensor) -> tuple[torch.Tensor, ...]:
        by_name = dict(zip(self.keywords, tensors, strict=False))
        found = self.network(**by_name) if by_name else self.network(*tensors)
        return tuple(in_order(found, self.outputs))


@contextmanager
def _attention_of_any_length(network: nn.Module) -> Iterator[None]:
    """Give each nn.MultiheadAttention copies of keys and values.

    Self-attention projects all three at once, through `unflatten`, whose export has the length of the traced batch as a
    constant. With three different tensors it projects them one by one.
    """

    def apart(_: nn.Module, args: tuple[Any, ...], named: dict[str, Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
        copied = tuple(tensor.clone() if 1 <= place <= 2 else tensor for place, tensor in enumerate(args))
        return copied, {name: one.clone() if name in {"key", "value"} else one for name, one in named.items()}

    with ExitStack() as hooks:
        for module in network.modules():
            if isinstance(module, nn.MultiheadAttention):
                hooks.callback(module.register_forward_pre_hook(apart, with_kwargs=True).remove)
        yield


@contextmanager
def _without_stdout() -> Iterator[None]:
    """Discard the standard output of the process: the exporter prints the whole graph of a network that it refuses."""
    with suppress(AttributeError, OSError, ValueError):  # it is None, a broken pipe, or closed
        sys.stdout.flush()
    try:
        kept = os.dup(_STDOUT)
    except OSError:  # it is closed
        yield
        return
    with Path(os.devnull).open("wb") as nothing:
        os.dup2(nothing.fileno(), _STDOUT)
    try:
        yield
    finally:
        os.dup2(kept, _STDOUT)
        os.close(kept)


def _to_onnx(spec: ModelSpec, network: nn.Module, batches: Sequence[Batch]) -> bytes:
    """Trace the network on one of the batches. Raises DisagreementError if the trace holds a number of it as a
    constant.
    """
    file = io.BytesIO()
    samples, axes = _traced(spec, batches)
    named = {f"{OF_INPUT}{name}": array for name, array in samples.items()} if spec.inputs else dict(samples)
    outputs = [f"{OF_OUTPUT}{name}" for name in spec.outputs] or [ONE_OUTPUT]
    if spec.inputs or spec.outputs:
        network = _Positional(network, spec, list(samples)).eval()
    with _attention_of_any_length(network), _without_stdout(), warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        warnings.filterwarnings("ignore", category=_Traced, module=r"torch\.")  # as torch itself does
        torch.onnx.export(
            network,
            tuple(tensor(array) for array in samples.values()),
            file,  # type: ignore[arg-type]  # a file object is declared for the newer exporter only
            dynamo=False,
            input_names=list(named),
            output_names=outputs,
            dynamic_axes={**dict(zip(named, axes, strict=True)), **{name: {0: "n"} for name in outputs}},
        )
    for warning in told:
        found = _CONSTANT.match(str(warning.message))
        if found and issubclass(warning.category, _Traced):
            place = f"{Path(warning.filename).name}, line {warning.lineno}"
            raise DisagreementError(
                f"{place}: a {found[1]} taken from a tensor: the export would use that of one batch for all batches"
            )
    return file.getvalue()
