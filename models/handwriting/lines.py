"""Remove the printed lines of lined and squared paper from a mask of marks."""

import numpy as np
from numpy.typing import NDArray

from models.handwriting.paper import over_window

Mask = NDArray[np.bool_]

_THICK = 0.02  # of the picture's longer side: printed lines are thinner
_COVERED = 0.7  # of the picture's width: a line covers more of it, gaps where writing crosses it included
_SLOPES = np.linspace(-0.05, 0.05, 21)  # rows per column: lines turned by up to 3 degrees
_NEAR = 1  # rows on both sides of a line that belong to it


def without_lines(marks: Mask, sides: tuple[float, float] | None = None) -> Mask:
    """Return the marks, bool (height, width), without thin lines across the whole picture; the same object if there are
    none.

    Pixels at which a stroke crosses a line are kept: there the marks are thicker than the line. `sides`: those of the
    picture, if the marks are a part of it.
    """
    height, width = sides or marks.shape
    thick = max(3, round(_THICK * max(height, width)))
    found = _without_horizontal(marks, thick, _COVERED * width)
    turned = found.T
    across = _without_horizontal(turned, thick, _COVERED * height)
    return found if across is turned else across.T


def _without_horizontal(marks: Mask, thick: int, least: float) -> Mask:
    """Return the marks without thin, nearly horizontal lines that cover `least` columns; the same object if there are
    none.
    """
    if marks.shape[1] <= least or np.count_nonzero(marks.any(axis=0)) <= least:
        return marks
    thin = marks & ~_opened(marks, thick + 1)
    if np.count_nonzero(thin.any(axis=0)) <= least:
        return marks
    return marks & ~_lines(thin, thick, least)


def _lines(thin: Mask, thick: int, least: float) -> Mask:
    """Find the pixels of nearly horizontal lines that cover `least` columns among thin marks."""
    lines = np.zeros_like(thin)
    width = thin.shape[1]
    y, x = thin.nonzero()
    offset = width  # keeps the rows below positive
    shifts = np.rint(_SLOPES[:, None] * x).astype(np.int64)
    counts = [np.bincount(y - shift + offset) for shift in shifts]
    best = int(np.argmax([(count**2).sum() for count in counts]))
    rows = y - shifts[best] + offset
    for row in np.flatnonzero(np.convolve(counts[best], np.ones(2 * _NEAR + 1), "same") > least):
        near = np.abs(rows - row) <= _NEAR
        if len(np.unique(x[near])) > least:
            near = np.abs(rows - row) <= thick
            lines[y[near], x[near]] = True
    return lines


def _opened(marks: Mask, length: int) -> Mask:
    """Morphological opening by a vertical line: keep the marks that are `length` pixels high or higher."""
    padded = np.pad(marks, [(length, length), (0, 0)])
    eroded = over_window(padded, length, np.logical_and)
    return over_window(eroded, length, np.logical_or)[1 : len(marks) + 1]
