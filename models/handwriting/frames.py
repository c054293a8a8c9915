"""Find the rectangle that holds the writing, and cut the picture to its inside.

A rectangle is a square pasted on a page of another colour, the area of a plot, a screenshot's window, a field of a form
drawn as a box, or a frame around the picture.
"""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from models.handwriting.components import Box, Parts, box_around, box_of, parts_of
from models.handwriting.levels import percentile
from models.handwriting.paper import distances
from models.handwriting.view import Corner
from models.spec import Array

LEAST_SIDE = 0.1  # of the picture's side: a smaller rectangle holds no writing
_LEAST_PIXELS = 8  # of a side of the inside
_BAND = 0.04  # of the rectangle's longer side: its edge may be this uneven, by its turn, by ticks, by soft corners
_EDGE = 0.9  # of a side: the edge of a rectangle covers more of it
_RING, _SOLID = (0.15, 0.25), 0.5  # of the rectangle: more of this ring has its colour if it is filled, less if drawn
_LINE = 0.3  # of a side: a row or column with more marks in it belongs to a drawn rectangle's edge
_WRITING = 0.2  # of the inside's longer side: marks inside are as large
CONTRAST = 24  # grey levels between two colours; less is noise
_DEPTH = 3  # rectangles inside each other


def inside_frame(colours: Array) -> tuple[Array, Corner]:
    """Return the part of a picture, uint8 (channels, height, width), inside its innermost rectangle with writing; and
    the part's upper left corner.
    """
    top = left = 0
    for _ in range(_DEPTH):
        inside = next((cut for paper in _papers(colours) for cut in _insides(colours, paper)), None)
        if inside is None:
            break
        top, left = top + inside[0].start, left + inside[1].start
        colours = colours[:, *inside]
    return colours, (top, left)


def _papers(colours: Array) -> list[Array]:
    """Colours of the picture's outermost pixels, uint8 (channels, 1, 1): the median of each side, those alike once."""
    found: list[Array] = []
    for side in (colours[:, 0], colours[:, -1], colours[:, :, 0], colours[:, :, -1]):
        median = np.sort(side, axis=1)[:, side.shape[1] // 2, None, None]
        if all(distances(median, other).max() > CONTRAST for other in found):
            found.append(median)
    return found


def may_hold_frame(parts: Parts, sides: tuple[float, float]) -> bool:
    """Whether a component of marks runs along all four sides of its box and is large enough for a frame in a picture of
    these sides.
    """
    return any(
        y.stop - y.start >= LEAST_SIDE * sides[0]
        and x.stop - x.start >= LEAST_SIDE * sides[1]
        and has_four_edges(parts.labels[y, x] == label)
        for label, (y, x) in enumerate(parts.boxes, start=1)
    )


def _rectangles(marks: Array) -> Iterator[tuple[Box, Array]]:
    """Yield the box and the shape of each component of marks, bool (height, width), that runs along the four sides of
    its box and is large enough for a frame. The background of the picture is left out.
    """
    height, width = marks.shape
    rows, columns = around = box_of(marks)
    labels, boxes = parts_of(marks[around])
    for label, (y, x) in enumerate(boxes, start=1):
        sides = y.stop - y.start, x.stop - x.start
        if sides[0] < LEAST_SIDE * height or sides[1] < LEAST_SIDE * width or sides == (height, width):
            continue
        shape = labels[y, x] == label
        if has_four_edges(shape):
            top, left = rows.start + y.start, columns.start + x.start
            yield (slice(top, top + sides[0]), slice(left, left + sides[1])), shape


def _least_mark(distance: Array) -> float:
    """Return the distance from the paper, of uint8 distances, beyond which a pixel is marked."""
    return max(CONTRAST, 0.3 * percentile(distance, 0.99))


class _Edges(NamedTuple):
    """A rectangle: first and last row, first and last column (exclusive)."""

    top: int
    bottom: int
    left: int
    right: int


def _insides(colours: Array, paper: Array) -> Iterator[Box]:
    """Yield the insides of the rectangles that differ from the paper around them and hold writing."""
    distance = distances(colours, paper)
    marks = distance > _least_mark(distance)
    if not marks.any():
        return
    for (rows, columns), shape in _rectangles(marks):
        edges = _inner_edges(shape)
        if edges is None:
            continue
        top, left = rows.start, columns.start
        inside = slice(top + edges.top, top + edges.bottom), slice(left + edges.left, left + edges.right)
        if _holds_writing(colours[:, *inside]):
            yield inside


def _inner_edges(shape: Array) -> _Edges | None:
    """Return the edges of the inside of a component, bool (height, width), if they are far enough apart; else None."""
    height, width = shape.shape
    sides = (shape, shape[::-1], shape.T, shape.T[::-1])
    start, end = _RING
    solid = min(float(side[int(start * len(side)) : int(end * len(side)) + 1].mean()) for side in sides) > _SOLID
    depths = [
        _depth(side[: max(1, len(side) // 3)].mean(axis=1), _EDGE if solid else _LINE, solid=solid) for side in sides
    ]
    edges = _Edges(depths[0], height - depths[1], depths[2], width - depths[3])
    return edges if min(edges.bottom - edges.top, edges.right - edges.left) >= _LEAST_PIXELS else None


def has_four_edges(shape: Array) -> bool:
    """Whether a shape that fills its bounding box, bool (height, width), runs along all four sides of it."""
    band = max(2, round(_BAND * max(shape.shape)))
    sides = (shape, shape[::-1], shape.T, shape.T[::-1])
    return all(np.count_nonzero(side[:band].any(axis=0)) >= _EDGE * side.shape[1] for side in sides)


def _depth(covered: Array, most: float, *, solid: bool) -> int:
    """Return the number of rows from the edge of a rectangle to its inside, from the share of each row that is marked.

    A solid rectangle is all inside but for its uneven edge; a drawn one has a line along the edge.
    """
    line = covered > most
    first = int(np.argmax(line))
    if solid or not line.any():
        return first + 1
    inside = np.flatnonzero(~line[first:])
    return first + (int(inside[0]) if len(inside) else len(line)) + 1


def _holds_writing(inside: Array) -> bool:
    """Whether there are large marks inside. Marks that touch two sides are part of the rectangle, as in a square 8."""
    edge = np.concatenate([inside[:, 0], inside[:, -1], inside[:, :, 0], inside[:, :, -1]], axis=1)
    distance = distances(inside, np.median(edge, axis=1).astype(np.uint8)[:, None, None])
    marks = distance > max(CONTRAST, 0.3 * float(distance.max()))
    labels, boxes = parts_of(marks)
    touched = np.zeros(len(boxes) + 1, np.int64)
    for side in (labels[0], labels[-1], labels[:, 0], labels[:, -1]):
        touched[np.unique(side)] += 1
    kept = [box for label, box in enumerate(boxes, start=1) if touched[label] < 2]
    return bool(kept) and max(part.stop - part.start for part in box_around(kept)) >= _WRITING * max(marks.shape)
