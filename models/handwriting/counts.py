"""Count the digits in marks."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from models.errors import InvalidInput
from models.handwriting.components import Box, Parts, box_around

# Of the largest component's height, height of another digit, gap between the two, least width of two above each other:
# the parts of a broken 0, 3, 4 or 5 are shorter, or closer to each other; those of a broken 1 are narrower.
_LEAST_HEIGHT, _LEAST_GAP, _LEAST_WIDTH = 0.65, 0.06, 0.35
_LEAST_INK = 0.15  # of the largest component's: a smaller one is a part of a digit
_UPRIGHT = 0.68  # height to width of a digit above another one: the parts of a broken 3 or 5 are flatter
_LEAST_ROWS = 4  # pixels: flatter marks show no digits
_MOST_NAMED = 9  # boxes in a message
_MOST_WIDE = 2.0  # width to height: of 10,000 training digits, 1 is wider; of 1.5, 70 are


class SeveralDigits(InvalidInput):
    """Error: there are several digits. `boxes` are their places in the picture, none if they touch."""

    def __init__(self, count: int, boxes: Sequence[Box]) -> None:
        places = [f"({x.start}, {y.start}, {x.stop}, {y.stop})" for y, x in boxes[:_MOST_NAMED]]
        where = f" of the boxes (left, top, right, bottom) {', '.join(places)}" if places else ""
        super().__init__("Several digits", f"this looks like {count} digits: send one{where}")
        self._count = count
        self._boxes = boxes

    def moved(self, corner: tuple[int, int], scale: float = 1.0) -> "SeveralDigits":
        """Return the error for a picture of which this one is a part, with its corner (y, x), shrunk by `scale`."""

        def moved(part: slice, step: int) -> slice:
            return slice(round((part.start + step) * scale), round((part.stop + step) * scale))

        return SeveralDigits(self._count, [(moved(y, corner[0]), moved(x, corner[1])) for y, x in self._boxes])


def require_one_digit(parts: Parts) -> None:
    """Raise SeveralDigits if the components do not look like parts of one digit."""
    labels, boxes = parts
    if len(boxes) > 1 and len(groups := _groups(labels, boxes)) > 1:
        raise SeveralDigits(len(groups), [groups[place] for place in reading_order(groups)])
    height, width = (part.stop - part.start for part in box_around(boxes))
    if width > _MOST_WIDE * height and height > _LEAST_ROWS:
        raise SeveralDigits(2, [])


class Digit(NamedTuple):
    """The components of one digit."""

    box: Box
    labels: list[int]


def digits_of(parts: Parts) -> list[Digit]:
    """Divide components into digits, in reading order. Small components belong to the digit that is nearest."""
    labels, boxes = parts
    groups = _groups(labels, boxes) if len(boxes) > 1 else boxes
    members: list[list[int]] = [[] for _ in groups]
    for label, box in enumerate(boxes, start=1):
        gaps = [_gap(box, group) for group in groups]
        members[gaps.index(min(gaps))].append(label)
    found = [(box_around([boxes[label - 1] for label in group]), group) for group in members if group]
    return [Digit(*found[place]) for place in reading_order([box for box, _ in found])]


def reading_order(boxes: Sequence[Box]) -> list[int]:
    """Return the positions of boxes by rows from above, each from the left.

    Boxes are in one row if the middle of one is as high as another.
    """
    middles = [(y.start + y.stop) / 2 for y, _ in boxes]
    rows: list[list[int]] = []
    for place in sorted(range(len(boxes)), key=middles.__getitem__):
        row = next((row for row in rows if any(_is_beside(middles[place], boxes[other]) for other in row)), None)
        if row is None:
            rows.append([place])
        else:
            row.append(place)
    return [place for row in rows for place in sorted(row, key=lambda place: boxes[place][1].start)]


def _is_beside(middle: float, box: Box) -> bool:
    return bool(box[0].start <= middle < box[0].stop)


def _gap(one: Box, other: Box) -> float:
    """Return the distance of two boxes, in pixels; below 0 if they overlap."""
    down, right = (max(a.start, b.start) - min(a.stop, b.stop) for a, b in zip(one, other, strict=True))
    return float(np.hypot(down, right)) if min(down, right) > 0 else max(down, right)


def _groups(labels: NDArray[np.int32], boxes: Sequence[Box]) -> list[Box]:
    """Return the boxes of the components that are separate digits."""
    ink = np.bincount(labels.reshape(-1))[1:]
    heights = np.array([y.stop - y.start for y, _ in boxes])
    large = [
        box
        for box, height, count in zip(boxes, heights, ink, strict=True)
        if height >= _LEAST_HEIGHT * heights.max() and count >= _LEAST_INK * ink.max()
    ]
    groups: list[Box] = []
    for box in large:
        if all(_apart(box, other, int(heights.max())) for other in groups):
            groups.append(box)
    return groups


def _apart(one: Box, other: Box, height: int) -> bool:
    """Whether two boxes lie side by side, or above each other and are both those of upright digits."""
    down, right = (max(a.start, b.start) - min(a.stop, b.stop) for a, b in zip(one, other, strict=True))
    if right >= _LEAST_GAP * height:
        return True
    (y, x), (other_y, other_x) = one, other
    wide = max(x.stop, other_x.stop) - min(x.start, other_x.start) >= _LEAST_WIDTH * height
    upright = all(b.stop - b.start >= _UPRIGHT * (a.stop - a.start) for b, a in ((y, x), (other_y, other_x)))
    return down >= _LEAST_GAP * height and wide and upright
