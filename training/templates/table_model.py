"""The model NAME: a row of a table in, a label out."""

import math
from collections.abc import Sequence

from typing_extensions import TypedDict

# isort: split
from models.outputs import probabilities
from models.signature import Category, Number
from models.spec import Array, ModelSpec, Prediction, by_name

CARRIERS = ("road", "rail", "air")
LABELS = ("in time", "late")


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
    summary="whether a parcel comes late",
    network=by_name("training.templates.table_network:Network"),
    inputs={
        "carrier": Category(CARRIERS),
        "weight": Number(0, 50),  # kg
        "distance": Number(0, 3_000, default=math.nan),  # km; may be missing
    },
    postprocess=probabilities,
    describe=describe,
    prediction=Answer,
    example=[
        {"carrier": "air", "weight": 0.5, "distance": 900},
        {"carrier": "road", "weight": 30, "distance": None},
    ],
)
