"""Normalise pictures of handwriting to the form of the MNIST files: white ink on black, 28x28, centred.

The MNIST files were made by scaling the ink into a box of 20x20, keeping its proportions, and moving its centre of
mass to the centre of a field of 28x28 (LeCun, Cortes, Burges: the MNIST database of handwritten digits).
"""

import numpy as np
from PIL import Image

from models.errors import InvalidInput
from models.handwriting import paper
from models.handwriting.circles import is_in_touching_circle
from models.handwriting.colours import colours_of, no_ink
from models.handwriting.components import box_of, is_one_digit, writing
from models.handwriting.counts import digits_in
from models.handwriting.frames import has_four_edges, inside_frame
from models.handwriting.levels import otsu, smoothed
from models.handwriting.lines import without_lines
from models.handwriting.noise import noisy
from models.handwriting.plainness import looks_plain
from models.handwriting.ready import FAINTEST, FIELD, as_it_is
from models.handwriting.rings import inside_ring
from models.handwriting.strikes import is_struck_through
from models.picture_files.stripped import damaged_picture
from models.spec import Array

BOX = 20  # pixels, the ink
_LEAST_CONTRAST = float(FAINTEST)  # grey levels between paper and ink: less than this is noise
_SOFT = 2  # pixels of the soft edges of the ink
_LEAST_FRAME = 16  # pixels of the shorter side: a smaller shape, such as the stroke of a 1, is no frame
_MOST_NOISE = 0.35  # of the ink's strength: the median distance from the paper
_MOST_STEPS, _UNEVEN_STEPS = 0.45, 0.15  # of the pairs of neighbours, in both directions together
_MOST_INK = 200  # grey levels: lower bound of the strongest ink in a picture in the form of MNIST


def read_digit(picture: Image.Image) -> Array:
    """Normalise a picture of one digit: uint8 (28, 28), white ink on black. Raises InvalidInput if there is no ink.

    A 28x28 grey picture with light ink on black is returned unchanged.
    """
    try:
        if picture.size == (FIELD, FIELD) and picture.mode == "L":  # larger ones are not decoded at full size
            field = as_it_is(np.asarray(picture))
            if field is not None:
                return field
        colours = colours_of(picture)
    except (OSError, SyntaxError, EOFError, ValueError, Image.DecompressionBombError) as err:  # raised while decoding
        if isinstance(err, InvalidInput):
            raise
        raise damaged_picture() from err
    field = _already_a_field(colours)
    return _read(inside_frame(colours)) if field is None else field


def _read(colours: Array) -> Array:
    """Find the digit in a picture, float32 (channels, height, width), and normalise it: uint8 (28, 28).

    Raises InvalidInput if it does not look like a plain digit. On ruled paper this is not checked: rests of the lines
    may be around a digit.
    """
    ink, ruled = _find_ink(colours)
    field = to_field(ink)
    if not ruled and not looks_plain(field):
        raise no_digit()
    return field


def _already_a_field(colours: Array) -> Array | None:
    """Convert a picture in the form of MNIST, but colour mode or dark on light: uint8 (28, 28), else None."""
    if colours.shape[1:] != (FIELD, FIELD) or np.ptp(colours, axis=0).max() > _LEAST_CONTRAST:
        return None
    grey = colours.mean(axis=0)
    field = 255 - grey if _border(grey).mean() > 127 else grey
    rows, columns = (np.flatnonzero(field.max(axis=axis) >= _LEAST_CONTRAST) for axis in (1, 0))
    if not len(rows) or _border(field).max() >= _LEAST_CONTRAST or field.max() < _MOST_INK:
        return None
    if not BOX - 2 <= max(np.ptp(rows), np.ptp(columns)) + 1 <= BOX:
        return None
    centre = [(field.sum(axis=axis) * np.arange(FIELD)).sum() / field.sum() for axis in (1, 0)]
    return field.round().astype(np.uint8) if all(12.5 <= place <= 14.5 for place in centre) else None


def _border(array: Array) -> Array:
    return np.concatenate([array[0], array[-1], array[:, 0], array[:, -1]])


def _find_ink(colours: Array) -> tuple[Array, bool]:
    """Ink strength, float32 (height, width) in 0..1: the distance of each pixel's colour from the paper's colour; and
    whether the paper is ruled.

    The picture, float32 (channels, height, width), is cut to the ink and a margin.
    """
    surface = paper.surface_of(colours)
    if (cut := paper.of_a_cut(colours, surface)) is not None:
        surface = np.broadcast_to(cut, colours.shape)
    difference = colours - surface
    far = distance = paper.farthest(difference)
    if min(distance.shape) >= paper.FITTED_SIZE and not paper.fills_the_picture(difference, distance):
        distance = np.minimum(distance, paper.farthest(colours - paper.local(colours, surface)))
    small = distance.clip(0, 255).astype(np.uint8)
    smooth = smoothed(small) if min(small.shape) > 2 * FIELD else small
    threshold, strength = otsu(smooth)
    if strength < _LEAST_CONTRAST:
        raise no_ink()
    if _is_noise(distance, strength):
        raise noisy()
    marks: Array = smooth > threshold
    ruled = False
    if min(marks.shape) > 2 * FIELD:
        plain = without_lines(marks)
        ruled = bool(np.count_nonzero(plain) < np.count_nonzero(marks))
        if ruled:
            threshold, strength = otsu(smooth[plain | ~marks])
            marks = plain & (smooth > threshold)
        marks = _one_digit(writing(marks, far > threshold), ruled=ruled)
    else:
        _require_nothing_around(marks[box_of(marks)])
    box = box_of(marks, margin=_SOFT)
    ink = ((distance[box] - threshold / 2) / max(strength - threshold / 2, 1.0)).clip(0, 1)
    inked: Array = np.where(_near(marks[box]), ink, 0).astype(np.float32)
    return inked, ruled


def _one_digit(marks: Array, *, ruled: bool) -> Array:
    """Return the marks of the digit, without a ring around it. Raises InvalidInput if there are several digits, or a
    line through the digit; on ruled paper that may be a rest of a printed line.
    """
    if not marks.any():
        raise no_ink()
    box = box_of(marks)
    whole = marks[box]
    inside = inside_ring(whole)
    count = digits_in(whole)
    if inside is not whole:
        count = max(count, digits_in(inside))
    if inside is whole:
        _require_nothing_around(whole)
    if count > 1:
        raise InvalidInput("Several digits", f"this looks like {count} digits: send one")
    if not ruled and is_struck_through(inside):
        raise InvalidInput("No ink found", "a line goes through the digit: send the digit without it")
    if inside is whole:
        return marks
    found = np.zeros_like(marks)
    found[box] = inside
    return found


def _require_nothing_around(marks: Array) -> None:
    """Raise InvalidInput if a circle or a frame touches the digit inside it: without them a part of it would be lost.

    `marks`, bool (height, width), fill their bounding box.
    """
    if min(marks.shape) >= _LEAST_FRAME and has_four_edges(marks):
        raise InvalidInput("No ink found", "a frame touches the digit: send the digit without it")
    if is_in_touching_circle(marks):
        raise InvalidInput("No ink found", "a circle touches the digit: send the digit without it")


def _is_noise(distance: Array, strength: float) -> bool:
    """Whether many pixels differ much from their neighbours, or fewer do and most differ from the paper."""
    if min(distance.shape) < 2:
        return False  # no neighbours
    steps = 0.0
    for one, other in ((distance[1:], distance[:-1]), (distance[:, 1:], distance[:, :-1])):
        step = np.abs(one - other) > strength / 2
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


def to_field(ink: Array) -> Array:
    """Crop the ink (0..1), scale it into the box and centre it by mass: uint8 (28, 28)."""
    rows, columns = (np.flatnonzero(ink.max(axis=axis) > 0.3) for axis in (1, 0))
    if not len(rows) or not len(columns):
        raise no_ink()
    cropped = ink[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    scale = BOX / max(cropped.shape)
    height, width = (max(1, round(side * scale)) for side in cropped.shape)
    scaled = Image.fromarray((cropped * 255).astype(np.uint8)).resize((width, height), Image.Resampling.LANCZOS)
    digit = np.asarray(scaled)
    mass = digit.astype(np.float64) + 1e-9
    centre_y = (mass.sum(axis=1) * np.arange(height)).sum() / mass.sum()
    centre_x = (mass.sum(axis=0) * np.arange(width)).sum() / mass.sum()
    top = min(max(round(FIELD / 2 - 0.5 - centre_y), 0), FIELD - height)
    left = min(max(round(FIELD / 2 - 0.5 - centre_x), 0), FIELD - width)
    if not is_one_digit(digit):
        raise no_digit()
    field = np.zeros((FIELD, FIELD), np.uint8)
    field[top : top + height, left : left + width] = digit
    return field


def no_digit() -> InvalidInput:
    """Build the error for marks that are not a digit: a texture, noise, a filled shape."""
    return InvalidInput(
        "No ink found", "the marks in the picture do not look like one digit: send one digit on plain paper"
    )
