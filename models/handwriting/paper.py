"""Estimate the colour of the paper at each pixel: a smooth surface, and that of the neighbourhood.

Colours are uint8 (channels, height, width), with one channel or three.
"""

from collections.abc import Iterator

import numpy as np
from PIL import Image

from models.handwriting.levels import percentile
from models.spec import Array

FITTED_SIZE = 80  # pixels, shorter side: the paper's colour is estimated at this size
_SAMPLED = 56  # pixels, shorter side: of the pixels that a surface is fitted to
_REACH = 10  # pixels of FITTED_SIZE: strokes of up to 2 * 10 + 1 pixels are not taken for paper
_FULL = 0.25  # share of the picture that is ink if it was cropped to the digit
_FAINTEST, _SAME = (
    0.25,
    0.7,
)  # of the strongest ink: lower bounds for marked pixels, for pixels of the same strength
_MOSTLY, _FEW = 0.45, 0.02  # of the marked pixels: soft edges are frequent in a small picture, flaws are rare
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


def fills_the_picture(colours: Array, paper: Array, distance: Array) -> bool:
    """Check whether much of the picture is ink of one strength, from the paper's colour and the distances from it.

    This is the case if the picture was cropped to the digit: then strokes may be too wide for `local`. The lit or
    shaded part of a page differs: its strength varies, or it has pixels both lighter and darker than the paper.
    """
    strength = percentile(distance, 0.99)
    marked = distance > _FAINTEST * strength
    if np.count_nonzero(marked) < _FULL * marked.size:
        return False
    total = [planes.sum(axis=0, dtype=np.int16) for planes in (colours, paper)]
    lighter = np.mean((total[0] > total[1])[marked])
    same = np.mean(distance[marked] > _SAME * strength)
    return bool(same > _MOSTLY and min(lighter, 1 - lighter) < _FEW)


def has_wide_marks(distance: Array) -> bool:
    """Whether `local` may take marks for paper: they hold a square of its size.

    `distance`, uint8 (height, width), is that from the paper; the outermost pixels are paper.
    """
    small = np.asarray(Image.fromarray(distance).reduce(min(distance.shape) // FITTED_SIZE))
    return bool(_extreme(small[None], np.minimum).max() > _WIDE)


def local(colours: Array, surface: Surface) -> Array:
    """Paper colour of each neighbourhood by morphological closing or opening, uint8, as large as `colours`.

    Removes structures narrower than a quarter of the picture: strokes vanish, the edge of a shadow stays, which a
    smooth surface does not follow. Closing removes dark ink, opening light ink; the one that removes more is used.
    """
    height, width = colours.shape[1:]
    factor = FITTED_SIZE / min(height, width)
    size = round(width * factor), round(height * factor)
    small = _resized(colours, size, Image.Resampling.BOX)
    without_dark = _extreme(_extreme(small, np.maximum), np.minimum)  # closing
    without_light = _extreme(_extreme(small, np.minimum), np.maximum)  # opening
    lighter = np.stack(list(surface.at(size[1], size[0]))) - small  # than the picture: dark ink
    # Fourth power: a lot of faint unevenness, as from a lamp, weighs less than a little ink.
    dark = (np.minimum(without_dark - small, lighter).clip(0) ** 4).sum()
    light = (np.minimum(small - without_light, -lighter).clip(0) ** 4).sum()
    paper = without_dark if dark >= light else without_light
    return _resized(paper, (width, height), Image.Resampling.BILINEAR)


def _resized(planes: Array, size: tuple[int, int], how: Image.Resampling) -> Array:
    """Resize each plane to (width, height): uint8 (channels, height, width)."""
    return np.stack([np.asarray(Image.fromarray(plane).resize(size, how)) for plane in planes])


def levels(values: Array) -> Array:
    """Convert values to grey levels, uint8 of the same shape."""
    found: Array = values.clip(0, 255).astype(np.uint8)
    return found


def _extreme(planes: Array, pick: np.ufunc) -> Array:
    """Grey dilation (np.maximum) or erosion (np.minimum) of planes, uint8, by a square, _REACH to each side.

    Several times as fast as scipy.ndimage.maximum_filter.
    """
    neutral = 0 if pick is np.maximum else 255
    for axis in (1, 2):
        length = 2 * _REACH + 1
        shape = list(planes.shape)
        shape[axis] += length - 1
        padded = np.full(shape, neutral, np.uint8)
        padded[(slice(None),) * axis + (slice(_REACH, -_REACH),)] = planes
        planes, reached = np.moveaxis(padded, axis, 0), 1
        while reached < length:
            step = min(reached, length - reached)
            planes = pick(planes[:-step], planes[step:])
            reached += step
        planes = np.moveaxis(planes, 0, axis)
    return planes
