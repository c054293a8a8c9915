"""Whether two versions answer the same samples alike."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import orjson

from models.samples import Batch, Column, Columns
from models.spec import Array, ModelSpec, Prediction

_LABEL = "label"
_ROUNDING = 1e-6  # of a number: the same network gives other last digits in a batch of another size
_LARGEST = 16_384  # bytes of JSON of one prediction that is kept as an example

Describe = Callable[[Any], Sequence[Prediction]]


@dataclass(frozen=True)
class Answers:
    """Values of N samples from one version, and its function that describes them."""

    values: Batch
    describe: Describe

    @cached_property
    def predictions(self) -> Sequence[Prediction]:
        """The N predictions. Raises what `describe` does."""
        return self.describe(self.values)


def has_label(spec: ModelSpec) -> bool:
    """Whether a prediction of the model names a label."""
    fields = spec.outputs if spec.prediction is None else spec.prediction.__annotations__
    return _LABEL in fields


def alike(spec: ModelSpec, live: Answers, candidate: Answers, tolerance: float) -> list[bool]:
    """Return for each of N samples whether both versions answer it alike: with the same label, or, if predictions have
    none, with numbers that differ by at most `tolerance`, or by a millionth of live's.

    Raises what describing labels does.
    """
    if has_label(spec):
        pairs = zip(live.predictions, candidate.predictions, strict=True)
        return [_same(ours.get(_LABEL), theirs.get(_LABEL)) for ours, theirs in pairs]
    ours, theirs = _columns(live.values), _columns(candidate.values)
    near = np.full(len(live.values), ours.keys() == theirs.keys())
    for name in ours.keys() & theirs.keys():
        near &= _near(ours[name], theirs[name], tolerance)
    found: list[bool] = near.tolist()
    return found


def example(prediction: Prediction) -> Any:
    """Return a prediction as JSON values; of a large one, only its size."""
    content = orjson.dumps(prediction, option=orjson.OPT_SERIALIZE_NUMPY)
    return orjson.loads(content) if len(content) <= _LARGEST else {"bytes": len(content)}


def _columns(values: Batch) -> Mapping[str, Column]:
    return values.arrays if isinstance(values, Columns) else {"": values}


def _same(ours: Any, theirs: Any) -> bool:
    return ours == theirs if isinstance(ours, int | str) else bool(np.array_equal(ours, theirs))


def _near(ours: Column, theirs: Column, tolerance: float) -> Array:
    """Compare the values of N samples, bool (N,)."""
    if isinstance(ours, list) or isinstance(theirs, list) or ours.shape != theirs.shape:
        pairs = zip(ours, theirs, strict=True)
        return np.array([one.shape == other.shape and _close(one, other, tolerance).all() for one, other in pairs])
    return np.asarray(_close(ours, theirs, tolerance).reshape(len(ours), -1).all(axis=1))


def _close(ours: Array, theirs: Array, tolerance: float) -> Array:
    if ours.dtype.kind not in "fiu":
        return np.asarray(ours == theirs)
    return np.asarray(np.isclose(theirs, ours, rtol=_ROUNDING, atol=tolerance, equal_nan=True))
