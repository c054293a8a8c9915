"""Find a circle or an ellipse that touches the digit inside it.

The outermost marks in all directions lie on an ellipse, and inside it are marks as large as a digit.
"""

import numpy as np
from numpy.typing import NDArray

from models.handwriting.components import box_of

Mask = NDArray[np.bool_]
Numbers = NDArray[np.float64]

_SIDE = 64  # pixels, longer side of the marks in which circles are searched
_LEAST_SIDE, _LEAST_MARKS = 16, 20  # pixels: fewer show no circle
_DIRECTIONS, _STEPS, _MOST_STEPS = 72, 40, 60  # steps of the profile from the centre to the outline, and beyond it
_TURN = 2 * np.pi * np.arange(_DIRECTIONS) / _DIRECTIONS
_SEEN, _KEPT = 0.8, 0.5  # of the directions: with marks at all, close to the ellipse
_OFF = 0.06  # of the radius: the outermost marks are that close to the ellipse
# Of 3,000 training digits 2 are taken for circled by these, both are 0, and so are 90 of 90 that a circle touches. The
# outlines of other zeros are narrower or thicker, or hold less.
_ON_ELLIPSE, _CLOSED = 0.86, 0.88  # of the directions
_LEAST_ROUND = 0.75  # shorter to longer half axis
_MOST_THICK = 0.23  # of the radius
_LEAST_SIZE, _MOST_SIZE = 0.93, 1.13  # longer half axis, in halves of the marks' longer side
_LEAST_INK, _LEAST_EXTENT = 0.05, 0.42  # of the ellipse's area, of its longer axis: the marks inside
_LEAST_PAPER = 0.33  # of the inside


def is_in_touching_circle(marks: Mask) -> bool:
    """Whether the outline of marks, bool (height, width), is a thin ellipse around marks that look like a digit."""
    shape = _shrunk(marks[box_of(marks)])
    height, width = shape.shape
    rows, columns = shape.nonzero()
    if min(height, width, len(rows)) < _LEAST_SIDE or len(rows) < _LEAST_MARKS:
        return False
    half = max(height, width) / 2
    y, x = (np.arange(side) - (side - 1) / 2 for side in (height, width))
    y, x = y / half, x / half
    fitted = _outline(x[columns], y[rows])
    if fitted is None:
        return False
    centre, form = fitted
    dx, dy = np.meshgrid(x - centre[0], y - centre[1])
    radius = np.sqrt(form[0, 0] * dx * dx + 2 * form[0, 1] * dx * dy + form[1, 1] * dy * dy)
    longer = float(1 / np.sqrt(np.linalg.eigvalsh(form)[0]))
    profile = np.zeros((_DIRECTIONS, _MOST_STEPS), bool)
    steps = (radius * _STEPS).astype(np.int64)
    marked = shape & (steps < _MOST_STEPS)
    profile[_direction(dx[marked], dy[marked]), steps[marked]] = True
    thick = _thickness(profile)
    return thick is not None and thick <= _MOST_THICK and _holds_digit(shape, radius, thick, longer * half)


def _shrunk(marks: Mask) -> Mask:
    """Shrink to _SIDE pixels; a pixel is marked if one of those that it covers is."""
    longer = max(marks.shape)
    if longer <= _SIDE:
        return marks
    for axis in (0, 1):
        starts = np.unique(np.arange(marks.shape[axis]) * _SIDE // longer, return_index=True)[1]
        marks = np.logical_or.reduceat(marks, starts, axis=axis)
    return marks


def _direction(dx: Numbers, dy: Numbers) -> NDArray[np.int64]:
    return (np.arctan2(dy, dx) / (2 * np.pi) * _DIRECTIONS).round().astype(np.int64) % _DIRECTIONS


def _outline(x: Numbers, y: Numbers) -> tuple[Numbers, Numbers] | None:
    """Fit an ellipse to the outermost pixels, without those that are far from the last fit: its centre, (2,), and its
    form, (2, 2), so that p is on it if (p - centre) form (p - centre) = 1. None if they are on no round ellipse.
    """
    centre, off = np.zeros(2), np.zeros(_DIRECTIONS)
    form = np.eye(2)
    for tolerance in (np.inf, 2 * _OFF, _OFF, _OFF):
        dx, dy = x - centre[0], y - centre[1]
        outermost = np.zeros(_DIRECTIONS)
        np.maximum.at(outermost, _direction(dx, dy), np.hypot(dx, dy))
        seen = outermost > 0
        kept = seen & (off < tolerance)
        if seen.sum() < _SEEN * _DIRECTIONS or kept.sum() < _KEPT * _DIRECTIONS:
            return None
        places = np.stack([centre[0] + outermost * np.cos(_TURN), centre[1] + outermost * np.sin(_TURN)])
        fitted = _ellipse(*places[:, kept])
        if fitted is None:
            return None
        centre, form = fitted
        apart = places - centre[:, None]
        off = np.abs(np.sqrt(np.einsum("ik,ij,jk->k", apart, form, apart)) - 1)
        off[~seen] = np.inf
    low, high = np.linalg.eigvalsh(form)
    fits = np.mean(off < _OFF) >= _ON_ELLIPSE and _LEAST_SIZE <= 1 / np.sqrt(low) <= _MOST_SIZE
    return (centre, form) if fits and low >= _LEAST_ROUND**2 * high else None


def _ellipse(x: Numbers, y: Numbers) -> tuple[Numbers, Numbers] | None:
    """Fit a conic by least squares: centre and form of the ellipse, None if it is none."""
    a, b, c, d, e = np.linalg.lstsq(np.stack([x * x, x * y, y * y, x, y], axis=1), np.ones(len(x)))[0]
    form = np.array([[a, b / 2], [b / 2, c]])
    if a <= 0 or np.linalg.det(form) <= 1e-9:
        return None
    centre = np.linalg.solve(2 * form, -np.array([d, e]))
    return centre, form / (1 + centre @ form @ centre)


def _thickness(profile: Mask) -> float | None:
    """Return the median thickness of the outline, in radii, from marks by direction and step; None if it is open."""
    around = slice(_STEPS - 4, _STEPS + 2)
    depths = []
    for row in profile[profile[:, around].any(axis=1)]:
        inward = row[int(np.flatnonzero(row[: around.stop])[-1]) :: -1]
        gaps = np.flatnonzero(~inward)
        depths.append(int(gaps[0]) if len(gaps) else len(inward))
    return float(np.median(depths)) / _STEPS if len(depths) >= _CLOSED * _DIRECTIONS else None


def _holds_digit(shape: Mask, radius: Numbers, thick: float, half_axis: float) -> bool:
    """Whether there are marks as large as a digit inside the outline, and paper around them."""
    inside = radius < 1 - 1.2 * thick
    content = shape & (radius < 1 - 1.4 * thick - 0.03)
    rows, columns = box_of(content)
    extent = max(int(rows.stop - rows.start), int(columns.stop - columns.start))
    round_area = np.pi * half_axis * half_axis
    return bool(
        np.count_nonzero(content) >= _LEAST_INK * round_area
        and extent >= _LEAST_EXTENT * 2 * half_axis
        and np.count_nonzero(inside & ~shape) >= _LEAST_PAPER * max(int(np.count_nonzero(inside)), 1)
    )
