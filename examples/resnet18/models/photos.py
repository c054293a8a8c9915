"""A ResNet-18 for colour photos: 11 million weights, 45 MB."""

from collections.abc import Sequence
from functools import partial

import numpy as np
from PIL.Image import Image
from PIL.ImageOps import exif_transpose
from typing_extensions import TypedDict

from models.outputs import probabilities, saliency
from models.spec import Array, Entry, ModelSpec, Prediction, by_name

LABELS = ("red", "green", "blue")
SIZE = 64  # px; 224 for the weights of ImageNet


class Photo(TypedDict):
    """The prediction for one photo."""

    label: str
    probability: float


def read(picture: Image) -> Array:
    """Turn a photo upright and resize it: uint8 (64, 64, 3)."""
    return np.asarray(exif_transpose(picture).convert("RGB").resize((SIZE, SIZE)))


def describe(rows: Array) -> Sequence[Prediction]:
    """Turn probabilities (N, labels) into N of Photo."""
    return [{"label": LABELS[row.argmax()], "probability": row.max()} for row in rows]


SPEC = ModelSpec(
    summary="the colour of a photo",
    network=partial(by_name("models.photos_network:ResNet18"), classes=len(LABELS)),
    entry=Entry(shape=(SIZE, SIZE, 3), dtype=np.dtype(np.uint8), low=0, high=255),
    picture=read,
    postprocess=probabilities,
    describe=describe,
    prediction=Photo,
    explain=saliency,
    example=np.full((1, SIZE, SIZE, 3), (200, 30, 30), dtype=np.uint8),
)
