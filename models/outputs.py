"""Postprocessing: convert network outputs to the values and predictions of a response."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import fields, is_dataclass
from typing import Any

import numpy as np
from typing_extensions import TypedDict  # pydantic cannot read typing.TypedDict before Python 3.12

from models.artifacts import Artifacts, bound
from models.samples import Batch, Columns, rejoined
from models.spec import Array, Method, ModelSpec, Prediction


class Value(TypedDict):
    """A regressor's prediction for one sample."""

    value: float


class Classification(TypedDict):
    """A classifier's prediction for one sample; `probabilities` has one number per class and sums to 1."""

    label: int
    probability: float
    probabilities: list[float]


def values(outputs: Array) -> Array:
    """Return outputs (N, 1) unchanged, as float32."""
    return outputs.astype(np.float32, copy=False)


def probabilities(logits: Array) -> Array:
    """Softmax: logits (N, classes) -> probabilities float32 (N, classes). Shifted so that it cannot overflow."""
    shifted = np.exp(logits - logits.max(axis=1, keepdims=True), dtype=np.float32)
    normalised: Array = shifted / shifted.sum(axis=1, keepdims=True)
    return normalised


def describe_values(rows: Array) -> Sequence[Prediction]:
    """Convert values (N, 1) to N of Value."""
    return [{"value": value} for value in rows[:, 0]]


def describe_classes(rows: Array) -> Sequence[Prediction]:
    """Convert probabilities (N, classes) to N of Classification."""
    labels = rows.argmax(axis=1).tolist()
    return [
        {"label": label, "probability": row[label], "probabilities": row}
        for label, row in zip(labels, rows, strict=True)
    ]


def saliency(attributions: Array, _: Method) -> dict[str, Array]:
    """Saliency map: the absolute attribution of each pixel, scaled so that the largest of a sample is 1 (N, ...)."""
    sizes = np.abs(attributions)
    largest = sizes.max(axis=tuple(range(1, sizes.ndim)), keepdims=True)
    return {"saliency": np.divide(sizes, largest, out=np.zeros_like(sizes), where=largest > 0)}


def in_order(outputs: Any, names: Iterable[str]) -> list[Any]:
    """Return the outputs of a network, one tensor, a tuple or a dictionary, as a list in the order of `names`.

    The fields of a dataclass or of a named tuple are taken by name, as those of a dictionary. Without names, one
    tensor. Raises TypeError if it returned something else.
    """
    wanted = list(names)
    outputs = _fields(outputs, wanted)
    if isinstance(outputs, Mapping):
        if not wanted or not outputs.keys() >= set(wanted):
            said = ", ".join(wanted) or "none"
            raise TypeError(f"the network returns {', '.join(map(str, outputs))}; the spec's `outputs` name {said}")
        return _tensors([outputs[name] for name in wanted], wanted)
    found = list(outputs) if isinstance(outputs, tuple | list) else [outputs]
    if len(found) != (len(wanted) or 1) and not any(isinstance(one, Mapping) for one in found):
        named = f"`outputs` has {len(wanted)}" if wanted else "they have no names: give the spec `outputs`"
        raise TypeError(f"the network returns {len(found)} outputs; {named}")
    return _tensors(found, wanted)


def _fields(outputs: Any, wanted: Sequence[str]) -> Any:
    """Return a dataclass, or a named tuple that has all wanted fields, as a dictionary; anything else unchanged."""
    if is_dataclass(outputs) and not isinstance(outputs, type | Mapping):
        return {field.name: getattr(outputs, field.name) for field in fields(outputs)}
    named = isinstance(outputs, tuple) and wanted and set(wanted) <= set(getattr(outputs, "_fields", ()))
    return {name: getattr(outputs, name) for name in wanted} if named else outputs


def _tensors(found: list[Any], names: Sequence[str]) -> list[Any]:
    """Return the outputs of a network if each is a tensor. Raises TypeError."""
    for name, output in zip(names or [""], found, strict=False):
        if hasattr(output, "shape"):
            continue
        said = f"{type(output).__name__}{f' for {name}' if name else ''}"
        if isinstance(output, list | tuple | Mapping):
            raise TypeError(
                f"the network returns a {said}, not a tensor (N, ...): return one for all samples, padded to a fixed "
                "count if theirs differ, and leave out in `describe` those that do not count"
            )
        raise TypeError(f"the network returns {said}, not a tensor")
    return found


def postprocessing(spec: ModelSpec, artifacts: Artifacts) -> Callable[[Any], Any]:
    """Return the function from the network's outputs to the values of the answer, for one version of the model."""
    if spec.postprocess is None:
        return _unchanged
    function = bound(spec.postprocess, artifacts)
    return _on_columns(function) if spec.outputs else function


def description(spec: ModelSpec, artifacts: Artifacts) -> Callable[[Any], Sequence[Prediction]]:
    """Return the function from values to predictions, for one version of the model."""
    if spec.describe is None:
        return describe_outputs
    function = bound(spec.describe, artifacts)
    return _described_by_shape(function) if spec.outputs else function


def describe_outputs(values: Columns) -> Sequence[Prediction]:
    """Return one prediction per sample, with a field for each output."""
    arrays = {
        name: [np.ascontiguousarray(row) if row.ndim else row for row in column]
        for name, column in values.arrays.items()
    }
    return [dict(zip(arrays, row, strict=True)) for row in zip(*arrays.values(), strict=True)]


def output_fault(spec: ModelSpec, values: Batch, count: int) -> str | None:
    """Return why the values of `count` samples are not those that the spec declares; None if they are."""
    if not spec.outputs:
        return None
    if not isinstance(values, Columns) or values.arrays.keys() != spec.outputs.keys():
        names = ", ".join(values.arrays) if isinstance(values, Columns) else "one array"
        return f"postprocess returns {names} instead of {', '.join(spec.outputs)}"
    for name, output in spec.outputs.items():
        column = values.arrays[name]
        if len(column) != count:
            return f"the output {name} has {len(column)} rows for {count} samples"
        if fault := output.fault(column[0]):
            return f"the output {name} {fault}"
    return None


def _unchanged(outputs: Any) -> Any:
    return outputs


def _on_columns(function: Callable[..., Mapping[str, Any]]) -> Callable[[Columns], Columns]:
    """Call the function with arrays: once for each shape, if the samples have different ones."""

    def run(outputs: Columns) -> Columns:
        rows = outputs.of_equal_shapes()
        if len(rows) <= 1:
            return Columns(function(outputs.arrays))
        joined = rejoined([Columns(function(outputs.take(group).arrays)) for group in rows], rows)
        assert isinstance(joined, Columns)
        return joined

    return run


def _described_by_shape(function: Callable[..., Sequence[Prediction]]) -> Callable[[Columns], Sequence[Prediction]]:
    """Call the function as `_on_columns` does."""

    def run(values: Columns) -> Sequence[Prediction]:
        rows = values.of_equal_shapes()
        if len(rows) <= 1:
            return function(values.arrays)
        found: dict[int, Prediction] = {}
        for group in rows:
            found.update(zip(group, function(values.take(group).arrays), strict=True))
        return [found[row] for row in range(len(values))]

    return run
