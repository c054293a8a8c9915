"""The MNIST CNN: takes a picture of a handwritten digit, predicts the digit."""

import numpy as np
from PIL import Image, ImageDraw

from models.handwriting.normalise import FIELD, as_it_is, read_digit
from models.outputs import Classification, describe_classes, probabilities, saliency
from models.spec import Array, Entry, ModelSpec, by_name


def with_channel(entries: Array) -> Array:
    """Add the channel axis: (N, 28, 28) -> (N, 1, 28, 28)."""
    return entries[:, None]


def drawn_seven() -> Array:
    """Draw a seven with two strokes, uint8 (28, 28): an example that is not taken from a dataset."""
    scale = 8
    page = Image.new("L", (FIELD * scale, FIELD * scale))
    strokes = [(7.5, 7.0), (20.0, 7.0), (12.0, 23.0)]
    ImageDraw.Draw(page).line([(x * scale, y * scale) for x, y in strokes], fill=255, width=20, joint="curve")
    return np.asarray(page.resize((FIELD, FIELD), Image.Resampling.BOX))


SPEC = ModelSpec(
    summary="a handwritten digit in a picture of any size",
    network=by_name("models.networks:MnistCNN"),
    entry=Entry(shape=(FIELD, FIELD), dtype=np.dtype(np.uint8), low=0, high=255),
    preprocess=with_channel,
    picture=read_digit,
    grey=as_it_is,
    postprocess=probabilities,
    describe=describe_classes,
    prediction=Classification,
    explain=saliency,
    example=drawn_seven()[None],
)
