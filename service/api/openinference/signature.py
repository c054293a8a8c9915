"""Tensors, metadata and configuration of a model in the Open Inference Protocol, derived from its spec."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from models.pictures import PICTURE_FORMATS
from models.signature import Category, Input, Number, Picture, Tensor, Text, is_required, jsonable, listed
from models.spec import ModelSpec
from service.api.openinference.codec import Accepted
from service.api.openinference.tensors import BYTES, TensorType, datatype_of

INPUT = "input"
OUTPUT = "output"
PLATFORM = "pytorch_state_dict"
_FORMATS = ", ".join(PICTURE_FORMATS.values())


def accepted(spec: ModelSpec) -> Accepted:
    """Return the inputs and their forms, the declared one first.

    One tensor: an array of entries, and encoded pictures if the model accepts pictures. Named inputs: one tensor each.
    A tensor of FP32 is also accepted as FP64, NumPy's and pandas' own type; it is converted.
    """
    if spec.inputs:
        return {name: _forms(name, kind) for name, kind in spec.inputs.items()}
    forms = _arrays(INPUT, spec.tensor.dtype, spec.tensor.shape)
    return {INPUT: [*forms, TensorType(INPUT, BYTES, (-1,))] if spec.picture else forms}


def outputs(spec: ModelSpec, width: int = -1) -> list[TensorType]:
    """Return the outputs; `width` is k of the values (N, k) of a model that names no outputs."""
    named = [
        TensorType(name, datatype_of(np.dtype(output.dtype)), _batch_of(output.shape))
        for name, output in spec.outputs.items()
    ]
    return named or [TensorType(OUTPUT, "FP32", (-1, width))]


def metadata(name: str, spec: ModelSpec, versions: Sequence[int], width: int) -> dict[str, Any]:
    """Return the body of GET /v2/models/{model}; see `outputs` for `width`."""
    properties = {"summary": spec.summary}
    if spec.picture:
        properties[INPUT] = f"also {BYTES} [-1]: encoded pictures ({_FORMATS}); in JSON each as base64"
    return {
        "name": name,
        "versions": [str(version) for version in versions],
        "platform": PLATFORM,
        "properties": properties,
        "inputs": [_described(forms[0], _words(forms, spec)) for forms in accepted(spec).values()],
        "outputs": [_described(kind, _labels(kind, spec)) for kind in outputs(spec, width)],
    }


def configuration(name: str, spec: ModelSpec, width: int, max_batch: int) -> dict[str, Any]:
    """Return the body of GET /v2/models/{model}/config; its shapes omit the batch dimension."""
    return {
        "name": name,
        "platform": PLATFORM,
        "backend": "pytorch",
        "max_batch_size": max_batch,
        "dynamic_batching": {},
        "input": [_configured(forms[0]) for forms in accepted(spec).values()],
        "output": [_configured(kind) for kind in outputs(spec, width)],
    }


def _forms(name: str, kind: Input) -> list[TensorType]:
    optional = not is_required(kind)
    as_bytes = TensorType(name, BYTES, (-1,), optional)
    match kind:
        case Number():
            return _arrays(name, np.dtype(np.float32), (), optional=optional)
        case Category(values=values) if isinstance(values[0], int):
            dtype = np.dtype(np.bool_ if isinstance(values[0], bool) else np.int64)
            return [as_bytes, *_arrays(name, dtype, (), optional=optional)]
        case Category() | Text():
            return [as_bytes]
        case Picture(shape=shape, dtype=dtype):
            return [as_bytes, *_arrays(name, np.dtype(dtype), shape, optional=optional)]
        case Tensor(shape=shape, dtype=dtype):
            return _arrays(name, np.dtype(dtype), shape, optional=optional)


def _arrays(
    name: str, dtype: np.dtype[Any], shape: Sequence[int | None], *, optional: bool = False
) -> list[TensorType]:
    """Return the forms of arrays (N, *shape) of that dtype."""
    datatypes = [datatype_of(dtype), *(["FP64"] if dtype == np.float32 else [])]
    return [TensorType(name, datatype, _batch_of(shape), optional) for datatype in datatypes]


def _batch_of(shape: Sequence[int | None]) -> tuple[int, ...]:
    return (-1, *(-1 if size is None else size for size in shape))


def _described(kind: TensorType, parameters: Mapping[str, Any]) -> dict[str, Any]:
    described = {"name": kind.name, "datatype": kind.datatype, "shape": kind.shape}
    return {**described, **({"parameters": parameters} if parameters else {})}


def _words(forms: Sequence[TensorType], spec: ModelSpec) -> dict[str, Any]:
    """Return the parameters of a named input: a description, and its default if it may be left out."""
    name = forms[0].name
    if name not in spec.inputs:
        return {}
    kind = spec.inputs[name]
    others = "".join(f"; also {form}" for form in forms[1:])
    if is_required(kind):
        return {"description": f"{_taken(kind)}{others}"}
    default = jsonable(kind.default)
    empty = "an empty element" if forms[0].datatype == BYTES else "NaN" if isinstance(kind, Number) else ""
    omitted = f"; may be left out{f', and {empty} or null in JSON means the default' if empty else ''}"
    known = {"default": default} if isinstance(default, str | int | float) else {}
    return {"description": f"{_taken(kind)}{others}{omitted}", "optional": True, **known}


def _taken(kind: Input) -> str:
    """Say in words what one sample's value may be."""
    match kind:
        case Category(values=values):
            return f"one of {listed(values)}"
        case Text(max_chars=longest):
            return f"a text in UTF-8, of at most {longest} characters"
        case Picture():
            return f"encoded pictures ({_FORMATS}); in JSON each as base64"
        case Number(low=low, high=high):
            return f"numbers from {low:g} to {high:g}"
        case Tensor():
            low, high = kind.bounds()
            lengths = f"of {kind.shortest} to {kind.longest} elements, as many for all samples of a request"
            return f"numbers from {low:g} to {high:g}" + (f"; -1 is an axis {lengths}" if None in kind.shape else "")


def _labels(kind: TensorType, spec: ModelSpec) -> dict[str, Any]:
    """Return the parameters of an output: the names of its classes, if it has some."""
    labels = spec.outputs[kind.name].labels if spec.outputs else ()
    return {"labels": ", ".join(labels)} if labels else {}


def _configured(kind: TensorType) -> dict[str, Any]:
    datatype = "STRING" if kind.datatype == BYTES else kind.datatype
    described = {"name": kind.name, "data_type": f"TYPE_{datatype}", "dims": kind.shape[1:]}
    return {**described, **({"optional": True} if kind.optional else {})}
