"""Normalise pictures of handwriting to the form of the MNIST files: white ink on black, 28x28, centred.

The MNIST files were made by scaling the ink into a box of 20x20, keeping its proportions, and moving its centre of
mass to the centre of a field of 28x28 (LeCun, Cortes, Burges: the MNIST database of handwritten digits).
"""

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
from PIL import Image

from models.errors import InvalidInput
from models.handwriting.colours import colours_of, no_ink
from models.handwriting.components import is_one_digit
from models.handwriting.counts import SeveralDigits
from models.handwriting.ink import Ink, ink_in
from models.handwriting.plainness import looks
from models.handwriting.ready import FAINTEST, FIELD, as_it_is
from models.picture_files.stripped import damaged_picture
from models.spec import Array

BOX = 20  # pixels, the ink
_MOST_INK = 200  # grey levels: lower bound of the strongest ink in a picture in the form of MNIST


def read_digit(picture: Image.Image) -> Array:
    """Normalise a picture of one digit: uint8 (28, 28), white ink on black. Raises InvalidInput if there is no ink.

    A 28x28 grey picture with light ink on black is returned unchanged.
    """
    longer_side = max(picture.size)
    with decoding():
        if picture.size == (FIELD, FIELD) and picture.mode == "L":  # larger ones are not decoded at full size
            field = as_it_is(np.asarray(picture))
            if field is not None:
                return field
        colours = colours_of(picture)
    field = _already_a_field(colours)
    if field is not None:
        return field
    try:
        return read_ink(ink_in(colours))
    except SeveralDigits as err:
        raise err.moved((0, 0), longer_side / max(colours.shape[1:])) from None


@contextmanager
def decoding() -> Iterator[None]:
    """Turn what Pillow raises while it decodes a picture into InvalidInput."""
    try:
        yield
    except InvalidInput:
        raise
    except (OSError, SyntaxError, EOFError, ValueError, Image.DecompressionBombError) as err:
        raise damaged_picture() from err


def read_ink(ink: Ink) -> Array:
    """Normalise the ink of one digit: uint8 (28, 28).

    Raises InvalidInput if it does not look like a plain digit. On ruled paper this is not checked: rests of the lines
    may be around a digit.
    """
    try:
        field = to_field(ink.strength)
    except InvalidInput:
        ink.require_unmarked()  # has a better reason
        raise
    plain = looks(field)
    if ink.ruled or ink.at_edge or not plain.surely:
        ink.require_unmarked()
    if not ink.ruled and not plain.at_all:
        raise no_digit()
    return field


def _already_a_field(colours: Array) -> Array | None:
    """Convert a picture in the form of MNIST, but colour mode or dark on light: uint8 (28, 28), else None."""
    if colours.shape[1:] != (FIELD, FIELD) or np.ptp(colours, axis=0).max() > FAINTEST:
        return None
    grey = colours.mean(axis=0)
    field = 255 - grey if _border(grey).mean() > 127 else grey
    rows, columns = (np.flatnonzero(field.max(axis=axis) >= FAINTEST) for axis in (1, 0))
    if not len(rows) or _border(field).max() >= FAINTEST or field.max() < _MOST_INK:
        return None
    if not BOX - 2 <= max(np.ptp(rows), np.ptp(columns)) + 1 <= BOX:
        return None
    centre = [(field.sum(axis=axis) * np.arange(FIELD)).sum() / field.sum() for axis in (1, 0)]
    return field.round().astype(np.uint8) if all(12.5 <= place <= 14.5 for place in centre) else None


def _border(array: Array) -> Array:
    return np.concatenate([array[0], array[-1], array[:, 0], array[:, -1]])


def to_field(ink: Array) -> Array:
    """Crop the ink (0..1), scale it into the box and centre it by mass: uint8 (28, 28)."""
    rows, columns = (np.flatnonzero(ink.max(axis=axis) > 0.3) for axis in (1, 0))
    if not len(rows) or not len(columns):
        raise no_ink()
    cropped = ink[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    scale = BOX / max(cropped.shape)
    height, width = (max(1, round(side * scale)) for side in cropped.shape)
    scaled = Image.fromarray((cropped * 255).astype(np.uint8)).resize((width, height), Image.Resampling.LANCZOS)
    digit = np.asarray(scaled)
    mass = digit.astype(np.float64) + 1e-9
    centre_y = (mass.sum(axis=1) * np.arange(height)).sum() / mass.sum()
    centre_x = (mass.sum(axis=0) * np.arange(width)).sum() / mass.sum()
    top = min(max(round(FIELD / 2 - 0.5 - centre_y), 0), FIELD - height)
    left = min(max(round(FIELD / 2 - 0.5 - centre_x), 0), FIELD - width)
    if not is_one_digit(digit):
        raise no_digit()
    field = np.zeros((FIELD, FIELD), np.uint8)
    field[top : top + height, left : left + width] = digit
    return field


def no_digit() -> InvalidInput:
    """Build the error for marks that are not a digit: a texture, noise, a filled shape."""
    return InvalidInput(
        "No ink found", "the marks in the picture do not look like one digit: send one digit on plain paper"
    )
