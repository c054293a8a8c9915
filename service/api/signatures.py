"""The signature of a model in GET /models and in the API documentation: inputs, outputs, schemas, an example body."""

import base64
import io
from typing import Any

import numpy as np
import orjson
from PIL.Image import Image, fromarray
from pydantic import TypeAdapter

from models.entries import MAX_SAMPLES
from models.signature import Input, Picture, Text, is_required, jsonable
from models.spec import Array, ModelSpec
from service.api.schemas import InputInfo, OutputInfo, SignatureInfo

MOST_LISTED = 100  # categories of an input, or labels of an output, in descriptions of all models
_SMALL_EXAMPLE = 1024  # numbers
_SMALL_BODY = 8192  # bytes of an example of named inputs
_COLOURS = 3
_ONE_TENSOR, _VALUES = "input", "output"  # the names in /v2, too


def signature(spec: ModelSpec) -> SignatureInfo:
    """Return the named, typed inputs and outputs of a model; a one-tensor model has one of each."""
    if spec.inputs:
        inputs = [
            InputInfo(
                name=name,
                kind=kind.kind,
                required=is_required(kind),
                default=None if is_required(kind) else jsonable(kind.default),
                **kind.described(),
            )
            for name, kind in spec.inputs.items()
        ]
    else:
        inputs = [_one_tensor(spec)]
    outputs = [OutputInfo(name=name, **output.described()) for name, output in spec.outputs.items()]
    return SignatureInfo(
        inputs=inputs,
        outputs=outputs or [OutputInfo(name=_VALUES, dtype="float32", shape=[None], labels=None, picture=False)],
    )


def _one_tensor(spec: ModelSpec) -> InputInfo:
    return InputInfo(
        name=_ONE_TENSOR,
        kind="picture" if spec.picture else "tensor",
        required=True,
        low=spec.tensor.low,
        high=spec.tensor.high,
        shape=list(spec.tensor.shape),
        dtype=spec.tensor.dtype.name,
    )


def body_schema(spec: ModelSpec) -> dict[str, Any]:
    """Return the JSON schema of a model's application/json body."""
    inputs = {"type": "array", "items": _sample_schema(spec), "minItems": 1, "maxItems": MAX_SAMPLES}
    return {"type": "object", "required": ["inputs"], "properties": {"inputs": inputs}, "additionalProperties": False}


def without_long_lists(schema: dict[str, Any]) -> dict[str, Any]:
    """Return a JSON schema in which more than MOST_LISTED categories are described and not listed."""
    values = schema.get("enum", [])
    if len(values) > MOST_LISTED:
        said = f"one of {len(values)} values; GET /models/{{model}} lists them"
        return {"type": "string" if isinstance(values[0], str) else "integer", "description": said}
    return {key: _without_long_lists(value) for key, value in schema.items()}


def _without_long_lists(value: Any) -> Any:
    if isinstance(value, list):
        return [_without_long_lists(item) for item in value] if any(isinstance(item, dict) for item in value) else value
    return without_long_lists(value) if isinstance(value, dict) else value


def _sample_schema(spec: ModelSpec) -> dict[str, Any]:
    if not spec.inputs:
        return spec.tensor.json_schema()
    schema = {
        "type": "object",
        "required": [name for name, kind in spec.inputs.items() if is_required(kind)],
        "properties": {name: value_schema(kind) for name, kind in spec.inputs.items()},
        "additionalProperties": False,
    }
    (first, *others) = spec.inputs.values()
    return {"anyOf": [first.json_schema(), schema]} if isinstance(first, Text) and not others else schema


def value_schema(kind: Input) -> dict[str, Any]:
    """Return the JSON schema of an input's value, with null and the default if it is optional."""
    schema = kind.json_schema()
    if is_required(kind):
        return schema
    default = jsonable(kind.default)
    return {"anyOf": [schema, {"type": "null"}], **({"default": default} if default is not None else {})}


def example_body(spec: ModelSpec) -> dict[str, Any]:
    """Return the spec's example as an application/json body: pictures in base64."""
    if not spec.inputs:
        return {"inputs": spec.example.tolist()}
    return {
        "inputs": [
            sample
            if isinstance(sample, str)
            else {name: _example_value(spec.inputs[name], value) for name, value in sample.items()}
            for sample in spec.example
        ]
    }


def small_example(spec: ModelSpec) -> dict[str, Any] | None:
    """Return `example_body` if it is small; None if it has an address of its own only: GET /models/{model}/example."""
    if not spec.inputs and spec.example.size > _SMALL_EXAMPLE:
        return None
    body = example_body(spec)
    return body if not spec.inputs or len(orjson.dumps(body)) <= _SMALL_BODY else None


def _drawn(array: Array) -> Image:
    """Return a picture for an array that the input's `read` may have made: (..., height, width) or with colours.

    Numbers other than 0..255 are scaled to them, so the picture is a valid one, but not always the same.
    """
    shades = array.astype(np.float64)
    if array.dtype != np.uint8:
        low, high = float(shades.min(initial=0)), float(shades.max(initial=1))
        shades = (shades - low) * (255 / (high - low))
    if shades.ndim > 2 and shades.shape[-1] != _COLOURS:
        shades = np.moveaxis(shades, 0, -1)
    if shades.ndim > 2 and shades.shape[-1] != _COLOURS:
        shades = shades[..., 0]
    return fromarray(shades.astype(np.uint8))


def _example_value(kind: Input, value: Any) -> Any:
    if isinstance(value, bytes):
        return base64.b64encode(value).decode()
    if isinstance(kind, Picture) and isinstance(value, np.ndarray):
        value = _drawn(value)
    if isinstance(value, Image):
        file = io.BytesIO()
        value.save(file, "PNG")
        return base64.b64encode(file.getvalue()).decode()
    return value.item() if isinstance(value, np.generic) else jsonable(value)


def prediction_schema(spec: ModelSpec) -> dict[str, Any]:
    """Return the JSON schema of one prediction."""
    if spec.prediction is not None:
        try:
            return TypeAdapter(spec.prediction).json_schema()
        except Exception:  # noqa: BLE001 - a model author's class: loading a version says what is wrong with it
            return {"type": "object", "properties": {}}
    return {
        "type": "object",
        "required": list(spec.outputs),
        "properties": {name: output.json_schema() for name, output in spec.outputs.items()},
    }
