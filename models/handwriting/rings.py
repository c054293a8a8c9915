"""Remove the circle around a circled digit from a mask of marks."""

import numpy as np
from numpy.typing import NDArray

Mask = NDArray[np.bool_]

_LEAST_CONTENT = 0.25  # of the ring's longer side: smaller marks inside it are no digit
_DIRECTIONS, _CLOSED = 36, 0.85  # of the directions from the inside, the share in which a ring has marks
_LEAST_SIDE = 0.3  # of the marks' longer side: a smaller component is no ring
_ELLIPSE = 0.93  # intersection over union of a ring's outline with the ellipse of the same moments
_COARSE, _COARSE_ELLIPSE = 48, 0.88  # pixels of the longer side, at least, and that ratio, in a first look
_MOST_THICK = 0.3  # of the ellipse's radius: thicker strokes are those of a zero
_INNER = 1.5  # thicknesses of the ring, from its outline to what it holds
_LEAST_INK = 0.03  # of the ellipse's area: a touching digit has more ink inside the ring


def inside_ring(marks: Mask) -> Mask:
    """Return the marks, bool (height, width), inside a ring that holds marks as large as a digit; else all marks.

    A ring is a component around others, closed or nearly so, or the outline of a component that is an ellipse.
    """
    from scipy import ndimage  # noqa: PLC0415 - 0.2 s and 30 MB, only for processes that read photos

    labels, count = ndimage.label(marks, np.ones((3, 3), bool))
    boxes = ndimage.find_objects(labels)
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
        content = _touching(labels[boxes[ring - 1]] == ring)
        if content is not None:
            inside = np.zeros_like(marks)
            inside[boxes[ring - 1]] = content
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


def _touching(shape: Mask) -> Mask | None:
    """Return what a component holds inside its outline, if that is a thin ellipse and holds a digit; else None."""
    if max(shape.shape) >= 2 * _COARSE and _ellipse(_coarse(shape), _COARSE_ELLIPSE) is None:
        return None
    ellipse = _ellipse(shape, _ELLIPSE)
    if ellipse is None:
        return None
    area, radius, angle = ellipse
    thick = _thickness(shape, radius, angle)
    if thick > _MOST_THICK:
        return None
    content: Mask = shape & (radius < 1 - _INNER * thick)
    rows, columns = (np.flatnonzero(content.any(axis=axis)) for axis in (1, 0))
    if content.sum() < _LEAST_INK * area or max(np.ptp(rows), np.ptp(columns)) < _LEAST_CONTENT * max(shape.shape):
        return None
    return content


def _coarse(shape: Mask) -> Mask:
    """Shrink a component to _COARSE..2 * _COARSE pixels; a pixel is marked if one of those that it covers is."""
    factor = max(shape.shape) // _COARSE
    height, width = (-(-side // factor) for side in shape.shape)
    padded = np.zeros((height * factor, width * factor), bool)
    padded[: shape.shape[0], : shape.shape[1]] = shape
    shrunk: Mask = np.any(padded.reshape(height, factor, width, factor), axis=(1, 3))
    return shrunk


def _ellipse(shape: Mask, least: float) -> tuple[int, NDArray[np.float64], NDArray[np.float64]] | None:
    """Return the area inside an outline, and the radius (1 at the outline) and angle of each pixel, float64 (height,
    width), if its overlap with the ellipse of the same moments is `least` or more; else None.
    """
    from scipy import ndimage  # noqa: PLC0415 - see inside_ring

    filled = ndimage.binary_fill_holes(shape)
    area = int(filled.sum())
    y, x = filled.nonzero()
    spread = np.cov(np.stack([y, x])) if area > 2 else np.zeros((2, 2))
    if np.linalg.det(spread) < 1:
        return None
    ys, xs = np.ogrid[: shape.shape[0], : shape.shape[1]]
    dy, dx = ys - y.mean(), xs - x.mean()
    inverse = np.linalg.inv(spread)
    radius = np.sqrt((inverse[0, 0] * dy**2 + 2 * inverse[0, 1] * dy * dx + inverse[1, 1] * dx**2) / 4)
    ellipse = radius <= 1
    if (filled & ellipse).sum() < least * (filled | ellipse).sum():
        return None
    return area, radius, np.arctan2(dy, dx)


def _thickness(shape: Mask, radius: NDArray[np.float64], angle: NDArray[np.float64]) -> float:
    """Return the median thickness of the outline, in radii, over all directions."""
    direction = ((angle / (2 * np.pi) * _DIRECTIONS).round().astype(np.int64)) % _DIRECTIONS
    steps = np.clip(radius * 50, 0, 60).astype(np.int64)
    marked = np.zeros((_DIRECTIONS, 61), bool)
    marked[direction[shape], steps[shape]] = True
    free = np.zeros((_DIRECTIONS, 61), bool)
    free[direction[~shape], steps[~shape]] = True
    outer = [int(np.flatnonzero(row)[-1]) if row.any() else 0 for row in marked]
    depths = []
    for row, start in zip(marked & ~free | marked, outer, strict=True):
        inward = row[start::-1]
        gaps = np.flatnonzero(~inward)
        depths.append(int(gaps[0]) if len(gaps) else start)
    return float(np.median(depths)) / 50
