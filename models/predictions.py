"""Checks of the end of a model's path, `postprocess` and `describe`: for promotions and for the contract checks."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import orjson
from pydantic import TypeAdapter, ValidationError

from models.errors import in_one_line
from models.outputs import output_fault
from models.samples import Columns
from models.spec import ModelSpec


def rows_fault(step: str, array: object, count: int) -> str | None:
    """Return why the arrays that a step returned for a batch of `count` samples have not a row for each; None if so."""
    if isinstance(array, Columns):
        named = [(name, column) for name, column in array.arrays.items() if not isinstance(column, list)]
        faults = (rows_fault(f"{step}, under {name},", column, count) for name, column in named)
        return next((fault for fault in faults if fault), None)
    if not isinstance(array, np.ndarray):
        return f"{step} returns {type(array).__name__}, not an array"
    if array.ndim == 0 or len(array) != count:
        return f"{step} returns {array.dtype.name} {array.shape} for a batch of {count}"
    return None


def values_fault(spec: ModelSpec, values: Any, count: int) -> str | None:
    """Return why the values of `count` samples are not what a spec's `postprocess` must return; None if they are."""
    if fault := output_fault(spec, values, count) or rows_fault("postprocess", values, count):
        return fault
    if not spec.outputs and (values.ndim != 2 or values.dtype != np.float32):
        form = f"{values.dtype.name} {values.shape}"
        return f"postprocess returns {form}; it must return float32 (N, k), here ({count}, k)"
    return None


def predictions_fault(spec: ModelSpec, predictions: Sequence[Any], count: int) -> str | None:
    """Return why the predictions of `count` samples are not what a spec's `describe` must return; None if they are.

    There is one for each sample, JSON can hold it, and it has the fields of `prediction`. Whole numbers are integers.
    """
    if len(predictions) != count:
        return f"describe returns {len(predictions)} predictions for {count} samples"
    if not all(isinstance(prediction, Mapping) for prediction in predictions):
        return f"describe returns {type(predictions[0]).__name__} for a sample; it must be a dict"
    try:
        sent = orjson.loads(orjson.dumps(predictions, option=orjson.OPT_SERIALIZE_NUMPY))
    except TypeError as err:
        return f"JSON cannot hold the predictions of describe: {in_one_line(err)}"
    return None if spec.prediction is None else _fields_fault(spec.prediction, sent)


def _fields_fault(declared: type, predictions: Sequence[Any]) -> str | None:
    """Return why predictions have not the fields of the declared TypedDict; None if they have."""
    adapter: TypeAdapter[Any] = TypeAdapter(declared)
    known, name = adapter.json_schema().get("properties", {}), declared.__name__
    for prediction in predictions:
        try:
            adapter.validate_json(orjson.dumps(_with_integers(prediction)), strict=True)
        except ValidationError as err:
            first = err.errors()[0]
            return f"describe does not return {name}: {'.'.join(map(str, first['loc']))}: {first['msg']}"
        if unknown := sorted(prediction.keys() - known.keys()):
            return f"{name} has no {', '.join(unknown)}, which describe returns"
    return None


def _with_integers(value: Any) -> Any:
    """Return JSON with whole numbers as integers, which stand for floats, too."""
    if isinstance(value, dict):
        return {key: _with_integers(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_with_integers(item) for item in value]
    return int(value) if isinstance(value, float) and value.is_integer() and abs(value) < 2**53 else value
