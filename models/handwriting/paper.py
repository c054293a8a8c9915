"""Estimate the colour of the paper at each pixel: a smooth surface, and that of the neighbourhood.

Colours are uint8 (channels, height, width), with one channel or three.
"""

from collections.abc import Iterator

import numpy as np
from PIL import Image

from models.handwriting.levels import percentile
from models.spec import Array

FITTED_SIZE = 80  # pixels, shorter side: the paper's colour is estimated at this size
LEAST_LOCAL = 28  # pixels, shorter side: of a smaller picture the paper of the neighbourhood is not estimated
_SAMPLED = 40  # pixels, shorter side: of the pixels that a surface is fitted to
_REACH = 10  # pixels of FITTED_SIZE: strokes of up to 2 * 10 + 1 pixels are not taken for paper
_SHADED = 0.75  # of the lightest paper: darker paper is in a shadow
_DARKEST = 30  # grey level of paper in a shadow: darker pixels are not paper
_LOGARITHM = (255 * np.log1p(np.arange(256) / 16) / np.log1p(255 / 16)).astype(np.uint8)
_BLUR = 1  # pixels of FITTED_SIZE: the edge of a shadow is that unsharp at this size
_FULL = 0.25  # share of the picture that is ink if it was cropped to the digit
_FAINTEST, _SAME = (
    0.25,
    0.7,
)  # of the strongest ink: lower bounds for marked pixels, for pixels of the same strength
_MOSTLY, _FEW = 0.45, 0.02  # of the marked pixels: soft edges are frequent in a small picture, flaws are rare
_ALIKE, _FAR_APART = 20, 100  # grey levels: of one colour, and between paper and ink of a drawing
_MUCH, _SOFT_EDGES = 0.15, 0.5  # of the pixels: ink or paper at least, and the soft edges of a small drawing at most
_SHADE, _NARROW = 0.45, 2.0  # of the picture's side: no stroke is so wide; longer to shorter side
_STRONGER = 1.25  # of the strength of most marks: stronger marks are ink, the others are not
_WIDE_CORNER, _FILLED = 0.25, 0.97  # of the shorter side; of the square
_WIDE = 10  # levels from the paper: more is a mark
_LEVELS = -20, 295  # grey levels: a surface beyond them was fitted through ink and paper alike
_CORNER = 0.04  # of the shorter side


class Surface:
    """The paper's colour as a quadratic function of the place, for each channel."""

    def __init__(self, coefficients: Array) -> None:
        self._coefficients = coefficients  # float32 (channels, 6)

    def at(self, height: int, width: int) -> Iterator[Array]:
        """Yield the levels of each channel on a grid of this size over the picture, float32 (height, width)."""
        y, x = (np.linspace(-1, 1, side, dtype=np.float32) for side in (height, width))
        for one, across, down, both, across2, down2 in self._coefficients:
            plane = (down + both * x)[None, :] * y[:, None]
            plane += one + (across + across2 * x) * x
            plane += (down2 * y * y)[:, None]
            yield plane


def surface_of(colours: Array) -> Surface:
    """Paper colour at each pixel: robust fit of a quadratic surface to the pixels that are not ink.

    Three rounds, each without the pixels that are far from the last surface: the surface follows uneven light, and ink
    is left out as outliers. A subsample of the pixels suffices for six coefficients.
    """
    channels, height, width = colours.shape
    step = max(1, min(height, width) // _SAMPLED)
    y, x = (np.linspace(-1, 1, side, dtype=np.float32) for side in (height, width))
    sample = colours[:, ::step, ::step].reshape(channels, -1).astype(np.float32)  # (channels, N)
    terms = _second_degree(x[::step], y[::step])  # (6, N)
    paper: Array = np.median(sample, axis=1, keepdims=True)
    kept = np.zeros(0, bool)
    for _ in range(3):
        distance = np.abs(sample - paper).max(axis=0)
        before, kept = kept, distance <= max(2.0 * float(np.median(distance)), 12.0)
        if np.array_equal(before, kept):
            break  # the same pixels give the same surface
        weighted = terms * kept
        matrix = weighted @ terms.T + 1e-3 * np.eye(6, dtype=np.float32)
        solved = np.linalg.solve(matrix, weighted @ sample.T).T  # (channels, 6)
        paper = solved @ terms
    return Surface(solved)


def _second_degree(x: Array, y: Array) -> Array:
    """Terms of a quadratic surface on a grid, float32 (6, height * width)."""
    across, down = np.meshgrid(x, y)
    terms = np.stack([np.ones_like(across), across, down, across * down, across * across, down * down])
    return terms.reshape(6, -1)


def distances(colours: Array, paper: Array) -> Array:
    """Greatest absolute difference of all channels, uint8 (height, width); `paper` is as large, or (channels, 1, 1)."""
    found: Array | None = None
    for plane, other in zip(colours, paper, strict=True):
        distance = np.maximum(plane, other)
        distance -= np.minimum(plane, other)
        found = distance if found is None else np.maximum(found, distance, out=found)
    assert found is not None
    return found


def smooth(colours: Array) -> tuple[Array, Surface]:
    """Return the paper's colour as a smooth surface: its levels, uint8 as large as `colours` or (channels, 1, 1), and
    its function.
    """
    surface = surface_of(colours)
    fitted = np.empty_like(colours)
    for channel, plane in enumerate(surface.at(*colours.shape[1:])):
        if not (_LEVELS[0] <= plane.min() and plane.max() <= _LEVELS[1]):
            cut = of_a_cut(colours)
            return cut, Surface(np.pad(cut[:, :, 0].astype(np.float32), [(0, 0), (0, 5)]))
        fitted[channel] = levels(plane)
    return fitted, surface


def of_a_cut(colours: Array) -> Array:
    """Return the paper's colour, uint8 (channels, 1, 1), if no smooth surface can be the paper's.

    This is the case in pictures that were cut to the ink, of which half or more is ink. Paper is the dark or the light
    half of the pixels, whichever has more of the corners: a cut leaves paper there.
    """
    grey = colours.mean(axis=0)
    light = grey > (grey.min() + grey.max()) / 2
    size = max(1, round(_CORNER * min(grey.shape)))
    corners = [light[y, x].mean() for y in (slice(size), slice(-size, None)) for x in (slice(size), slice(-size, None))]
    border = np.concatenate([light[0], light[-1], light[:, 0], light[:, -1]]).mean()
    share = 2.0 * float(np.mean(np.array(corners) > 0.5)) + float(border)  # border decides between two and two corners
    paper: Array = np.median(colours[:, light if share > 1.5 else ~light], axis=1)
    return paper.astype(np.uint8)[:, None, None]


def has_two_levels(colours: Array) -> bool:
    """Whether a picture has one colour of flat paper and one of ink, but for soft edges, and much of both: as a drawing
    that was cut to the ink.
    """
    darkest, lightest = int(colours.min()), int(colours.max())
    if len(colours) > 1 or lightest - darkest < _FAR_APART:
        return False
    counts = np.array(Image.fromarray(colours[0]).histogram()).cumsum() / colours.size
    dark, light = counts[darkest + _ALIKE], 1 - counts[lightest - _ALIKE]
    return bool(min(dark, light) >= _MUCH and dark + light >= 1 - _SOFT_EDGES)


def fills_the_picture(colours: Array, paper: Array, distance: Array) -> bool:
    """Check whether much of the picture is ink of one strength, from the paper's colour and the distances from it.

    This is the case if the picture was cropped to the digit: then strokes may be too wide for `local`. The lit or
    shaded part of a page differs: its strength varies, or it has pixels both lighter and darker than the paper.
    """
    strength = percentile(distance, 0.99)
    marked = distance > _FAINTEST * strength
    if np.count_nonzero(marked) < _FULL * marked.size:
        return False
    total = [planes.sum(axis=0, dtype=np.int16) if len(planes) > 1 else planes[0] for planes in (colours, paper)]
    lighter = np.mean((total[0] > total[1])[marked])
    same = np.mean(distance[marked] > _SAME * strength)
    if same <= _MOSTLY or min(lighter, 1 - lighter) >= _FEW:
        return False
    if percentile(distance, 0.998) > _STRONGER * strength:
        return False  # there is ink in a shaded or lit part
    if _covers_corner(marked):
        return False
    side = int(_SHADE * marked.size**0.5)
    is_narrow = max(marked.shape) > _NARROW * min(marked.shape)  # as one that was cut to a 1
    return is_narrow or not over_window(over_window(marked, side, np.logical_and).T, side, np.logical_and).any()


def _covers_corner(marked: Array) -> bool:
    """Whether marks fill a square in a corner of the picture: no stroke is so wide."""
    side = max(1, round(_WIDE_CORNER * min(marked.shape)))
    ends = (slice(side), slice(-side, None))
    return any(np.count_nonzero(marked[y, x]) > _FILLED * side * side for y in ends for x in ends)


def has_wide_marks(distance: Array, shorter: float) -> bool:
    """Whether `local` may take marks for paper: they hold a square of its size.

    `distance`, uint8 (height, width), is that from the paper in a part of a picture of that shorter side.
    """
    side = int((2 * _REACH + 1) * shorter / FITTED_SIZE)
    if min(distance.shape) < side:
        return False
    eroded = over_window(over_window(distance, side, np.minimum).T, side, np.minimum)
    return bool(eroded.max() > _WIDE)


def over_window(planes: Array, length: int, combine: np.ufunc) -> Array:
    """Combine each pixel with the `length - 1` pixels below it: (height - length + 1, width)."""
    reached = 1
    while reached < length:
        step = min(reached, length - reached)
        planes = combine(planes[:-step], planes[step:])
        reached += step
    return planes


def local(colours: Array, surface: Surface) -> tuple[Array, bool]:
    """Return the distance of each pixel from the paper of its neighbourhood, uint8 (height, width), and whether some of
    the paper is in a shadow.

    The paper is found by morphological closing or opening, which removes structures narrower than a quarter of the
    picture: strokes vanish, the edge of a shadow stays, which a smooth surface does not follow. Closing removes dark
    ink, opening light ink; the one that removes more is used. At the edge of a shadow, paper is of any colour between
    the two sides. Dark ink differs less from paper in a shadow: the distance is in proportion to the paper's level.
    """
    height, width = colours.shape[1:]
    factor = FITTED_SIZE / min(height, width)
    size = round(width * factor), round(height * factor)
    small = _resized(colours, size, Image.Resampling.BOX)
    is_dark = _has_dark_ink(small, np.stack([levels(plane) for plane in surface.at(size[1], size[0])]))
    first, second = (np.maximum, np.minimum) if is_dark else (np.minimum, np.maximum)
    bound = _extreme(_filtered(small, first, second), second, _BLUR)
    found: Array | None = None
    shaded = False
    for plane, paper in zip(colours, _resized(bound, (width, height), Image.Resampling.BILINEAR), strict=True):
        distance = np.maximum(plane, paper) - plane if is_dark else plane - np.minimum(plane, paper)
        lightest = int(paper.max())
        if is_dark and int(paper.min()) < _SHADED * lightest:
            shaded = True
            distance = levels(distance * (np.float32(lightest) / np.maximum(paper, _DARKEST)))
        found = distance if found is None else np.maximum(found, distance, out=found)
    assert found is not None
    return found, shaded


def _has_dark_ink(small: Array, fitted: Array) -> bool:
    """Whether closing removes more than opening, so that ink is dark. The smooth surface is as large as the picture.

    Levels are compared by their ratio: that of ink and paper is the same in a shadow, and greater than that of a shadow
    and light. Fourth power: a lot of faint unevenness, as from a lamp, weighs less than a little ink.
    """
    logs, surface = _LOGARITHM[small], _LOGARITHM[fitted]
    without_dark = _filtered(logs, np.maximum, np.minimum)  # closing
    without_light = _filtered(logs, np.minimum, np.maximum)  # opening
    dark, light = (
        float((np.square(np.square(np.minimum(removed, beyond - np.minimum(beyond, one)).astype(np.float32)))).sum())
        for removed, beyond, one in (
            (without_dark - logs, np.maximum(surface, logs), logs),
            (logs - without_light, np.maximum(surface, logs), surface),
        )
    )
    return dark >= light


def _filtered(planes: Array, first: np.ufunc, second: np.ufunc) -> Array:
    """Closing (np.maximum, np.minimum) or opening of planes, uint8 (channels, height, width).

    The planes are continued beyond their edges: a narrow part of the paper there, as the corner of a shadow, stays.
    """
    wider = np.pad(planes, [(0, 0), (_REACH, _REACH), (_REACH, _REACH)], mode="edge")
    inner = slice(_REACH, -_REACH)
    return _extreme(_extreme(wider, first), second)[:, inner, inner]


def _resized(planes: Array, size: tuple[int, int], how: Image.Resampling) -> Array:
    """Resize each plane to (width, height): uint8 (channels, height, width)."""
    return np.stack([np.asarray(Image.fromarray(plane).resize(size, how)) for plane in planes])


def levels(values: Array) -> Array:
    """Convert values to grey levels, uint8 of the same shape."""
    found: Array = values.clip(0, 255).astype(np.uint8)
    return found


def _extreme(planes: Array, pick: np.ufunc, reach: int = _REACH) -> Array:
    """Grey dilation (np.maximum) or erosion (np.minimum) of planes, uint8, by a square, `reach` to each side.

    Several times as fast as scipy.ndimage.maximum_filter.
    """
    neutral = 0 if pick is np.maximum else 255
    for axis in (1, 2):
        length = 2 * reach + 1
        shape = list(planes.shape)
        shape[axis] += length - 1
        padded = np.full(shape, neutral, np.uint8)
        padded[(slice(None),) * axis + (slice(reach, -reach),)] = planes
        planes = np.moveaxis(over_window(np.moveaxis(padded, axis, 0), length, pick), 0, axis)
    return planes
