"""Tell noise from handwriting: strokes have few edges and few parts, scattered pixels have many."""

import numpy as np

from models.errors import InvalidInput
from models.spec import Array

# Of the 60,000 training digits, with the pixels above 0.4 of the brightest as ink: 192 edges between ink and paper, 2.4
# for each pixel of ink, and 10 parts, at most. Random pixels have more of one of them.
MOST_EDGES, MOST_EDGES_PER_PIXEL, MOST_PARTS = 220, 2.75, 12


def ink(entries: Array) -> Array:
    """Mark the pixels above 0.4 of the brightest of each entry: uint8 (N, height, width) -> bool, the same shape."""
    flat = entries.reshape(len(entries), -1)
    least = (flat.max(axis=1) * np.uint16(2) // 5).astype(np.uint8)  # uint8 is compared twice as fast
    marks: Array = flat > least[:, None]
    return marks.reshape(entries.shape)


def measures(marks: Array) -> Array:
    """Measure ink, bool (N, height, width), at most 32 wide: float64 (4, N).

    The pixels of ink; the edges between ink and paper, and those for each pixel of ink; and the Euler number of
    4-connected ink, which is the number of its parts less that of its holes.
    """
    count, height, width = marks.shape
    rows = np.zeros((count, height, 32), bool)
    rows[:, :, :width] = marks
    bits = np.packbits(rows.reshape(count, -1), axis=1, bitorder="little").view("<u4")  # (N, height), a bit a pixel
    across = bits & bits >> 1
    inked, pairs = _count(bits), _count(across) + _count(bits[:, 1:] & bits[:, :-1])
    edges = 4 * inked - 2 * pairs
    parts = inked - pairs + _count(across[:, 1:] & across[:, :-1])
    return np.stack([inked, edges, edges / np.maximum(inked, 1), parts])


def _count(bits: Array) -> Array:
    total: Array = np.bitwise_count(bits).sum(axis=1, dtype=np.int64)
    return total


def is_noise(marks: Array) -> bool:
    """Whether ink, bool (height, width), has more edges or parts than that of a digit."""
    _, edges, per_pixel, parts = measures(marks[None])[:, 0]
    return bool(edges > MOST_EDGES or per_pixel > MOST_EDGES_PER_PIXEL or parts > MOST_PARTS)


def noisy() -> InvalidInput:
    """Build the error for a picture of noise."""
    return InvalidInput("No ink found", "the picture looks like noise: send one digit on plain paper")
