"""Counted properties of answers: labels with their confidence, and numbers."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from models.artifacts import Artifacts
from models.drift.distribution import MOST_LABELS
from models.samples import Batch, Columns
from models.spec import ModelSpec

_MOST_NUMBERS = 8  # of one answer
_ROUNDING = 1e-3  # of the sum of probabilities
Array = NDArray[Any]


@dataclass(frozen=True, slots=True)
class Answers:
    """Measures of N answers, by name.

    codes       the most likely label of each, int64 (N,); -1 if it has none
    numbers     (N,)
    confidence  the probability of the first of these labels, (N,); None without labels
    """

    codes: Mapping[str, Array] = field(default_factory=dict)
    numbers: Mapping[str, Array] = field(default_factory=dict)
    confidence: Array | None = None


def measured(values: Batch, labelled: Mapping[str, object] | None = None) -> Answers:
    """Measure the values of N answers.

    `labelled` has the names of those that are probabilities of labels; None: the values themselves tell.
    """
    codes: dict[str, Array] = {}
    numbers: dict[str, Array] = {}
    confidence = None
    for name, rows in _columns(values):
        is_label = _sums_to_one(rows) if labelled is None else (name or "label") in labelled and rows.ndim == 2
        if is_label:
            finite = np.isfinite(rows).all(axis=1)
            codes[name or "label"] = np.where(finite, rows.argmax(axis=1), -1)
            confidence = np.where(finite, rows.max(axis=1), np.nan) if confidence is None else confidence
        else:
            numbers |= _numbers(name or "value", rows)
    return Answers(codes, numbers, confidence)


def names_of(spec: ModelSpec, name: str, count: int, artifacts: Artifacts) -> Sequence[object]:
    """Return the names of an answer's labels."""
    declared = spec.outputs[name].labels if name in spec.outputs else artifacts.get("labels", ())
    return declared if len(declared) == count else list(range(count))


def label_counts(values: Batch) -> Mapping[str, int]:
    """Return how many labels each answer has that is one of them, by name."""
    return {name or "label": rows.shape[1] for name, rows in _columns(values) if _sums_to_one(rows)}


def _columns(values: Batch) -> list[tuple[str, Array]]:
    """Return the answers with a fixed number of numbers; the name of an only one is empty."""
    if not isinstance(values, Columns):
        return [("", values)]
    return [(name, column) for name, column in values.arrays.items() if not isinstance(column, list)]


def _sums_to_one(rows: Array) -> bool:
    if rows.ndim != 2 or not 2 <= rows.shape[1] <= MOST_LABELS or rows.dtype.kind != "f":
        return False
    finite = rows[np.isfinite(rows).all(axis=1)]
    return len(finite) > 0 and bool((finite >= 0).all() and (np.abs(finite.sum(axis=1) - 1) < _ROUNDING).all())


def _numbers(name: str, rows: Array) -> dict[str, Array]:
    if rows.dtype.kind not in "fiub":
        return {}
    if rows.ndim == 1 or (rows.ndim == 2 and rows.shape[1] == 1):
        return {name: rows.reshape(len(rows))}
    if rows.ndim == 2 and rows.shape[1] <= _MOST_NUMBERS:
        return {f"{name} {place}": rows[:, place] for place in range(rows.shape[1])}
    return {}
