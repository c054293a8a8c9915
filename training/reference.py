"""Measure the statistics that a spec's check compares entries with, on the training split."""

import logging
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
from torch import Tensor

from models.reference import Range, Reference, widened
from models.spec import Array, ModelSpec

log = logging.getLogger(__name__)
_NO_REFERENCE = (
    "no reference statistics: the training samples are not entries in another shape; the spec's bounds apply"
)
_COMPARED = 64  # samples
PART = 16_384  # samples that are measured at once if they are streamed


def measure(model: str, spec: ModelSpec, samples: Any) -> Mapping[str, Any]:
    """Return the reference of a version that was fitted to `samples` (N, ...): the range of each statistic, by name.

    Samples are a tensor, or are split into tensors. See `measure_parts`.
    """
    parts = [samples] if isinstance(samples, Tensor) else samples.split(PART)
    return measure_parts(model, spec, (part.detach().cpu().numpy() for part in parts))


def measure_parts(model: str, spec: ModelSpec, parts: Iterable[Array]) -> Mapping[str, Any]:
    """Return the reference of samples that come in parts (N, ...), at least one each.

    It is empty if the spec's check has no statistics, and if the entries cannot be recovered from the samples.
    """
    if not isinstance(spec.check, Reference):
        return {}
    found: Mapping[str, Range] | None = None
    for part in parts:
        entries = _entries(spec, part)
        if entries is None:
            log.warning(_NO_REFERENCE, extra={"model": model})
            return {}
        ranges = spec.check.measured(entries)
        found = ranges if found is None else widened(found, ranges)
    return found or {}


def _entries(spec: ModelSpec, given: Array) -> Array | None:
    """Undo `preprocess` by reshaping; None if `preprocess` does more than that."""
    if given[0].size != int(np.prod(spec.tensor.shape)):
        return None
    entries = given.reshape(len(given), *spec.tensor.shape).astype(spec.tensor.dtype, copy=False)
    again = spec.preprocess(entries[:_COMPARED])
    return entries if np.array_equal(again, given[:_COMPARED]) else None
