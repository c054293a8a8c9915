"""Run the whole path of a prediction on a spec's example, before a network goes live."""

import io
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from traceback import walk_tb
from types import MappingProxyType

import numpy as np

from models.artifacts import Artifacts
from models.coding import Coder, example_samples
from models.errors import CheckpointError, in_one_line
from models.outputs import description, postprocessing
from models.predictions import predictions_fault, rows_fault, values_fault
from models.samples import Batch, all_finite, resized
from models.spec import ModelSpec
from service.inference.backends.backend import Run
from service.inference.independence import require_independent

_SIZES = (1, 3)  # samples in a batch
_INSTALLED = {"site-packages", "dist-packages"}


def rehearse(
    model: str, spec: ModelSpec, run: Run, artifacts: Artifacts = MappingProxyType({}), coder: Coder | None = None
) -> None:
    """Preprocess, forward, postprocess, describe and serialise the example, as a batch of one and of three samples.

    Named inputs are encoded by `coder`; samples of several lengths must have the same answers alone and in company.
    Raises CheckpointError, with the step that failed and the line of the model's code.
    """
    widths = {_rehearsed(model, spec, run, artifacts, coder, size) for size in _SIZES}
    if len(widths) > 1:
        raise _fault(model, f"postprocess returns {' and '.join(map(str, sorted(widths)))} values for a sample")
    if spec.padding and coder is not None:
        require_independent(model, spec, run, coder)


def _rehearsed(model: str, spec: ModelSpec, run: Run, artifacts: Artifacts, coder: Coder | None, size: int) -> int:
    """Return how many values a sample has; 0 if they are named."""
    samples = _samples(model, spec, coder, size)
    with _step(model, "the network"):
        outputs = run(samples)
    _require(model, rows_fault("the network", outputs, size))
    with _step(model, "postprocess"):
        values = postprocessing(spec, artifacts)(outputs)
    _require(model, values_fault(spec, values, size))
    if not all_finite(values):
        raise _fault(model, "the answer to the example is NaN or infinity")
    with _step(model, "describe"):
        predictions = list(description(spec, artifacts)(values))
    with _step(model, "prediction, the TypedDict,"):
        fault = predictions_fault(spec, predictions, size)
    _require(model, fault)
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
    _require(model, rows_fault("preprocess", samples, size))
    return samples


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


def _require(model: str, fault: str | None) -> None:
    if fault:
        raise _fault(model, fault)


def _fault(model: str, reason: str) -> CheckpointError:
    return CheckpointError(f"{model} fails on the example of models/{model}.py: {reason}")
