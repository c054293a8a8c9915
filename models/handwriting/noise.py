"""Tell noise from handwriting: strokes have few edges and few parts, scattered pixels have many."""

from functools import lru_cache

import numpy as np

from models.errors import InvalidInput
from models.spec import Array

# Of the 60,000 training digits, with the pixels above 0.4 of the brightest as ink: 192 edges between ink and paper, 2.4
# for each pixel of ink, and 10 parts, at most. Random pixels have more of one of them.
MOST_EDGES, MOST_EDGES_PER_PIXEL, MOST_PARTS = 220, 2.75, 12

_LEAST = (np.arange(256) * 2 // 5).astype(np.uint8)  # 0.4 of the brightest, by its level


def ink(entries: Array) -> Array:
    """Mark the pixels above 0.4 of the brightest of each entry: uint8 (N, height, width) -> bool, the same shape."""
    flat = entries.reshape(len(entries), -1)
    marks: Array = flat > _LEAST.take(flat.max(axis=1, keepdims=True))  # uint8 is compared twice as fast
    return marks.reshape(entries.shape)


def measures(marks: Array) -> Array:
    """Measure ink, bool (N, height, width): float64 (4, N).

    The pixels of ink; the edges between ink and paper, and those for each pixel of ink; and the Euler number of
    4-connected ink, which is the number of its parts less that of its holes.
    """
    count, height, width = marks.shape
    packed, inner = np.packbits(marks.reshape(count, -1), axis=1).tobytes(), _inner(height, width)
    size = -(-height * width // 8)
    starts = range(0, count * size, size)
    found = [_measured(int.from_bytes(packed[at : at + size]), width, inner) for at in starts]
    return np.array(found, np.float64).reshape(count, 4).T


def _measured(bits: int, width: int, inner: int) -> tuple[int, int, float, int]:
    """Measure ink, a bit a pixel from the greatest bit on: Python counts bits faster than NumPy.

    `inner`: the pixels with a neighbour on their left.
    """
    across = bits & bits >> 1 & inner
    inked, pairs = bits.bit_count(), across.bit_count() + (bits & bits >> width).bit_count()
    edges = 4 * inked - 2 * pairs
    parts = inked - pairs + (across & across >> width).bit_count()
    return inked, edges, edges / max(inked, 1), parts


@lru_cache(16)
def _inner(height: int, width: int) -> int:
    """Mark the pixels with a neighbour on their left, a bit a pixel."""
    marks = np.ones((height, width), bool)
    marks[:, 0] = False
    return int.from_bytes(np.packbits(marks.reshape(-1)).tobytes())


def is_noise(marks: Array) -> bool:
    """Whether ink, bool (height, width), has more edges or parts than that of a digit."""
    _, edges, per_pixel, parts = measures(marks[None])[:, 0]
    return bool(edges > MOST_EDGES or per_pixel > MOST_EDGES_PER_PIXEL or parts > MOST_PARTS)


def noisy() -> InvalidInput:
    """Build the error for a picture of noise."""
    return InvalidInput("No ink found", "the picture looks like noise: send one digit on plain paper")
