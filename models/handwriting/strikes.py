"""Find a straight line through a digit."""

import numpy as np
from numpy.typing import NDArray

from models.handwriting.components import box_of

Mask = NDArray[np.bool_]
Places = NDArray[np.int64]

_SIDE = 48  # pixels, longer side of the marks in which lines are searched
_ANGLES = np.radians(np.linspace(-60, 60, 33))  # of lines, from level, downwards to the right: most stems are steeper
_COS, _SIN = np.cos(_ANGLES)[:, None], np.sin(_ANGLES)[:, None]
_OVERHANG = 0.07  # of the marks' longer side: a line through a digit extends beyond it on both sides
_STEM, _OVERHANG_OF_STEM = 0.3, 0.12  # of that side: width of a single stroke below a level line, as in a 4
_LEVEL, _STEM_OF_4 = np.radians(30), np.radians(-42)
# Length of each overhang in its widths, at least: the bar and the slanted stem of a 4 and the bar of a 7 end in shorter
# and thicker strokes. Of 3,000 training digits, 2 are taken for struck through by these.
_LONG_LEVEL, _LONG_STEEP, _LONG_STEM = 1.3, 1.3, 4
_THICKER = 2  # pixels of _SIDE: the line may be that much thicker than the other strokes
_REACH = 0.12  # of the marks' longer side: the marks reach as far from the line, on each side of it
_ON_EACH_SIDE = 0.12  # of the marks without the line: on each of its sides
_SOLID = 0.95  # of a line's length is marked
_FAR = 2 * _SIDE  # more than any distance


def is_struck_through(marks: Mask) -> bool:
    """Whether a straight line crosses marks, bool (height, width), and extends far beyond them on both sides."""
    y, x, thick = _places(marks)
    if not len(y):
        return False
    along = np.rint(x * _COS + y * _SIN).astype(np.int64)  # (33, N)
    across = np.rint(y * _COS - x * _SIN).astype(np.int64)  # downwards
    along -= along.min(axis=1, keepdims=True)
    across -= across.min(axis=1, keepdims=True)
    overhang = int(_OVERHANG * _SIDE)
    thin = (_extent(across, along <= overhang) <= thick + 2 + _THICKER) & (
        _extent(across, along >= along.max(axis=1, keepdims=True) - overhang) <= thick + 2 + _THICKER
    )
    return any(
        _crossed(along[k], across[k], float(_ANGLES[k]), width)
        for k in np.flatnonzero(thin)
        for width in (thick, thick + _THICKER)
    )


def _places(marks: Mask) -> tuple[Places, Places, int]:
    """Return rows and columns of marks scaled to _SIDE, int64 (N), and the width of their strokes.

    That width is the ink by half of its outline.
    """
    marks = marks[box_of(marks)]
    if not marks.size:
        nowhere = np.zeros(0, np.int64)
        return nowhere, nowhere, 0
    step = max(*marks.shape, 2) - 1
    grid = np.zeros((_SIDE + 3, _SIDE + 3), bool)
    rows, columns = (np.arange(side) * _SIDE // step for side in marks.shape)
    (down, top), (right, left) = (np.unique(places, return_index=True) for places in (rows, columns))
    shrunk = np.logical_or.reduceat(np.logical_or.reduceat(marks, top, axis=0), left, axis=1)
    grid[down[:, None] + 1, right + 1] = shrunk
    outline = (grid[1:] != grid[:-1]).sum() + (grid[:, 1:] != grid[:, :-1]).sum()
    y, x = grid.nonzero()
    return y, x, max(2, round(2.2 * len(y) / float(outline)))


def _extent(across: Places, wanted: Mask) -> Places:
    """Return the extent of the wanted pixels across each direction, int64 (33)."""
    low, high = np.where(wanted, across, _FAR), np.where(wanted, across, -_FAR)
    extent: Places = high.max(axis=1) - low.min(axis=1)
    return extent


def _crossed(along: Places, across: Places, angle: float, thick: int) -> bool:
    """Whether a line of this direction, in radians from level, crosses the pixels and extends beyond them."""
    starts, ends = across[along <= 1], across[along >= along.max() - 1]  # the line's ends are among these
    least = int(_REACH * _SIDE) + 1
    first = max(int(starts.min()) - thick + 1, int(ends.min()) - thick + 1, least)
    last = min(int(starts.max()), int(ends.max()), int(across.max()) - thick - least)
    if first > last:
        return False
    up_to = np.bincount(across).cumsum().tolist()  # number of pixels in this row or above
    for top in range(first, last + 1):
        above, below = up_to[top - 2], up_to[-1] - up_to[top + thick]
        even = _ON_EACH_SIDE <= above / max(above + below, 1) <= 1 - _ON_EACH_SIDE
        if even and _is_line(along, across - top, angle, thick):
            return True
    return False


def _is_line(along: Places, across: Places, angle: float, thick: int) -> bool:
    """Whether the pixels with `across` in 0..thick are a line through the others, with long and thin overhangs."""
    line, above, below = along[(across >= 0) & (across < thick)], along[across < -1], along[across > thick]
    if not len(line):
        return False
    first, last = min(above.min(), below.min()), max(above.max(), below.max())
    lengths = first - line.min(), line.max() - last
    stem = abs(angle) < _LEVEL and np.ptp(below) <= _STEM * _SIDE
    if min(lengths) <= (_OVERHANG_OF_STEM if stem else _OVERHANG) * _SIDE:
        return False
    inks = (along < first).sum(), (along > last).sum()
    widest = max(ink / length for ink, length in zip(inks, lengths, strict=True))
    long = _LONG_STEM if angle < _STEM_OF_4 else _LONG_STEEP if abs(angle) >= _LEVEL else _LONG_LEVEL
    if min(lengths) < long * widest:
        return False
    return len(np.unique(line)) >= _SOLID * (int(np.ptp(line)) + 1)
