"""Whether two pictures show the same digit."""

from collections.abc import Sequence

import numpy as np
from PIL import Image
from typing_extensions import TypedDict

from models.signature import Picture
from models.spec import Array, ModelSpec, Prediction, by_name


class Comparison(TypedDict):
    """The prediction for one pair of pictures."""

    same: bool
    probability: float


def read(picture: Image.Image) -> Array:
    """Bring a picture, white ink on black, into the form of the training data: uint8 (8, 8)."""
    return np.asarray(picture.convert("L").resize((8, 8)))


def sigmoid(logits: Array) -> Array:
    """Turn logits (N, 1) into probabilities float32 (N, 1)."""
    probabilities: Array = (1 / (1 + np.exp(-logits))).astype(np.float32)
    return probabilities


def describe(rows: Array) -> Sequence[Prediction]:
    """Turn probabilities (N, 1) into N of Comparison."""
    return [{"same": bool(row[0] > 0.5), "probability": row[0]} for row in rows]


def _bar(column: int) -> Image.Image:
    pixels = np.zeros((8, 8), np.uint8)
    pixels[1:7, column] = 255
    return Image.fromarray(pixels)


SPEC = ModelSpec(
    summary="whether two pictures show the same digit",
    network=by_name("models.same_digit_network:Siamese"),
    inputs={"left": Picture(read, (8, 8)), "right": Picture(read, (8, 8))},
    postprocess=sigmoid,
    describe=describe,
    prediction=Comparison,
    example=[{"left": _bar(3), "right": _bar(4)}],
)
