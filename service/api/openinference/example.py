"""The example of a model as infer requests, for the check that /v2 carries it. The inverse of `codec` and `rows`."""

from base64 import b64encode
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import orjson

from models.coding import picture_file
from models.signature import Input, Number, Picture, is_missing
from models.spec import Array, ModelSpec
from service.api.openinference.signature import INPUT, accepted
from service.api.openinference.tensors import BYTES, DATATYPES, TensorType, elements, to_bytes
from service.api.signatures import example_body

_Sent = Mapping[str, Array]  # by input: (N, ...); BYTES are an array of bytes objects, of pictures those of the file


def requests(spec: ModelSpec) -> Iterator[tuple[list[int], bytes, str | None]]:
    """Yield positions of samples of the example, a body with them, and its Inference-Header-Content-Length, if binary.

    Each sample is there in JSON and in binary. Only samples of equal shapes share a request; optional tensors without a
    value are left out. A sample of which nothing is left is not there, nor is FP16 in JSON, which has no form of it.
    """
    forms = {name: kinds[0] for name, kinds in accepted(spec).items()}
    for rows, tensors in _groups(spec, forms):
        binary = {name: to_bytes(array) for name, array in tensors.items()}
        head = [
            {**_described(forms[name], tensors[name]), "parameters": {"binary_data_size": len(data)}}
            for name, data in binary.items()
        ]
        start = orjson.dumps({"inputs": head})
        yield rows, start + b"".join(binary.values()), str(len(start))
        if all(forms[name].datatype != "FP16" for name in tensors):
            items = [
                {**_described(forms[name], array), "data": _data(array, spec.inputs.get(name))}
                for name, array in tensors.items()
            ]
            yield rows, orjson.dumps({"inputs": items}), None


def _groups(spec: ModelSpec, forms: Mapping[str, TensorType]) -> Iterator[tuple[list[int], _Sent]]:
    if not spec.inputs:
        yield list(range(len(spec.example))), {INPUT: spec.example}
        return
    groups: dict[tuple[Any, ...], list[tuple[int, _Sent]]] = {}
    for row, sample in enumerate(example_body(spec)["inputs"]):
        values = {next(iter(spec.inputs)): sample} if isinstance(sample, str) else sample
        sent = {name: _one(kind, values.get(name), forms[name]) for name, kind in spec.inputs.items()}
        present = {name: array for name, array in sent.items() if array is not None}
        if present:
            shapes = tuple((name, array.shape) for name, array in present.items())
            groups.setdefault(shapes, []).append((row, present))
    for group in groups.values():
        names = group[0][1]
        yield [row for row, _ in group], {name: np.concatenate([one[name] for _, one in group]) for name in names}


def _one(kind: Input, value: Any, form: TensorType) -> Array | None:
    """Return the tensor (1, ...) of one value of JSON; None if it can only be left out."""
    if form.datatype == BYTES:
        if is_missing(value):
            return elements([b""])
        return elements([picture_file(value) if isinstance(kind, Picture) else str(value).encode()])
    if is_missing(value) and not isinstance(kind, Number):
        return None
    return np.asarray([np.nan if is_missing(value) else value], DATATYPES[form.datatype])


def _described(form: TensorType, array: Array) -> dict[str, Any]:
    return {"name": form.name, "datatype": form.datatype, "shape": array.shape}


def _data(array: Array, kind: Input | None) -> list[Any]:
    """Return the data of a tensor in JSON: pictures as base64, NaN as null."""
    if array.dtype == object:
        return [(b64encode(item) if isinstance(kind, Picture) else item).decode() for item in array]
    flat: list[Any] = array.reshape(-1).tolist()
    return [None if isinstance(item, float) and np.isnan(item) else item for item in flat]
