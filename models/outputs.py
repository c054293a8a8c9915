"""What networks put out -> the numbers and words of an answer."""

from collections.abc import Sequence

import numpy as np
from typing_extensions import TypedDict  # pydantic cannot read typing.TypedDict before Python 3.12

from models.spec import Array, Method, Prediction


class Value(TypedDict):
    """A regressor's answer for one sample."""

    value: float


class Classification(TypedDict):
    """A classifier's answer for one sample; `probabilities` has one number a class and sums to 1."""

    label: int
    probability: float
    probabilities: list[float]


def values(outputs: Array) -> Array:
    """Outputs (N, 1) as they are, float32."""
    return outputs.astype(np.float32, copy=False)


def probabilities(logits: Array) -> Array:
    """Logits (N, classes) -> probabilities (N, classes), float32: softmax, shifted so that it cannot overflow."""
    shifted = np.exp(logits - logits.max(axis=1, keepdims=True), dtype=np.float32)
    normalised: Array = shifted / shifted.sum(axis=1, keepdims=True)
    return normalised


def describe_values(rows: Array) -> Sequence[Prediction]:
    """(N, 1) -> N of Value."""
    return [{"value": value} for value in rows[:, 0]]


def describe_classes(rows: Array) -> Sequence[Prediction]:
    """Probabilities (N, classes) -> N of Classification."""
    labels = rows.argmax(axis=1).tolist()
    return [
        {"label": label, "probability": row[label], "probabilities": row}
        for label, row in zip(labels, rows, strict=True)
    ]


def saliency(attributions: Array, _: Method) -> dict[str, Array]:
    """How much each pixel counts, whatever its direction: (N, ...) in 0..1, 1 for the pixel that counts most."""
    sizes = np.abs(attributions)
    largest = sizes.max(axis=tuple(range(1, sizes.ndim)), keepdims=True)
    return {"saliency": np.divide(sizes, largest, out=np.zeros_like(sizes), where=largest > 0)}
