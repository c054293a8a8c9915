"""The MNIST CNN: takes a picture of a handwritten digit, predicts the digit."""

from collections.abc import Mapping

import numpy as np
from PIL import Image, ImageDraw

from models.errors import InvalidInput
from models.handwriting.normalise import FIELD, as_it_is, read_digit
from models.outputs import Classification, describe_classes, probabilities, saliency
from models.reference import Bounds, within
from models.spec import Array, Entry, ModelSpec, by_name

# In each of the 60,000 training digits the brightest pixel is 254 or 255, the darkest of the first and last row is 0,
# and the mean of the outermost pixels is at most 8.4. With the brightest at 64 the shipped network still reads 90%.
_LEAST_BRIGHT, _MOST_PAPER, _MOST_BORDER = 64, 12, 64
# Of these digits, 15 to 312 pixels are ink (above half of the brightest), with at most 2.6 edges between ink and paper
# for each; random pixels have 3 and more.
_LEAST_INK, _MOST_INK, _MOST_EDGES = 8, 350, 3.0


def with_channel(entries: Array) -> Array:
    """Add the channel axis: (N, 28, 28) -> (N, 1, 28, 28)."""
    return entries[:, None]


def brightest(entries: Array) -> Array:
    """Return the brightest pixel of each entry, uint8 (N,)."""
    found: Array = entries.reshape(len(entries), -1).max(axis=1)
    return found


def paper(entries: Array) -> Array:
    """Return the darkest pixel of the first and last row of each entry, uint8 (N,)."""
    found: Array = entries[:, :: FIELD - 1].min(axis=(1, 2))
    return found


def border(entries: Array) -> Array:
    """Return the mean of the outermost pixels of each entry, float64 (N,)."""
    rows, columns = entries[:, :: FIELD - 1], entries[:, :, :: FIELD - 1]
    mean: Array = (rows.sum(axis=(1, 2)) + columns.sum(axis=(1, 2))) / (4 * FIELD)
    return mean


def edges(marks: Array) -> Array:
    """Return the number of neighbours of which one is ink and one is paper, for each ink pixel: bool (N, 784) ->
    float64 (N,).
    """
    across, down = marks[:, 1:] ^ marks[:, :-1], marks[:, FIELD:] ^ marks[:, :-FIELD]
    ratio: Array = (_count(across) + _count(down)) / np.maximum(_count(marks), 1)
    return ratio


def ink(entries: Array) -> Array:
    """Mark the pixels above half of the brightest of each entry, bool (N, 784)."""
    flat = entries.reshape(len(entries), -1)
    marks: Array = flat > (brightest(entries) // 2)[:, None]
    return marks


def _count(marks: Array) -> Array:
    total: Array = np.bitwise_count(np.packbits(marks, axis=1)).sum(axis=1, dtype=np.int64)
    return total


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


_check_levels = within(
    Bounds(statistic=brightest, low=_LEAST_BRIGHT, detail=_too_dark),
    Bounds(statistic=border, high=_MOST_BORDER, detail=_lit),
    Bounds(statistic=paper, high=_MOST_PAPER, detail=_lit),
)
_check_ink = within(
    Bounds(statistic=_count, low=_LEAST_INK, high=_MOST_INK, detail=_wrong_ink),
    Bounds(statistic=edges, high=_MOST_EDGES, detail=_noisy),
)


def check(entries: Array) -> Mapping[int, InvalidInput]:
    """Find the entries that do not look like training digits. Wrong levels are reported first: ink depends on them."""
    return {**_check_ink(ink(entries)), **_check_levels(entries)}


SPEC = ModelSpec(
    summary="a handwritten digit in a picture of any size",
    network=by_name("models.networks:MnistCNN"),
    entry=Entry(shape=(FIELD, FIELD), dtype=np.dtype(np.uint8), low=0, high=255),
    check=check,
    preprocess=with_channel,
    picture=read_digit,
    grey=as_it_is,
    postprocess=probabilities,
    describe=describe_classes,
    prediction=Classification,
    explain=saliency,
    example=drawn_seven()[None],
)
