"""Find the ink of one digit in a picture: its distance from the paper, without frames, lines, rings and other marks."""

from typing import NamedTuple

import numpy as np

from models.errors import InvalidInput
from models.handwriting import paper
from models.handwriting.circles import is_in_touching_circle
from models.handwriting.colours import no_ink
from models.handwriting.components import box_of, parts_of, writing
from models.handwriting.counts import SeveralDigits, require_one_digit
from models.handwriting.flat import distance_from_flat_paper
from models.handwriting.frames import Corner, has_four_edges, inside_frame
from models.handwriting.levels import otsu, smoothed
from models.handwriting.lines import without_lines
from models.handwriting.noise import noisy
from models.handwriting.ready import FAINTEST, FIELD
from models.handwriting.rings import inside_ring
from models.handwriting.strikes import is_struck_through
from models.spec import Array

_LEAST_CONTRAST = float(FAINTEST)  # grey levels between paper and ink: less than this is noise
_SOFT = 2  # pixels of the soft edges of the ink
_LEAST_FRAME = 16  # pixels of the shorter side: a smaller shape, such as the stroke of a 1, is no frame
_MOST_NOISE = 0.35  # of the ink's strength: the median distance from the paper
_MOST_STEPS, _UNEVEN_STEPS = 0.45, 0.15  # of the pairs of neighbours, in both directions together


class Ink(NamedTuple):
    """The ink of one digit."""

    strength: Array  # float32 (height, width) in 0..1: the distance of each pixel's colour from the paper's colour
    marks: Array  # bool (height, width): the digit and what touches it, in their bounding box
    ringed: bool  # there was a ring around the digit
    ruled: bool  # the paper is ruled
    at_edge: bool  # the digit reaches the edge of the picture, as in one that is cut to the ink, or a pattern

    def require_unmarked(self) -> None:
        """Raise InvalidInput if a circle or a frame touches the digit inside it, or a line goes through it.

        On ruled paper that may be a rest of a printed line.
        """
        if not self.ringed:
            if min(self.marks.shape) >= _LEAST_FRAME and has_four_edges(self.marks):
                raise InvalidInput("No ink found", "a frame touches the digit: send the digit without it")
            if is_in_touching_circle(self.marks):
                raise InvalidInput("No ink found", "a circle touches the digit: send the digit without it")
        if not self.ruled and is_struck_through(self.marks):
            raise InvalidInput("No ink found", "a line goes through the digit: send the digit without it")


def ink_in(colours: Array) -> Ink:
    """Find the digit in a picture, uint8 (channels, height, width). Raises InvalidInput if there is not one."""
    distance, far, corner = _distances(colours)
    smooth = smoothed(distance) if min(distance.shape) > 2 * FIELD else distance
    threshold, strength = otsu(smooth)
    if strength < _LEAST_CONTRAST:
        raise no_ink()
    if _is_noise(distance, strength):
        raise noisy()
    marks: Array = smooth > threshold
    ruled = ringed = False
    if min(marks.shape) > 2 * FIELD:
        plain = without_lines(marks)
        ruled = bool(np.count_nonzero(plain) < np.count_nonzero(marks))
        if ruled:
            threshold, strength = otsu(smooth[plain | ~marks])
            marks = plain & (smooth > threshold)
        marks = writing(marks, far > threshold)
        box = box_of(marks)
        try:
            inside = _one_digit(marks[box])
        except SeveralDigits as err:
            raise err.moved((corner[0] + box[0].start, corner[1] + box[1].start)) from None
        ringed = inside is not None
        if inside is not None:
            marks[box] = inside
    inner, box = box_of(marks), box_of(marks, margin=_SOFT)
    at_edge = any(part.start == 0 or part.stop == side for part, side in zip(inner, marks.shape, strict=True))
    ink = ((distance[box] - np.float32(threshold / 2)) / np.float32(max(strength - threshold / 2, 1))).clip(0, 1)
    return Ink(np.where(_near(marks[box]), ink, np.float32(0)), marks[inner], ringed, ruled, at_edge)


def _distances(colours: Array) -> tuple[Array, Array, Corner]:
    """Distance of each pixel from the paper around it, and from that of the whole picture: uint8 (height, width) both.

    The picture, uint8 (channels, height, width), is cut to the inside of a frame, whose upper left corner is returned.
    """
    flat = distance_from_flat_paper(colours)
    if flat is not None:
        return flat, flat, (0, 0)
    colours, corner = inside_frame(colours)
    fitted, surface = paper.smooth(colours)
    far = paper.distances(colours, fitted)
    if min(far.shape) < paper.FITTED_SIZE or paper.fills_the_picture(colours, fitted, far):
        return far, far, corner
    return np.minimum(far, paper.distances(colours, paper.local(colours, surface))), far, corner


def _one_digit(marks: Array) -> Array | None:
    """Return the marks of the digit, bool (height, width), if there is a ring around it; None if there is none.

    Raises InvalidInput if there are several digits, or no marks.
    """
    if not marks.any():
        raise no_ink()
    parts = parts_of(marks)
    require_one_digit(parts)
    inside = inside_ring(marks, parts)
    if inside is marks:
        return None
    require_one_digit(parts_of(inside))
    return inside


def _is_noise(distance: Array, strength: float) -> bool:
    """Whether many pixels differ much from their neighbours, or fewer do and most differ from the paper."""
    if min(distance.shape) < 2:
        return False  # no neighbours
    steps = 0.0
    for one, other in ((distance[1:], distance[:-1]), (distance[:, 1:], distance[:, :-1])):
        step = np.maximum(one, other) - np.minimum(one, other) > strength / 2
        steps += np.count_nonzero(step) / step.size
    if steps <= _UNEVEN_STEPS:
        return False
    return steps > _MOST_STEPS or float(np.median(distance)) > _MOST_NOISE * strength


def _near(mask: Array) -> Array:
    """Binary dilation of the mask by _SOFT pixels on each side, to include the soft edges of the ink."""
    for _ in range(_SOFT):
        grown = mask.copy()
        grown[1:] |= mask[:-1]
        grown[:-1] |= mask[1:]
        mask = grown.copy()
        mask[:, 1:] |= grown[:, :-1]
        mask[:, :-1] |= grown[:, 1:]
    return mask
