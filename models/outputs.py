"""Postprocessing: convert network outputs to the values and predictions of a response."""

from collections.abc import Sequence

import numpy as np
from typing_extensions import TypedDict  # pydantic cannot read typing.TypedDict before Python 3.12

from models.spec import Array, Method, Prediction


class Value(TypedDict):
    """A regressor's prediction for one sample."""

    value: float


class Classification(TypedDict):
    """A classifier's prediction for one sample; `probabilities` has one number per class and sums to 1."""

    label: int
    probability: float
    probabilities: list[float]


def values(outputs: Array) -> Array:
    """Return outputs (N, 1) unchanged, as float32."""
    return outputs.astype(np.float32, copy=False)


def probabilities(logits: Array) -> Array:
    """Softmax: logits (N, classes) -> probabilities float32 (N, classes). Shifted so that it cannot overflow."""
    shifted = np.exp(logits - logits.max(axis=1, keepdims=True), dtype=np.float32)
    normalised: Array = shifted / shifted.sum(axis=1, keepdims=True)
    return normalised


def describe_values(rows: Array) -> Sequence[Prediction]:
    """Convert values (N, 1) to N of Value."""
    return [{"value": value} for value in rows[:, 0]]


def describe_classes(rows: Array) -> Sequence[Prediction]:
    """Convert probabilities (N, classes) to N of Classification."""
    labels = rows.argmax(axis=1).tolist()
    return [
        {"label": label, "probability": row[label], "probabilities": row}
        for label, row in zip(labels, rows, strict=True)
    ]


def saliency(attributions: Array, _: Method) -> dict[str, Array]:
    """Saliency map: the absolute attribution of each pixel, scaled so that the largest of a sample is 1 (N, ...)."""
    sizes = np.abs(attributions)
    largest = sizes.max(axis=tuple(range(1, sizes.ndim)), keepdims=True)
    return {"saliency": np.divide(sizes, largest, out=np.zeros_like(sizes), where=largest > 0)}
