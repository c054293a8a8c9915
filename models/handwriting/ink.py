"""Find the ink of one digit in a picture: its distance from the paper, without frames, lines, rings and other marks."""

from typing import NamedTuple

import numpy as np

from models.errors import InvalidInput
from models.handwriting import paper
from models.handwriting.circles import is_in_touching_circle
from models.handwriting.colours import no_ink
from models.handwriting.components import Box, box_of, parts_of, widened, without_shades, without_specks, writing
from models.handwriting.counts import SeveralDigits, require_one_digit
from models.handwriting.flat import flat_view
from models.handwriting.frames import has_four_edges, inside_frame
from models.handwriting.levels import otsu, smoothed
from models.handwriting.lines import without_lines
from models.handwriting.noise import noisy
from models.handwriting.ready import FAINTEST
from models.handwriting.rings import inside_ring
from models.handwriting.strikes import is_struck_through
from models.handwriting.view import View
from models.spec import Array

_LEAST_CONTRAST = float(FAINTEST)  # grey levels between paper and ink: less than this is noise
_SOFT = 2  # pixels of the soft edges of the ink
_LEAST_FRAME = 16  # pixels of the shorter side: a smaller shape, such as the stroke of a 1, is not a frame
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


class Writing(NamedTuple):
    """The marks of a picture that are writing, and the levels that tell ink from paper."""

    view: View
    marks: Array  # bool (height, width), as the view
    threshold: float
    strength: float  # of the ink
    ruled: bool

    def ink(self, marks: Array, *, ringed: bool) -> Ink:
        """Return the ink of some of the marks."""
        inner = box_of(marks)
        box = widened(inner, _SOFT, marks.shape)
        at_edge = not self.view.flat and any(
            part.start == 0 or part.stop == side for part, side in zip(inner, marks.shape, strict=True)
        )
        floor = self.threshold / 2
        ink = ((self.view.near[box] - np.float32(floor)) / np.float32(max(self.strength - floor, 1))).clip(0, 1)
        return Ink(np.where(_near(marks[box]), ink, np.float32(0)), marks[inner], ringed, self.ruled, at_edge)

    def place(self, box: Box) -> Box:
        """Return the place in the picture, in its pixels, of a box of the view."""
        scale = self.view.scale
        y, x = (
            slice(first + part.start * scale, first + part.stop * scale)
            for part, first in zip(box, self.view.corner, strict=True)
        )
        return y, x


def ink_in(colours: Array) -> Ink:
    """Find the digit in a picture, uint8 (channels, height, width). Raises InvalidInput if there is not one."""
    found = writing_in(colours)
    marks, ringed = found.marks, False
    if found.view.is_large:
        box = box_of(marks)
        inside = _one_digit(found, box)
        ringed = inside is not None
        if inside is not None:
            marks = np.zeros_like(marks)
            marks[box] = inside
    return found.ink(marks, ringed=ringed)


def writing_in(colours: Array) -> Writing:
    """Find the writing in a picture, uint8 (channels, height, width). Raises InvalidInput if there is none."""
    view = flat_view(colours) or _view(colours)
    smooth = smoothed(view.near) if view.is_large and view.scale == 1 else view.near
    threshold, strength = otsu(smooth)
    if strength < _LEAST_CONTRAST:
        raise no_ink()
    if _is_noise(view, strength):
        raise noisy()
    marks: Array = smooth > threshold
    ruled = False
    if view.is_large:
        plain = without_lines(marks, view.sides)
        ruled = plain is not marks and bool(np.count_nonzero(plain) < np.count_nonzero(marks))
        if ruled:
            threshold, strength = otsu(smooth[plain | ~marks])
            marks = plain & (smooth > threshold)
        if not view.flat:
            marks = writing(marks, view.far > threshold)
            if view.shaded:
                marks = without_shades(marks, view.near)
        elif not view.joined:
            marks = without_specks(marks, view.sides)
        if not marks.any():
            raise no_ink()
    return Writing(view, marks, threshold, strength, ruled)


def _view(colours: Array) -> View:
    """Return the distances from the paper inside the frame of a picture, uint8 (channels, height, width)."""
    colours, corner = inside_frame(colours)
    if paper.has_two_levels(colours):
        return View.whole(paper.distances(colours, paper.of_a_cut(colours)), corner=corner)
    fitted, surface = paper.smooth(colours)
    far = paper.distances(colours, fitted)
    if min(far.shape) < paper.LEAST_LOCAL or paper.fills_the_picture(colours, fitted, far):
        return View.whole(far, corner=corner)
    near, shaded = paper.local(colours, surface)
    if min(far.shape) < paper.FITTED_SIZE and not shaded:
        return View.whole(far, corner=corner)
    return View.whole(near if shaded else np.minimum(far, near), far, corner)._replace(shaded=shaded)


def _one_digit(found: Writing, box: Box) -> Array | None:
    """Return the marks of the digit, bool (height, width) of the box, if there is a ring around it; None if there is
    none. Raises SeveralDigits.
    """
    marks = found.marks[box]
    parts = parts_of(marks)
    try:
        require_one_digit(parts)
        inside = inside_ring(marks, parts)
        if inside is marks:
            return None
        require_one_digit(parts_of(inside))
    except SeveralDigits as err:
        place = found.place(box)
        raise err.moved((0, 0), found.view.scale).moved((place[0].start, place[1].start)) from None
    return inside


def _is_noise(view: View, strength: float) -> bool:
    """Whether many pixels differ much from their neighbours, or fewer do and most differ from the paper."""
    distance = view.near
    share = distance.size / (view.sides[0] * view.sides[1])  # beyond the view there are no steps
    if min(distance.shape) < 2:
        return False  # no neighbours
    steps = 0.0
    for one, other in ((distance[1:], distance[:-1]), (distance[:, 1:], distance[:, :-1])):
        step = np.maximum(one, other) - np.minimum(one, other) > strength / 2
        steps += share * np.count_nonzero(step) / step.size
    if steps <= _UNEVEN_STEPS:
        return False
    return steps > _MOST_STEPS or (share > 0.5 and float(np.median(distance)) > _MOST_NOISE * strength)


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
