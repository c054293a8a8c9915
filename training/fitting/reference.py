"""Measure the statistics that a spec's check compares entries with, on the training split."""

import logging
from collections.abc import Mapping
from typing import Any

import numpy as np
from torch import Tensor

from models.reference import Reference
from models.spec import Array, ModelSpec

log = logging.getLogger(__name__)
_COMPARED = 64  # samples


def measure(model: str, spec: ModelSpec, samples: Tensor) -> Mapping[str, Any]:
    """Return the reference of a version that was fitted to `samples` (N, ...): the range of each statistic, by name.

    It is empty if the spec's check has no statistics, and if the entries cannot be recovered from the samples.
    """
    if not isinstance(spec.check, Reference):
        return {}
    entries = _entries(spec, samples)
    if entries is None:
        log.warning(
            "no reference statistics: the training samples are not entries in another shape; the spec's bounds apply",
            extra={"model": model},
        )
        return {}
    return spec.check.measured(entries)


def _entries(spec: ModelSpec, samples: Tensor) -> Array | None:
    """Undo `preprocess` by reshaping; None if `preprocess` does more than that."""
    given: Array = samples.detach().cpu().numpy()
    if given[0].size != int(np.prod(spec.tensor.shape)):
        return None
    entries = given.reshape(len(given), *spec.tensor.shape).astype(spec.tensor.dtype, copy=False)
    again = spec.preprocess(entries[:_COMPARED])
    return entries if np.array_equal(again, given[:_COMPARED]) else None
