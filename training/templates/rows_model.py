"""The model NAME: a row of numbers in, a label out."""

from collections.abc import Sequence
from functools import partial

import numpy as np
from typing_extensions import TypedDict

# isort: split
from models.outputs import probabilities
from models.spec import Array, Entry, ModelSpec, Prediction, by_name

COLUMNS = ("length", "width", "height")  # of a box, in cm
LABELS = ("small", "large")


class Answer(TypedDict):
    """The prediction for one row."""

    label: str
    probability: float


def answer(row: Array) -> Prediction:
    """Turn the probabilities (labels,) of one row into an Answer."""
    label = int(row.argmax())
    return {"label": LABELS[label], "probability": row[label]}


def describe(rows: Array) -> Sequence[Prediction]:
    """Turn probabilities (N, labels) into N of Answer."""
    return [answer(row) for row in rows]


SPEC = ModelSpec(
    summary=f"a label by {', '.join(COLUMNS)}",
    network=partial(
        by_name("models.networks:Perceptron"),
        features=len(COLUMNS),
        outputs=len(LABELS),
    ),
    entry=Entry(shape=(len(COLUMNS),), dtype=np.dtype(np.float32), low=0, high=100),
    postprocess=probabilities,
    describe=describe,
    prediction=Answer,
    example=np.array([[2, 3, 1], [9, 8, 9]], dtype=np.float32),
)
