"""Generate pictures of digits with other marks: circled, struck through, several on a page, cut without a margin; and
noise of 28x28 pixels.

Each maker takes ink, uint8 (28, 28), white on black, and a random generator for everything that varies.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import partial

import numpy as np
from PIL import Image, ImageDraw

from models.spec import Array
from tests.odd_pictures import Maker, as_jpeg

Colour = tuple[int, int, int]
Box = tuple[float, float, float, float]  # left, top, right, bottom
_PENS: list[Colour] = [(0, 0, 0), (20, 20, 20), (30, 50, 140), (200, 40, 40), (90, 90, 90)]


def _pen(random: np.random.Generator) -> Colour:
    return _PENS[int(random.integers(len(_PENS)))]


def _cut(ink: Array) -> Array:
    """The ink without its margins."""
    rows, columns = (np.flatnonzero(ink.max(axis=axis) > 60) for axis in (1, 0))
    return ink[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]


def _put(page: Image.Image, ink: Array, pen: Colour, centre: tuple[float, float], scale: float) -> Box:
    """Write a digit, `scale` pixels for each of its own, and return its box."""
    cut = Image.fromarray(_cut(ink))
    size = max(2, round(cut.width * scale)), max(2, round(cut.height * scale))
    left, top = round(centre[0] - size[0] / 2), round(centre[1] - size[1] / 2)
    page.paste(pen, (left, top), cut.resize(size, Image.Resampling.BICUBIC))
    return left, top, left + size[0], top + size[1]


def _page(random: np.random.Generator, least: int = 100) -> Image.Image:
    sides = [int(side) for side in random.integers(least, 420, 2)]
    if random.random() < 0.5:
        sides[1] = sides[0]
    level = int(random.integers(235, 256))
    return Image.new("RGB", (sides[0], sides[1]), (level, level, level))


def _written(ink: Array, random: np.random.Generator, share: tuple[float, float]) -> tuple[Image.Image, Box, Colour]:
    """A page with a digit whose longer side is a share of the page's shorter one."""
    page, pen = _page(random), _pen(random)
    side = min(page.size) * random.uniform(*share)
    slack = [(whole - side) / 2 * 0.5 for whole in page.size]
    centre = (
        page.width / 2 + random.uniform(-1, 1) * slack[0],
        page.height / 2 + random.uniform(-1, 1) * slack[1],
    )
    return page, _put(page, ink, pen, centre, side / max(_cut(ink).shape)), pen


def circled(room: tuple[float, float], ink: Array, random: np.random.Generator) -> Image.Image:
    """A digit with an ellipse around it; `room` is the range of the ellipse's radius in half diagonals of the digit."""
    page, (left, top, right, bottom), pen = _written(ink, random, (0.3, 0.55))
    x, y = (left + right) / 2, (top + bottom) / 2
    half = np.hypot(right - left, bottom - top) / 2 * random.uniform(*room)
    flat = random.uniform(0.8, 1.0)
    radii = (half * flat, half) if random.random() < 0.5 else (half, half)
    width = max(1, round(half * random.uniform(0.03, 0.12)))
    colour = pen if random.random() < 0.6 else _pen(random)
    box = (x - radii[0], y - radii[1], x + radii[0], y + radii[1])
    if random.random() < 0.7:
        ImageDraw.Draw(page).ellipse(box, outline=colour, width=width)
    else:  # by hand: it does not close quite
        start = random.uniform(0, 360)
        ImageDraw.Draw(page).arc(box, start, start + random.uniform(335, 360), fill=colour, width=width)
    return page


def struck(steep: bool, ink: Array, random: np.random.Generator) -> Image.Image:
    """A digit with a line through it: level, or across from corner to corner."""
    page, (left, top, right, bottom), pen = _written(ink, random, (0.35, 0.7))
    x, y, side = (left + right) / 2, (top + bottom) / 2, max(right - left, bottom - top)
    angle = random.uniform(25, 60) if steep else random.uniform(-15, 15)
    turn = np.radians(angle * random.choice([-1, 1]))
    reach = abs((right - left) / 2 * np.cos(turn)) + abs((bottom - top) / 2 * np.sin(turn)) * (0.7 if steep else 0.3)
    reach += side * random.uniform(0.1, 0.3)
    y += random.uniform(-0.12, 0.12) * (bottom - top)
    dx, dy = reach * np.cos(turn), reach * np.sin(turn)
    width = max(1, round(side * random.uniform(0.02, 0.09)))
    colour = pen if random.random() < 0.6 else _pen(random)
    ImageDraw.Draw(page).line((x - dx, y - dy, x + dx, y + dy), fill=colour, width=width)
    return page


def several(count: int, others: Sequence[Array], ink: Array, random: np.random.Generator) -> Image.Image:
    """Digits side by side, sometimes above each other."""
    inks = [ink, *(others[int(random.integers(len(others)))] for _ in range(count - 1))]
    page, pen = _page(random, 140), _pen(random)
    upright = random.random() < 0.2
    side = min(page.width / (1 if upright else count), page.height / (count if upright else 1)) * random.uniform(
        0.45, 0.8
    )
    gap = side * random.uniform(0.08, 0.4)
    sizes = [side / 20 * random.uniform(0.85, 1.15) for _ in inks]
    lengths = [_cut(one).shape[0 if upright else 1] * size for one, size in zip(inks, sizes, strict=True)]
    start = -(sum(lengths) + gap * (count - 1)) / 2
    for one, size, length in zip(inks, sizes, lengths, strict=True):
        along, across = start + length / 2, random.uniform(-0.08, 0.08) * side
        x, y = (across, along) if upright else (along, across)
        _put(page, one, pen, (page.width / 2 + x, page.height / 2 + y), size)
        start += length + gap
    return page


def tight(margin: int, ink: Array, random: np.random.Generator) -> Image.Image:
    """A picture cut to the ink, with at most `margin` pixels around it; dark on light, or light on dark."""
    side = int(random.integers(28, 400))
    cut = _cut(ink)
    scale = side / max(cut.shape)
    size = max(4, round(cut.shape[1] * scale)), max(4, round(cut.shape[0] * scale))
    mask = Image.fromarray(cut).resize(size, Image.Resampling.BICUBIC)
    gap = int(random.integers(0, margin + 1))
    light = random.random() < 0.5
    page = Image.new("L", (size[0] + 2 * gap, size[1] + 2 * gap), 0 if light else int(random.integers(230, 256)))
    page.paste(255 if light else int(random.integers(0, 60)), (gap, gap), mask)
    return page


def small_noise(name: str, ink: Array, random: np.random.Generator) -> Image.Image:
    """No digit: noise of 28x28 grey pixels, in the form of the training data."""
    size, share = ink.shape, random.uniform(0.03, 0.6)
    made: dict[str, Callable[[], Array]] = {
        "uniform": lambda: random.integers(0, random.integers(60, 257), size),
        "binary": lambda: (random.random(size) < share) * 255,
        "exponential": lambda: random.exponential(random.uniform(15, 120), size),
        "normal": lambda: random.normal(random.uniform(0, 128), random.uniform(20, 120), size),
        "salt and pepper on paper": lambda: (
            np.where(random.random(size) < share / 2, 255, 0)
            + np.where(random.random(size) < share / 2, random.integers(0, 120, size), 0)
        ),
        "a digit's shuffled pixels": lambda: random.permutation(ink.reshape(-1)).reshape(size),
        "an inverted digit's noise": lambda: np.where(random.random(size) < 0.5, 255 - ink, 0),
        "coarse, 2 pixels": lambda: np.kron(random.random((14, 14)) < share, np.full((2, 2), 255)),
    }
    return Image.fromarray(made[name]().clip(0, 255).astype(np.uint8))


SMALL_NOISE: Mapping[str, Maker] = {
    name: partial(small_noise, name)
    for name in (
        "uniform",
        "binary",
        "exponential",
        "normal",
        "salt and pepper on paper",
        "a digit's shuffled pixels",
        "an inverted digit's noise",
        "coarse, 2 pixels",
    )
}


def marked(others: Sequence[Array]) -> Mapping[str, Maker]:
    """The kinds of pictures that hold a digit and other marks; `others` are digits to stand beside the first."""
    return {
        "circled": partial(circled, (1.15, 1.7)),
        "circled, touching": partial(circled, (0.85, 1.05)),
        "circled, JPEG": partial(as_jpeg, partial(circled, (1.0, 1.7))),
        "struck through, level": partial(struck, False),
        "struck through, across": partial(struck, True),
        "struck through, JPEG": partial(as_jpeg, partial(struck, False)),
        "two digits": partial(several, 2, others),
        "three digits": partial(several, 3, others),
        "two digits, JPEG": partial(as_jpeg, partial(several, 2, others)),
        "cut to the ink": partial(tight, 0),
        "cut to the ink and some pixels": partial(tight, 5),
    }
