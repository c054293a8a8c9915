"""Remove the circle around a circled digit from a mask of marks."""

import numpy as np
from numpy.typing import NDArray

from models.handwriting.components import Parts

Mask = NDArray[np.bool_]

_LEAST_CONTENT = 0.25  # of the ring's longer side: smaller marks inside it are not a digit
_DIRECTIONS, _CLOSED = 36, 0.85  # of the directions from the inside, the share in which a ring has marks
_LEAST_SIDE = 0.3  # of the marks' longer side: a smaller component is not a ring


def inside_ring(marks: Mask, parts: Parts) -> Mask:
    """Return the marks, bool (height, width), inside a ring that holds marks as large as a digit; else all marks.

    A ring is a component around others, closed or nearly so.
    """
    labels, boxes = parts
    count = len(boxes)
    sides = [max(y.stop - y.start, x.stop - x.start) for y, x in boxes]
    for ring in sorted(range(1, count + 1), key=lambda label: -sides[label - 1]):
        if sides[ring - 1] < _LEAST_SIDE * max(sides):
            break
        held = [
            label
            for label in range(1, count + 1)
            if label != ring
            and sides[label - 1] >= _LEAST_CONTENT * sides[ring - 1]
            and _within(boxes[label - 1], boxes[ring - 1])
            and _surrounds(labels[boxes[ring - 1]] == ring, _centre(boxes[label - 1], boxes[ring - 1]))
        ]
        if held:
            inside: Mask = np.zeros_like(marks)
            y, x = boxes[ring - 1]
            inside[y, x] = marks[y, x] & (labels[y, x] != ring)
            return inside
    return marks


def _within(inner: tuple[slice, slice], outer: tuple[slice, slice]) -> bool:
    return all(o.start < i.start and i.stop < o.stop for i, o in zip(inner, outer, strict=True))


def _centre(inner: tuple[slice, slice], outer: tuple[slice, slice]) -> tuple[float, float]:
    """Return the centre of a box, from the corner of the other one."""
    y, x = ((i.start + i.stop - 1) / 2 - o.start for i, o in zip(inner, outer, strict=True))
    return y, x


def _surrounds(shape: Mask, centre: tuple[float, float]) -> bool:
    """Whether a component, bool (height, width), has pixels in nearly all directions from a point inside."""
    y, x = shape.nonzero()
    angles = np.arctan2(y - centre[0], x - centre[1])
    reached = np.unique((angles / (2 * np.pi) * _DIRECTIONS).round().astype(np.int64) % _DIRECTIONS)
    return len(reached) >= _CLOSED * _DIRECTIONS
