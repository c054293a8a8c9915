"""Count the digits in marks."""

import numpy as np
from numpy.typing import NDArray

Mask = NDArray[np.bool_]
Box = tuple[slice, slice]  # rows, columns

# Of the largest component's height, height of another digit, gap between the two, least width of two above each other:
# the parts of a broken 0, 3, 4 or 5 are shorter, or closer to each other; those of a broken 1 are narrower.
_LEAST_HEIGHT, _LEAST_GAP, _LEAST_WIDTH = 0.65, 0.06, 0.35
_LEAST_INK = 0.15  # of the largest component's: a smaller one is a part of a digit
_UPRIGHT = 0.68  # height to width of a digit above another one: the parts of a broken 3 or 5 are flatter
_MOST_WIDE = 2.0  # width to height: of 10,000 training digits, 1 is wider; of 1.5, 70 are


def digits_in(marks: Mask) -> int:
    """Count the digits in marks, bool (height, width): 1 if they look like parts of one digit."""
    from scipy import ndimage  # noqa: PLC0415 - 0.2 s and 30 MB, only for processes that read photos

    labels, _ = ndimage.label(marks, np.ones((3, 3), bool))
    boxes = ndimage.find_objects(labels)
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
    if len(groups) > 1:
        return len(groups)
    rows, columns = (np.flatnonzero(marks.any(axis=axis)) for axis in (1, 0))
    return 2 if len(rows) and np.ptp(columns) + 1 > _MOST_WIDE * (np.ptp(rows) + 1) and len(rows) > 4 else 1


def _apart(one: Box, other: Box, height: int) -> bool:
    """Whether two boxes lie side by side, or above each other and are both those of upright digits."""
    down, right = (max(a.start, b.start) - min(a.stop, b.stop) for a, b in zip(one, other, strict=True))
    if right >= _LEAST_GAP * height:
        return True
    (y, x), (other_y, other_x) = one, other
    wide = max(x.stop, other_x.stop) - min(x.start, other_x.start) >= _LEAST_WIDTH * height
    upright = all(b.stop - b.start >= _UPRIGHT * (a.stop - a.start) for b, a in ((y, x), (other_y, other_x)))
    return down >= _LEAST_GAP * height and wide and upright
