"""The shape in a colour picture of 32x32 pixels."""

from collections.abc import Sequence

import numpy as np
from PIL.Image import Image
from typing_extensions import TypedDict

from models.outputs import probabilities, saliency
from models.spec import Array, Entry, ModelSpec, Prediction, by_name

SHAPES = ("circle", "square", "triangle")


class Shape(TypedDict):
    """The prediction for one picture."""

    shape: str
    probability: float


def read(picture: Image) -> Array:
    """Bring a picture of any size and mode into the form of the training data: uint8 (32, 32, 3)."""
    return np.asarray(picture.convert("RGB").resize((32, 32)))


def describe(rows: Array) -> Sequence[Prediction]:
    """Turn probabilities (N, 3) into N of Shape."""
    return [{"shape": SHAPES[row.argmax()], "probability": row.max()} for row in rows]


def example() -> Array:
    """Draw a red square: uint8 (1, 32, 32, 3)."""
    picture = np.full((1, 32, 32, 3), 200, np.uint8)
    picture[:, 8:24, 8:24] = (200, 0, 0)
    return picture


SPEC = ModelSpec(
    summary="the shape in a colour picture",
    network=by_name("models.shapes_network:ShapeCNN"),
    entry=Entry(shape=(32, 32, 3), dtype=np.dtype(np.uint8), low=0, high=255),
    picture=read,
    postprocess=probabilities,
    describe=describe,
    prediction=Shape,
    explain=saliency,
    example=example(),
)
