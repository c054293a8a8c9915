"""The model NAME: a colour picture in, a label out."""

from collections.abc import Sequence

import numpy as np
from PIL.Image import Image
from PIL.ImageOps import exif_transpose
from typing_extensions import TypedDict

# isort: split
from models.outputs import probabilities, saliency
from models.spec import Array, Entry, ModelSpec, Prediction, by_name

LABELS = ("horizontal", "vertical")  # of the stripes
SIZE = 32  # px


class Answer(TypedDict):
    """The prediction for one picture."""

    label: str
    probability: float


def read(picture: Image) -> Array:
    """Bring a picture of any size into the form of the training data: uint8 (32, 32, 3)."""
    upright = exif_transpose(picture)
    return np.asarray(upright.convert("RGB").resize((SIZE, SIZE)))


def answer(row: Array) -> Prediction:
    """Turn the probabilities (labels,) of one picture into an Answer."""
    label = int(row.argmax())
    return {"label": LABELS[label], "probability": row[label]}


def describe(rows: Array) -> Sequence[Prediction]:
    """Turn probabilities (N, labels) into N of Answer."""
    return [answer(row) for row in rows]


def example() -> Array:
    """Draw red stripes: uint8 (1, 32, 32, 3)."""
    picture = np.zeros((1, SIZE, SIZE, 3), dtype=np.uint8)
    picture[:, np.arange(SIZE) % 8 < 4, :, 0] = 255
    return picture


SPEC = ModelSpec(
    summary="the direction of stripes in a colour picture of any size",
    network=by_name("training.templates.pictures_network:Network"),
    entry=Entry(shape=(SIZE, SIZE, 3), dtype=np.dtype(np.uint8), low=0, high=255),
    picture=read,
    postprocess=probabilities,
    describe=describe,
    prediction=Answer,
    explain=saliency,
    example=example(),
)
