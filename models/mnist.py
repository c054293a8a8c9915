"""The MNIST CNN: takes a picture of a handwritten digit, predicts the digit."""

from math import inf

import numpy as np
from PIL import Image, ImageDraw

from models.handwriting import noise
from models.handwriting.normalise import read_digit
from models.handwriting.ready import FIELD, are_clear, as_it_is
from models.handwriting.segments import read_digits
from models.outputs import Classification, describe_classes, probabilities, saliency
from models.reference import Bounds, Room, within
from models.spec import Array, Entry, ModelSpec, by_name

# In each of the 60,000 training digits the brightest pixel is 254 or 255, the darkest of the first and last row is 0,
# and the mean of the outermost pixels is at most 8.4. With the brightest at 64 the shipped network still reads 90%.
_LEAST_BRIGHT, _MOST_PAPER, _MOST_BORDER = 64, 12, 64
_LEAST_INK, _MOST_INK = 8, 360  # pixels: these digits have 18 to 327, see noise.ink

_OUTERMOST = np.zeros((FIELD, FIELD))  # how often `border` counts each pixel: the corners belong to two sides
_OUTERMOST[:: FIELD - 1] += 1
_OUTERMOST[:, :: FIELD - 1] += 1


def with_channel(entries: Array) -> Array:
    """Add the channel axis: (N, 28, 28) -> (N, 1, 28, 28)."""
    return entries[:, None]


def brightest(entries: Array) -> Array:
    """Return the brightest pixel of each entry, uint8 (N,)."""
    found: Array = entries.reshape(len(entries), -1).max(axis=1)
    return found


def paper(entries: Array) -> Array:
    """Return the darkest pixel of the first and last row of each entry, uint8 (N,)."""
    found: Array = entries[:, :: FIELD - 1].reshape(len(entries), -1).min(axis=1)
    return found


def border(entries: Array) -> Array:
    """Return the mean of the outermost pixels of each entry, float64 (N,)."""
    mean: Array = entries.reshape(len(entries), -1) @ _OUTERMOST.reshape(-1) / (4 * FIELD)
    return mean


def _wrong_ink(value: float) -> str | None:
    if value == 0:
        return None  # a blank picture
    return f"{value:.0f} of {FIELD * FIELD} pixels are ink: send one digit, white strokes on black"


def _noisy(_: float) -> str:
    return "looks like noise: send one digit, white strokes on black"


def _too_dark(value: float) -> str | None:
    if value == 0:
        return None  # a blank picture has no scale
    if value == 1:
        return "values look like 0..1: multiply by 255"
    return f"the brightest pixel is {value:g}: scale the values to 0..255"


def _lit(value: float) -> str:
    if value > 127:
        return "looks like black on white: send 255 - x"
    return f"the background is {value:.0f}: send one digit, white on black, with a margin of 0"


def drawn_seven() -> Array:
    """Draw a seven with two strokes, uint8 (28, 28): an example that is not taken from a dataset."""
    scale = 8
    page = Image.new("L", (FIELD * scale, FIELD * scale))
    strokes = [(7.5, 7.0), (20.0, 7.0), (12.0, 23.0)]
    ImageDraw.Draw(page).line([(x * scale, y * scale) for x, y in strokes], fill=255, width=20, joint="curve")
    return np.asarray(page.resize((FIELD, FIELD), Image.Resampling.BOX))


def _room(low: float | None, high: float | None, below: float, above: float) -> Room:
    """Return a room that widens the bounds of the shipped version to a share of the least and of the greatest value of
    other training data, and never narrows them: a few hundred digits have a narrower range than all that people write.
    """
    return lambda least, greatest: (
        -inf if low is None else min(low, below * least),
        inf if high is None else max(high, above * greatest),
    )


def _noise(name: str, row: int, most: float) -> Bounds:
    """Bound one of `noise.measures`."""
    return Bounds(
        name=name,
        statistic=lambda measures: measures[row],
        high=most,
        room=_room(None, most, 1, 1.15),
        detail=_noisy,
    )


# Wrong levels are reported first: ink depends on them.
_LEVELS = within(
    Bounds(
        name="brightest",
        statistic=brightest,
        low=_LEAST_BRIGHT,
        room=_room(_LEAST_BRIGHT, None, 0.25, 1),
        detail=_too_dark,
    ),
    Bounds(name="border", statistic=border, high=_MOST_BORDER, room=_room(None, _MOST_BORDER, 1, 1.2), detail=_lit),
    Bounds(name="paper", statistic=paper, high=_MOST_PAPER, room=_room(None, _MOST_PAPER, 1, 1.2), detail=_lit),
)
_INK = within(
    Bounds(
        name="ink",
        statistic=lambda measures: measures[0],
        low=_LEAST_INK,
        high=_MOST_INK,
        room=_room(_LEAST_INK, _MOST_INK, 0.5, 1.15),
        detail=_wrong_ink,
    ),
    _noise("edges", 1, noise.MOST_EDGES),
    _noise("edges per pixel", 2, noise.MOST_EDGES_PER_PIXEL),
    _noise("parts", 3, noise.MOST_PARTS),
    of=lambda entries: noise.measures(noise.ink(entries)),
)


SPEC = ModelSpec(
    summary="a handwritten digit in a picture of any size",
    network=by_name("models.networks:MnistCNN"),
    entry=Entry(shape=(FIELD, FIELD), dtype=np.dtype(np.uint8), low=0, high=255),
    check=_LEVELS.then(_INK).unless(are_clear),
    preprocess=with_channel,
    picture=read_digit,
    segments=read_digits,
    grey=as_it_is,
    postprocess=probabilities,
    describe=describe_classes,
    prediction=Classification,
    explain=saliency,
    example=drawn_seven()[None],
)
