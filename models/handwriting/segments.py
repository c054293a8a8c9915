"""Read each digit in a picture, such as a number or a column of figures."""

import numpy as np
from PIL import Image

from models.errors import InvalidInput
from models.handwriting.colours import colours_of
from models.handwriting.components import box_of, parts_of
from models.handwriting.counts import Digit, SeveralDigits, digits_of, require_one_digit
from models.handwriting.ink import Writing, writing_in
from models.handwriting.normalise import decoding, read_ink
from models.handwriting.rings import inside_ring
from models.segments import Segment
from models.spec import Array

MOST_DIGITS = 256


def read_digits(picture: Image.Image) -> list[Segment]:
    """Read each digit in a picture, in reading order: rows from above, each from the left.

    An entry is that of `read_digit`, or the error of that digit. Raises InvalidInput if there is no ink, or too much.
    """
    longer_side = max(picture.size)
    with decoding():
        colours = colours_of(picture)
    found = writing_in(colours)
    box = box_of(found.marks)
    marks = found.marks[box]
    parts = parts_of(marks)
    inside = inside_ring(marks, parts)
    if inside is not marks:
        parts = parts_of(inside)
    digits = digits_of(parts)
    if len(digits) > MOST_DIGITS:
        raise SeveralDigits(len(digits), [])
    scale = longer_side / max(colours.shape[1:])
    return [_segment(found, (box[0].start, box[1].start), digit, parts.labels, scale) for digit in digits]


def _segment(found: Writing, corner: tuple[int, int], digit: Digit, labels: Array, scale: float) -> Segment:
    """Read one digit. `labels`, int32 (height, width), are those of the part of the view at `corner`."""
    here = np.isin(labels[digit.box], digit.labels)
    y, x = (slice(part.start + first, part.stop + first) for part, first in zip(digit.box, corner, strict=True))
    marks = np.zeros_like(found.marks)
    marks[y, x] = here
    rows, columns = found.place((y, x))
    left, top, right, bottom = (round(place * scale) for place in (columns.start, rows.start, columns.stop, rows.stop))
    entry: Array | InvalidInput
    try:
        require_one_digit(parts_of(here))
        entry = read_ink(found.ink(marks, ringed=False))
    except InvalidInput as err:
        entry = err.alone()
    return Segment(entry, (left, top, right, bottom))
