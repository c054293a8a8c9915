"""Generate pages with digits as people write and photograph them: hard shadows, digits that fill the picture, numbers.

Each maker takes ink, uint8 (28, 28), white on black, and a random generator for everything that varies.
"""

from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageFilter

from models.spec import Array

Box = tuple[int, int, int, int]  # left, top, right, bottom


def cut(ink: Array) -> Array:
    """The ink without its margins."""
    rows, columns = (np.flatnonzero(ink.max(axis=axis) > 60) for axis in (1, 0))
    return ink[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]


def _put(cover: Image.Image, ink: Array, height: int, corner: tuple[int, int]) -> Box:
    mark = cut(ink)
    size = max(2, round(mark.shape[1] * height / mark.shape[0])), height
    cover.paste(Image.fromarray(mark).resize(size, Image.Resampling.BICUBIC), corner)
    return *corner, corner[0] + size[0], corner[1] + size[1]


def shadowed(ink: Array, random: np.random.Generator) -> Image.Image:
    """A photographed page with the sharp edge of a shadow across the digit."""
    width, height = (int(side) for side in random.integers(300, 640, 2))
    cover = Image.new("L", (width, height))
    size = int(min(width, height) * random.uniform(0.3, 0.6))
    x, y = int(random.integers(size // 4, width - size)), int(random.integers(size // 4, height - size))
    _put(cover, ink, size, (x, y))
    turn = random.uniform(0, 2 * np.pi)
    rows, columns = np.mgrid[:height, :width]
    beyond = (columns - x - size * 0.4) * np.cos(turn) + (rows - y - size * 0.5) * np.sin(turn) > 0
    light = np.asarray(Image.fromarray(np.uint8(beyond) * 255).filter(ImageFilter.GaussianBlur(1))) / 255
    share = np.asarray(cover) / 255
    page = (random.uniform(200, 250) * (1 - share) + random.uniform(10, 50) * share) * (1 - 0.45 * light)
    noise = random.normal(0, random.uniform(0.5, 4), (height, width, 1))
    return Image.fromarray((page[..., None] * random.uniform(0.9, 1, 3) + noise).clip(0, 255).astype(np.uint8))


def in_shadow(
    size: tuple[int, int], light: tuple[float, float], ink: Array, random: np.random.Generator
) -> Image.Image:
    """A page (width, height) with a digit, and a shadow with a sharp edge over a part of it, anywhere.

    `light` is the light in the shadow, least and most, as a share of that beside it.
    """
    width, height = size
    cover = Image.new("L", size)
    shorter = min(size)
    side = round(shorter * (0.6 if shorter <= 28 else random.uniform(0.35, 0.6)))
    mark = cut(ink)
    y = int(random.integers(shorter // 12, height - side - shorter // 12 + 1))
    wide = max(2, round(mark.shape[1] * side / mark.shape[0]))
    x = int(random.integers(shorter // 12, max(width - wide - shorter // 12, shorter // 12) + 1))
    _put(cover, ink, side, (x, y))
    turn, away = random.uniform(0, 2 * np.pi), random.uniform(-0.4, 0.4) * shorter
    rows, columns = np.mgrid[:height, :width]
    beyond = (columns - width / 2) * np.cos(turn) + (rows - height / 2) * np.sin(turn) > away
    blur = random.uniform(0.3, 2.5) * max(1, shorter / 280)
    shade = np.asarray(Image.fromarray(np.uint8(beyond) * 255).filter(ImageFilter.GaussianBlur(blur))) / 255
    share = np.asarray(cover) / 255
    page = random.uniform(215, 255) * (1 - share) + random.uniform(10, 70) * share
    return Image.fromarray((page * (1 - (1 - random.uniform(*light)) * shade)).astype(np.uint8))


def filling(ink: Array, random: np.random.Generator) -> Image.Image:
    """A digit from edge to edge of the picture, dark on light or light on dark."""
    mark = cut(ink)
    scale = int(random.integers(60, 400)) / max(mark.shape)
    size = max(8, round(mark.shape[1] * scale)), max(8, round(mark.shape[0] * scale))
    page = Image.fromarray(mark).resize(size, Image.Resampling.BICUBIC)
    return page if random.random() < 0.5 else page.point(lambda level: 255 - level)


def small_on_pad(ink: Array, random: np.random.Generator) -> Image.Image:
    """A digit of 15% of the side of a pad, black on white."""
    side = int(random.choice([112, 280, 448]))
    cover = Image.new("L", (side, side))
    x, y = (int(place) for place in random.integers(2, side - side // 5, 2))
    _put(cover, ink, round(0.15 * side), (x, y))
    return cover.point(lambda level: 255 - level)


def number(inks: Sequence[Array], *, height: int = 60, rows: int = 1) -> tuple[Image.Image, list[Box]]:
    """Digits side by side in rows, with their boxes in reading order; the second row is a little lower on the left."""
    page = Image.new("L", (40 + height * (len(inks) // rows), 40 + rows * (height + 30)))
    boxes = []
    for place, ink in enumerate(inks):
        row, column = divmod(place, len(inks) // rows)
        corner = 20 + column * height, 20 + row * (height + 30) + 4 * (column % 2)
        boxes.append(_put(page, ink, height, corner))
    return page.point(lambda level: 255 - level), boxes
