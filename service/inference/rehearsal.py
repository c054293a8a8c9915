"""Run the whole path of a prediction on a spec's example, before a network goes live."""

import io
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from traceback import walk_tb
from types import MappingProxyType
from typing import Any

import numpy as np
import orjson
from pydantic import TypeAdapter, ValidationError

from models.artifacts import Artifacts
from models.coding import Coder, example_samples
from models.errors import CheckpointError, in_one_line
from models.outputs import description, output_fault, postprocessing
from models.samples import Batch, Columns, all_finite, resized
from models.spec import Array, ModelSpec
from service.inference.backends.backend import Run

_SIZES = (1, 3)  # samples in a batch
_INSTALLED = {"site-packages", "dist-packages"}


def rehearse(
    model: str, spec: ModelSpec, run: Run, artifacts: Artifacts = MappingProxyType({}), coder: Coder | None = None
) -> None:
    """Preprocess, forward, postprocess, describe and serialise the example, as a batch of one and of three samples.

    Named inputs are encoded by `coder`. Raises CheckpointError, with the step that failed and the line of the model's
    code.
    """
    widths = {_rehearsed(model, spec, run, artifacts, coder, size) for size in _SIZES}
    if len(widths) > 1:
        raise _fault(model, f"postprocess returns {' and '.join(map(str, sorted(widths)))} values for a sample")


def _rehearsed(model: str, spec: ModelSpec, run: Run, artifacts: Artifacts, coder: Coder | None, size: int) -> int:
    """Return how many values a sample has; 0 if they are named."""
    samples = _samples(model, spec, coder, size)
    with _step(model, "the network"):
        outputs = run(samples)
    _require_rows(model, "the network", outputs, size)
    with _step(model, "postprocess"):
        values = postprocessing(spec, artifacts)(outputs)
    if fault := output_fault(spec, values, size):
        raise _fault(model, fault)
    _require_rows(model, "postprocess", values, size)
    if not spec.outputs and (values.ndim != 2 or values.dtype != np.float32):
        raise _fault(model, f"postprocess returns {_form(values)}; it must return float32 (N, k), here ({size}, k)")
    if not all_finite(values):
        raise _fault(model, "the answer to the example is NaN or infinity")
    with _step(model, "describe"):
        predictions = list(description(spec, artifacts)(values))
    _require_predictions(model, spec, predictions, size)
    if spec.outputs:
        return 0
    np.save(io.BytesIO(), np.ascontiguousarray(values), allow_pickle=False)
    width: int = values.shape[1]
    return width


def _samples(model: str, spec: ModelSpec, coder: Coder | None, size: int) -> Batch:
    if coder is not None:
        with _step(model, "encode"):
            return resized(example_samples(spec, coder), size)
    entries = np.ascontiguousarray(np.resize(spec.example, (size, *spec.example.shape[1:])))
    with _step(model, "preprocess"):
        samples = spec.preprocess(entries)
    _require_rows(model, "preprocess", samples, size)
    return samples


def _require_predictions(model: str, spec: ModelSpec, predictions: Sequence[Any], size: int) -> None:
    """Raise CheckpointError unless there is one prediction for each sample, as JSON, of the declared type."""
    if len(predictions) != size:
        raise _fault(model, f"describe returns {len(predictions)} predictions for {size} samples")
    if not all(isinstance(prediction, Mapping) for prediction in predictions):
        raise _fault(model, f"describe returns {type(predictions[0]).__name__} for a sample; it must be a dict")
    try:
        sent = orjson.loads(orjson.dumps(predictions, option=orjson.OPT_SERIALIZE_NUMPY))
    except TypeError as err:
        raise _fault(model, f"JSON cannot hold the predictions of describe: {in_one_line(err)}") from err
    if spec.prediction is None:
        return
    with _step(model, spec.prediction.__name__):
        adapter: TypeAdapter[Any] = TypeAdapter(spec.prediction)
        known = adapter.json_schema().get("properties", {})
    for prediction in sent:
        try:
            adapter.validate_python(prediction)
        except ValidationError as err:
            first = err.errors()[0]
            place = ".".join(map(str, first["loc"]))
            raise _fault(
                model, f"describe does not return {spec.prediction.__name__}: {place}: {first['msg']}"
            ) from err
        if unknown := sorted(prediction.keys() - known.keys()):
            raise _fault(model, f"{spec.prediction.__name__} has no {', '.join(unknown)}, which describe returns")


@contextmanager
def _step(model: str, step: str) -> Iterator[None]:
    """Turn whatever the step raises into a CheckpointError."""
    try:
        yield
    except CheckpointError:
        raise
    except Exception as err:  # the rollout's edge: a model author's code may raise anything
        name = type(err).__name__
        raise _fault(model, f"{step} raised {name}{_place(err)}: {in_one_line(err)}") from err


def _place(err: Exception) -> str:
    """Return the last file and line of the project's own code that an error came through."""
    frames = [(Path(frame.f_code.co_filename), line) for frame, line in walk_tb(err.__traceback__)]
    own = [(path, line) for path, line in frames[1:] if not _INSTALLED & set(path.parts) and path.is_file()]
    return f" in {'/'.join(own[-1][0].parts[-2:])}, line {own[-1][1]}" if own else ""


def _require_rows(model: str, step: str, array: object, size: int) -> None:
    if isinstance(array, Columns):
        for name, column in array.arrays.items():
            if not isinstance(column, list):
                _require_rows(model, f"{step}, under {name},", column, size)
        return
    if not isinstance(array, np.ndarray):
        raise _fault(model, f"{step} returns {type(array).__name__}, not an array")
    if array.ndim == 0 or len(array) != size:
        raise _fault(model, f"{step} returns {_form(array)} for a batch of {size}")


def _form(array: Array) -> str:
    return f"{array.dtype.name} {array.shape}"


def _fault(model: str, reason: str) -> CheckpointError:
    return CheckpointError(f"{model} fails on the example of models/{model}.py: {reason}")
