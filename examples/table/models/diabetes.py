"""How diabetes goes on within a year, by a row of mixed columns, of which two may be missing."""

import math
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
from typing_extensions import TypedDict

from models.outputs import probabilities
from models.signature import Category, Number
from models.spec import Array, ModelSpec, Prediction, by_name

LABELS = ("slow", "fast")
NUMBERS = ("age", "bmi", "pressure", "sugar")


class Progress(TypedDict):
    """The prediction for one patient."""

    progress: str
    probability: float


def numbers_of(row: Mapping[str, Any]) -> Array:
    """Return the numbers of a row, float64 (4,); NaN for those that are missing."""
    return np.array([math.nan if row[name] is None else row[name] for name in NUMBERS])


def encode(sample: Mapping[str, Any], artifacts: Mapping[str, Any]) -> Mapping[str, Any]:
    """Scale the numbers by the statistics of the training data; a missing one is the mean, and is marked: (9,)."""
    numbers = numbers_of(sample)
    missing = np.isnan(numbers)
    scaled = (numbers - artifacts.get("mean", 0)) / artifacts.get("spread", 1)
    columns = [*np.where(missing, 0, scaled), *missing, sample["sex"] == "female"]
    return {"samples": np.array(columns, np.float32)}


def describe(rows: Array) -> Sequence[Prediction]:
    """Turn probabilities (N, 2) into N of Progress."""
    return [{"progress": LABELS[row.argmax()], "probability": row.max()} for row in rows]


SPEC = ModelSpec(
    summary="whether diabetes goes on fast within a year",
    network=partial(by_name("models.networks:Perceptron"), features=9, outputs=2),
    inputs={
        "age": Number(0, 120),
        "sex": Category(["female", "male"]),
        "bmi": Number(10, 80),
        "pressure": Number(30, 250, default=math.nan),
        "sugar": Number(20, 500, default=math.nan),
    },
    encode=encode,
    postprocess=probabilities,
    describe=describe,
    prediction=Progress,
    example=[
        {"age": 59, "sex": "male", "bmi": 32.1, "pressure": 101, "sugar": 87},
        {"age": 48, "sex": "female", "bmi": 21.6, "pressure": None, "sugar": 69},
    ],
)
