"""Find marks that are more than one digit, or a digit with a line through it."""

import numpy as np
from numpy.typing import NDArray

Mask = NDArray[np.bool_]
Places = NDArray[np.int64]

_LEAST_HEIGHT, _LEAST_INK = 0.6, 0.2  # of the largest component's: a smaller one is a part of a digit
_OVERLAP = 0.05  # of the narrower of two boxes: digits side by side overlap less
_MOST_WIDE = 1.5  # width to height: one digit is narrower
_SIDE = 48  # pixels, longer side of the marks in which lines are searched
_ANGLES = np.radians(np.linspace(-60, 60, 33))  # of lines, from level: the stem of a 4 is steeper
_OVERHANG = 0.09  # of the marks' longer side: a line through a digit extends beyond it on both sides
_STEM, _OVERHANG_OF_STEM = 0.3, 0.12  # of that side: width of a single stroke below a level line, as in a 4
_LEVEL = np.radians(30)
_REACH = 0.12  # of that side: the marks reach as far from the line, on each side of it
_ON_EACH_SIDE = 0.12  # of the marks without the line: on each of its sides
_SOLID = 0.95  # of a line's length is marked


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
    groups: list[tuple[slice, slice]] = []
    for box in large:
        if all(_apart(box, other) for other in groups):
            groups.append(box)
    if len(groups) > 1:
        return len(groups)
    rows, columns = (np.flatnonzero(marks.any(axis=axis)) for axis in (1, 0))
    return 2 if len(rows) and np.ptp(columns) + 1 > _MOST_WIDE * (np.ptp(rows) + 1) and len(rows) > 4 else 1


def _apart(one: tuple[slice, slice], other: tuple[slice, slice]) -> bool:
    """Whether two boxes lie side by side or above each other."""
    for a, b in zip(one, other, strict=True):
        shared = min(a.stop, b.stop) - max(a.start, b.start)
        if shared <= _OVERLAP * min(a.stop - a.start, b.stop - b.start):
            return True
    return False


def is_struck_through(marks: Mask) -> bool:
    """Whether a straight line crosses marks, bool (height, width), and extends beyond them on both sides.

    The bar of a 4 does so, too, but not far: it has a single stroke below.
    """
    y, x = marks.nonzero()
    if not len(y):
        return False
    step = max(int(np.ptp(y)), int(np.ptp(x)), 1) / _SIDE
    places = ((y - y.min()) / step).astype(np.int64) * (_SIDE + 1) + ((x - x.min()) / step).astype(np.int64)
    y, x = np.divmod(np.unique(places), _SIDE + 1)
    thick = _stroke(y, x)
    return any(_crossed(y, x, angle, thick) for angle in _ANGLES)


def _stroke(y: Places, x: Places) -> int:
    """Return the width of the strokes: ink by half of its outline."""
    grid = np.zeros((_SIDE + 3, _SIDE + 3), bool)
    grid[y + 1, x + 1] = True
    outline = (grid[1:] != grid[:-1]).sum() + (grid[:, 1:] != grid[:, :-1]).sum()
    return max(2, round(2.2 * float(grid.sum()) / float(outline)))


def _crossed(y: Places, x: Places, angle: float, thick: int) -> bool:
    """Whether a line of this direction, in radians from level, crosses the pixels and extends beyond them."""
    along = np.rint(x * np.cos(angle) + y * np.sin(angle)).astype(np.int64)
    across = np.rint(y * np.cos(angle) - x * np.sin(angle)).astype(np.int64)  # downwards
    along -= along.min()
    across -= across.min()
    starts, ends = across[along <= 1], across[along >= along.max() - 1]  # the line's ends are among these
    least = int(_REACH * _SIDE) + 1
    first = max(int(starts.min()) - thick + 1, int(ends.min()) - thick + 1, least)
    last = min(int(starts.max()), int(ends.max()), int(across.max()) - thick - least)
    return any(_is_line(along, across - top, abs(angle) < _LEVEL, thick) for top in range(first, last + 1))


def _is_line(along: Places, across: Places, level: bool, thick: int) -> bool:
    """Whether the pixels with `across` in 0..thick are a line through the others."""
    line, above, below = along[(across >= 0) & (across < thick)], along[across < -1], along[across > thick]
    if not len(line) or not _ON_EACH_SIDE <= len(above) / max(len(above) + len(below), 1) <= 1 - _ON_EACH_SIDE:
        return False
    left = min(above.min(), below.min()) - line.min()
    right = line.max() - max(above.max(), below.max())
    stem = level and np.ptp(below) <= _STEM * _SIDE
    if min(left, right) <= (_OVERHANG_OF_STEM if stem else _OVERHANG) * _SIDE:
        return False
    return len(np.unique(line)) >= _SOLID * (int(np.ptp(line)) + 1)
