"""The cheap, sure case: thin ink of one kind on flat paper, with nothing around it. Most drawings and scans are such.

Only the part of the picture with marks is looked at further, reduced to a few times the size that a digit needs. Other
pictures are left to `paper` and `frames`, which take several times as long.
"""

import numpy as np
from PIL import Image

from models.handwriting.components import Box, box_of, parts_of
from models.handwriting.frames import CONTRAST, may_hold_frame
from models.handwriting.paper import FITTED_SIZE, distances, has_wide_marks
from models.handwriting.view import View
from models.spec import Array

_SAME = 10  # grey levels: pixels of flat paper differ less
_MARGIN = 4  # pixels of paper around the marks: more than their soft edges
_ENOUGH = 64  # pixels of a square as large as the marks' box: marks of twice this size are reduced
_EDGE, _ALONG = 0.06, 0.8  # of a side: marks that are that close to the edge, and that long, may be a frame around all


def flat_view(colours: Array) -> View | None:
    """Return the distances of the marks from the paper; None if the paper may not be flat.

    The picture is uint8 (channels, height, width). Paper is flat if all outermost pixels have its colour, and no marks
    are so wide that they may be other paper. The marks must be all darker than the paper or all lighter, and none of
    them a frame.
    """
    if min(colours.shape[1:]) < FITTED_SIZE:
        return None
    edges = np.sort(
        np.concatenate([colours[:, 0], colours[:, -1], colours[:, :, 0], colours[:, :, -1]], axis=1), axis=1
    )
    if int((edges[:, -1] - edges[:, 0]).max()) > _SAME:
        return None
    found = _marked(colours, edges[:, edges.shape[1] // 2, None, None])
    if found is None:
        return None
    box, marked = found
    if not marked.size:
        return View.whole(np.zeros(colours.shape[1:], np.uint8), flat=True)
    shape = colours.shape[1:]
    view = View.part(marked, box, shape, max(1, int(marked.size**0.5) // _ENOUGH))
    if has_wide_marks(view.near, min(view.sides)):
        return None
    parts = parts_of(view.near > CONTRAST)
    return None if may_hold_frame(parts, view.sides) else view._replace(joined=len(parts.boxes) == 1)


def _may_be_around(box: Box, shape: tuple[int, ...]) -> bool:
    """Whether marks in a box reach the margin of the picture, and are as long as one of its sides."""
    return any(
        part.stop - part.start > _ALONG * side and (other.start < _EDGE * width or other.stop > (1 - _EDGE) * width)
        for part, side, other, width in zip(box, shape, box[::-1], shape[::-1], strict=True)
    )


def _marked(colours: Array, paper: Array) -> tuple[Box, Array] | None:
    """Return the box of the marks and their distance from the paper; None if they are darker and lighter, or around.

    The distance is empty if there are no marks.
    """
    shape = colours.shape[1:]
    distance = None
    if len(colours) == 1:
        level, plane = int(paper.item()), colours[0]
        if is_darker := level - int(plane.min()) > CONTRAST:
            marks = plane < level - CONTRAST
        if int(plane.max()) - level > CONTRAST:
            if is_darker:
                return None
            marks = plane > level + CONTRAST
        elif not is_darker:
            return (slice(0), slice(0)), plane[:0]
    else:
        distance = distances(colours, paper)
        marks = distance > CONTRAST
        if not marks.any():
            return (slice(0), slice(0)), distance[:0]
    box = box_of(marks, margin=_MARGIN)
    if _may_be_around(box, shape):
        return None
    if distance is None:
        return box, distances(colours[:, *box], paper)
    is_sure = _is_one_sided(colours[:, *box], paper, min(shape) // FITTED_SIZE)
    return (box, distance[box]) if is_sure else None


def _is_one_sided(colours: Array, paper: Array, step: int) -> bool:
    """Whether all marks in three channels are darker than the paper, or all lighter, averaged over `step` pixels."""
    small = [np.asarray(Image.fromarray(plane).reduce(step)).astype(np.int16) for plane in colours]
    difference = (sum(small[1:], small[0]) - int(paper.sum())) / len(small)
    return bool(-difference.min() <= CONTRAST or difference.max() <= CONTRAST)
