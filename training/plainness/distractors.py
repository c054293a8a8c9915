"""Draw plain digits and distractors: digits with lines, circles, frames or other digits, shapes, textures, scribbles.

Each maker takes digits, uint8 (N, 28, 28), and a random generator, and returns ink, float32 (height, width) in 0..1.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import partial

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

from models.spec import Array

Maker = Callable[[Array, np.random.Generator], Array]
Place = tuple[float, float]
_SIDE, _DIGIT = 120, 60  # pixels of a page, and of the longer side of a digit in its middle


def plain(digits: Array, random: np.random.Generator) -> Array:
    """A digit as pens and cameras change it: turned, thicker or thinner, soft or hard, with rough edges."""
    page = _digit(digits, random, size=random.uniform(24, 100)).rotate(
        random.uniform(-12, 12), Image.Resampling.BICUBIC
    )
    if random.random() < 0.35:
        page = page.filter(ImageFilter.MaxFilter(3) if random.random() < 0.6 else ImageFilter.MinFilter(3))
    return _ink(page, random)


def ruled(digits: Array, random: np.random.Generator) -> Array:
    """A digit on ruled or dotted paper after the lines were removed: rests of them stay beside the strokes, or faint
    ones everywhere.
    """
    page = _digit(digits, random)
    printed = Image.new("L", page.size)
    draw = ImageDraw.Draw(printed)
    spacing, width = _DIGIT * float(np.exp(random.uniform(np.log(0.06), np.log(1.3)))), int(random.integers(1, 4))
    rows = np.arange(random.uniform(0, spacing), _SIDE, spacing)
    columns = np.arange(random.uniform(0, spacing), _SIDE, spacing)
    kind = int(random.integers(4))
    if kind == 3:
        for x, y in ((x, y) for x in columns for y in rows):
            draw.ellipse((x - width, y - width, x + width, y + width), fill=255)
    for place in rows if kind < 2 else ():
        draw.line((0, place, _SIDE, place), 255, width)
    for place in columns if kind in {0, 2} else ():
        draw.line((place, 0, place, _SIDE), 255, width)
    near = np.asarray(page.filter(ImageFilter.MaxFilter(int(random.choice([5, 7, 9]))))) > 60
    if random.random() < 0.5:
        rests = np.asarray(printed) * near * random.uniform(0.2, 0.9)
    else:
        margin = int(random.uniform(0, 0.2) * _DIGIT)
        edge = max((_SIDE - _DIGIT) // 2 - margin, 0)
        within = np.zeros_like(near)
        within[edge : _SIDE - edge, edge : _SIDE - edge] = True
        rests = (
            np.asarray(printed) * within * random.uniform(0.05, 1.0 if kind == 3 and spacing > 0.5 * _DIGIT else 0.4)
        )
    return _ink(Image.fromarray(np.maximum(np.asarray(page), rests).astype(np.uint8)), random)


def lines(count: int, digits: Array, random: np.random.Generator) -> Array:
    """A digit and lines through it, or next to it so that they touch it."""
    page = _digit(digits, random)
    half_width, half_height = (side / 2 for side in _box(page))
    turn = random.uniform(0, np.pi)
    for number in range(count):
        angle = turn if number == 0 or random.random() < 0.6 else random.uniform(0, np.pi)
        along, across = np.array([np.cos(angle), np.sin(angle)]), np.array([-np.sin(angle), np.cos(angle)])
        reach = float(np.abs(along) @ [half_width, half_height]) + random.uniform(0.02, 0.35) * _DIGIT
        breadth = float(np.abs(across) @ [half_width, half_height])
        off = random.uniform(-1, 1) * (0.6 if random.random() < 0.6 else 1.35) * breadth
        centre = _SIDE / 2 + off * across + random.uniform(-0.05, 0.05) * _DIGIT * along
        _draw(page, [tuple(centre - reach * along), tuple(centre + reach * along)], random)
    return _ink(page, random)


def ellipse(digits: Array, random: np.random.Generator) -> Array:
    """A digit and an ellipse or an arc around it or across it."""
    page = _digit(digits, random)
    radius = float(np.hypot(*_box(page))) / 2 * random.uniform(0.6, 1.3)
    start, length = random.uniform(0, 2 * np.pi), 2 * np.pi * (1 if random.random() < 0.6 else random.uniform(0.3, 1))
    x, y = random.uniform(-0.12, 0.12, 2) * radius + _SIDE / 2
    wide, high = radius * random.uniform(0.75, 1.1, 2)
    turns = np.linspace(start, start + length, 60)
    uneven = 1 + random.uniform(0, 0.06) * np.cos(random.integers(2, 4) * turns + random.uniform(0, 6))
    places = [(x + wide * r * np.cos(a), y + high * r * np.sin(a)) for a, r in zip(turns, uneven, strict=True)]
    _draw(page, places, random)
    return _ink(page, random)


def frame(digits: Array, random: np.random.Generator) -> Array:
    """A digit and one to four sides of a rectangle around it."""
    page = _digit(digits, random)
    width, height = (side / 2 + random.uniform(-0.05, 0.3) * _DIGIT for side in _box(page))
    low, right = _SIDE / 2 + height, _SIDE / 2 + width
    corners = [(_SIDE - right, _SIDE - low), (right, _SIDE - low), (right, low), (_SIDE - right, low)]
    first, sides = int(random.integers(4)), int(random.integers(1, 5))
    _draw(page, [corners[(first + k) % 4] for k in range(sides + 1)], random)
    return _ink(page, random)


def digits_together(digits: Array, random: np.random.Generator) -> Array:
    """Two or three digits that touch, or nearly touch, side by side or one above the other."""
    inks = [_cut(digits[int(random.integers(len(digits)))]) for _ in range(2 if random.random() < 0.8 else 3)]
    stacked = random.random() < 0.2
    page, at = Image.new("L", (3 * _SIDE, 3 * _SIDE)), float(_SIDE / 2)
    for ink in inks:
        scale = _DIGIT * random.uniform(0.8, 1.15) / 20
        size = max(2, round(ink.shape[1] * scale)), max(2, round(ink.shape[0] * scale))
        side = 1.5 * _SIDE + random.uniform(-0.12, 0.12) * _DIGIT
        corner = (side - size[0] / 2, at) if stacked else (at, side - size[1] / 2)
        mask = Image.fromarray(ink).resize(size, Image.Resampling.BICUBIC)
        page.paste(255, (round(corner[0]), round(corner[1])), mask)
        at += size[1 if stacked else 0] + random.uniform(-0.2, 0.12) * _DIGIT
    return _ink(page, random)


def cut_out(digits: Array, random: np.random.Generator) -> Array:
    """A filled disc or rectangle with a digit cut out of it."""
    page = _digit(digits, random)
    width, height = (side / 2 + random.uniform(-0.05, 0.35) * _DIGIT for side in _box(page))
    filled = Image.new("L", page.size)
    if random.random() < 0.5:
        radius = float(np.hypot(width, height)) * random.uniform(0.75, 1.1)
        width, height = radius, radius * random.uniform(0.9, 1.1)
    box = (_SIDE / 2 - width, _SIDE / 2 - height, _SIDE / 2 + width, _SIDE / 2 + height)
    draw = ImageDraw.Draw(filled)
    if random.random() < 0.5:
        draw.ellipse(box, fill=255)
    else:
        draw.rectangle(box, fill=255)
    return _ink(Image.fromarray(np.minimum(np.asarray(filled), 255 - np.asarray(page))), random)


def scribble(_: Array, random: np.random.Generator) -> Array:
    """Random strokes, straight or round, joined or not."""
    page = Image.new("L", (_SIDE, _SIDE))
    for _stroke in range(int(random.integers(1, 4))):
        places = random.uniform(0.15, 0.85, (int(random.integers(4, 20)), 2)) * _SIDE
        if random.random() < 0.5:  # a round stroke
            steps = np.linspace(0, len(places) - 1, 12 * len(places))
            smooth = [np.interp(steps, np.arange(len(places)), places[:, axis]) for axis in (0, 1)]
            kernel = np.hanning(20) / np.hanning(20).sum()
            places = np.stack([np.convolve(line, kernel, "valid") for line in smooth], axis=1)
        _draw(page, [(float(x), float(y)) for x, y in places], random)
    return _ink(page, random)


def blobs(_: Array, random: np.random.Generator) -> Array:
    """Discs and rectangles, filled."""
    page = Image.new("L", (_SIDE, _SIDE))
    for _blob in range(int(random.integers(1, 20))):
        x, y = random.uniform(0.1, 0.9, 2) * _SIDE
        wide, high = random.uniform(2, _SIDE / 5, 2)
        draw = ImageDraw.Draw(page)
        box = (x - wide, y - high, x + wide, y + high)
        (draw.ellipse if random.random() < 0.6 else draw.rectangle)(box, fill=255)
    return _ink(page, random)


def texture(_: Array, random: np.random.Generator) -> Array:
    """Stripes, checks, coarse noise or a cloud, cut at a level."""
    y, x = np.mgrid[:_SIDE, :_SIDE]
    period, turn = random.uniform(8, 60), random.uniform(0, np.pi)
    phase = (x * np.cos(turn) + y * np.sin(turn) + random.uniform(0, period)) / period % 1
    kind = int(random.integers(4))
    if kind == 0:
        marks = phase < random.uniform(0.2, 0.7)
    elif kind == 1:
        marks = (phase < 0.5) ^ ((y * np.cos(turn) - x * np.sin(turn)) / period % 1 < 0.5)
    else:
        cells = random.integers(3, 16, 2)
        coarse = random.integers(0, 256, cells).astype(np.uint8)
        smooth = Image.Resampling.NEAREST if kind == 2 else Image.Resampling.BICUBIC
        marks = np.asarray(Image.fromarray(coarse).resize((_SIDE, _SIDE), smooth)) > random.uniform(100, 210)
    kept = slice(0, int(random.uniform(0.4, 1) * _SIDE)), slice(0, int(random.uniform(0.4, 1) * _SIDE))
    return _ink(Image.fromarray((marks[kept] * 255).astype(np.uint8)), random)


FAMILIES: Mapping[str, Maker] = {
    "line": partial(lines, 1),
    "lines": partial(lines, 2),
    "ellipse": ellipse,
    "frame": frame,
    "digits together": digits_together,
    "cut out": cut_out,
    "scribble": scribble,
    "blobs": blobs,
    "texture": texture,
}


def _cut(ink: Array) -> Array:
    """Cut the margins of a digit off."""
    rows, columns = (np.flatnonzero(ink.max(axis=axis) > 60) for axis in (1, 0))
    return ink[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]


def _digit(digits: Array, random: np.random.Generator, size: float = _DIGIT) -> Image.Image:
    """Write one of the digits into the middle of a page, its longer side `size` pixels."""
    ink = _cut(digits[int(random.integers(len(digits)))])
    scale = size / max(ink.shape)
    width, height = (max(2, round(side * scale)) for side in reversed(ink.shape))
    page = Image.new("L", (_SIDE, _SIDE))
    scaled = Image.fromarray(ink).resize((width, height), Image.Resampling.BICUBIC)
    page.paste(scaled, ((_SIDE - width) // 2, (_SIDE - height) // 2))
    return page


def _box(page: Image.Image) -> tuple[float, float]:
    """Return width and height of the ink on a page."""
    left, top, right, bottom = page.getbbox() or (0, 0, 1, 1)
    return float(right - left), float(bottom - top)


def _draw(page: Image.Image, places: Sequence[Place], random: np.random.Generator) -> None:
    """Draw a line of random thickness and strength through the places."""
    width = max(1, round(random.uniform(0.015, 0.13) * _DIGIT))
    over = Image.new("L", page.size)
    ImageDraw.Draw(over).line(list(places), 255, width, joint="curve")
    page.paste(255 if random.random() < 0.7 else int(random.integers(120, 256)), (0, 0), over)


def _ink(page: Image.Image, random: np.random.Generator) -> Array:
    """Blur a page or harden its edges, and add a little noise: float32 in 0..1."""
    if random.random() < 0.4:
        page = page.filter(ImageFilter.GaussianBlur(random.uniform(0.3, 2.0)))
    ink = np.asarray(page).astype(np.float32) / 255
    if random.random() < 0.6:
        low = random.uniform(0, 0.5)
        ink = (ink - low) / random.uniform(0.15, 1 - low)
    if random.random() < 0.3:
        ink = ink * (1 + random.normal(0, random.uniform(0, 0.25), ink.shape))
    found: Array = ink.clip(0, 1).astype(np.float32)
    return found
