"""Generate realistic pictures of digits (photos, scans, drawings) from MNIST samples, to test the normalisation.

Each maker takes ink, uint8 (28, 28), and a random generator for everything that varies.
"""

import io
from collections.abc import Callable, Mapping

import numpy as np
from PIL import ExifTags, Image, ImageFilter

from models.spec import Array

Maker = Callable[[Array, np.random.Generator], Image.Image]
# EXIF orientation -> transformation of the upright picture, which the orientation undoes
_HELD = {
    1: None,
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_90,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_270,
}


def clean(ink: Array, _random: np.random.Generator) -> Image.Image:
    """The sample itself."""
    return Image.fromarray(ink)


def inverted(ink: Array, _random: np.random.Generator) -> Image.Image:
    """Black on white, 28x28."""
    return Image.fromarray(255 - ink)


def canvas(ink: Array, random: np.random.Generator) -> Image.Image:
    """A black or dark pen on a transparent canvas, as from a drawing page."""
    side = int(random.integers(28, 400))
    field = Image.new("L", (side, side))
    size = max(28, int(side * random.uniform(0.5, 1.0)))
    field.paste(_scaled(ink, min(size, side)), _place(random, field.size, min(size, side)))
    pen = Image.new("RGBA", field.size, tuple(int(value) for value in random.integers(0, 60, 3)))
    pen.putalpha(field)
    return pen


def large_page(ink: Array, random: np.random.Generator) -> Image.Image:
    """Small dark ink anywhere on a large page."""
    width, height = (int(side) for side in random.integers(600, 2000, 2))
    size = int(random.integers(50, 200))
    page = Image.new("L", (width, height), int(random.integers(215, 256)))
    page.paste(int(random.integers(0, 90)), _place(random, page.size, size), _scaled(ink, size))
    return page


def corner(ink: Array, random: np.random.Generator) -> Image.Image:
    """A tiny digit in one corner."""
    width, height = (int(side) for side in random.integers(250, 700, 2))
    size = int(random.integers(30, 56))
    page = Image.new("L", (width, height), int(random.integers(225, 256)))
    gaps = random.integers(0, 8, 2)
    x, y = (int(gap if random.random() < 0.5 else side - size - gap) for gap, side in zip(gaps, page.size, strict=True))
    page.paste(int(random.integers(0, 60)), (x, y), _scaled(ink, size))
    return page


def cream(ink: Array, random: np.random.Generator) -> Image.Image:
    """Coloured ink on cream paper, a little noisy, as JPEG."""
    paper = np.array([248, 238, 208]) + random.integers(-12, 8, 3)
    inks = np.array([[30, 50, 160], [170, 30, 40], [20, 110, 60], [90, 50, 130], [120, 70, 30], [20, 20, 20]])
    colour = inks[random.integers(len(inks))] + random.integers(-20, 40, 3)
    width, height = (int(side) for side in random.integers(200, 600, 2))
    size = int(min(width, height) * random.uniform(0.3, 0.9))
    cover = _cover(ink, (width, height), size, random)[..., None]
    page = paper * (1 - cover) + colour * cover + random.normal(0, random.uniform(0, 5), (height, width, 1))
    return _jpeg(Image.fromarray(page.clip(0, 255).astype(np.uint8)), int(random.integers(50, 96)))


def photo(ink: Array, random: np.random.Generator) -> Image.Image:
    """A photographed page: uneven light, rotated, blurred, noisy, as JPEG."""
    width, height = (int(side) for side in random.integers(300, 1200, 2))
    size = int(min(width, height) * random.uniform(0.25, 0.75))
    cover = _cover(ink, (width, height), size, random, angle=random.uniform(-12, 12))
    paper, pen = random.uniform(170, 250), random.uniform(10, 80)
    page = (paper * (1 - cover) + pen * cover) * _light((width, height), random)
    tint = random.uniform(0.85, 1.0, 3)
    soft = Image.fromarray((page[..., None] * tint).clip(0, 255).astype(np.uint8))
    soft = soft.filter(ImageFilter.GaussianBlur(random.uniform(0.3, 0.018 * size)))
    noise = random.normal(0, random.uniform(1, 9), (height, width, 1))
    noisy = (np.asarray(soft) + noise).clip(0, 255).astype(np.uint8)
    return _jpeg(Image.fromarray(noisy), int(random.integers(35, 95)))


def on_table(ink: Array, random: np.random.Generator) -> Image.Image:
    """A page with a few specks of dust, at an angle on a darker table, as JPEG."""
    width, height = (int(side) for side in random.integers(300, 700, 2))
    size = int(min(width, height) * random.uniform(0.3, 0.7))
    cover = _cover(ink, (width, height), size, random)
    for y, x in zip(random.integers(0, height - 4, 6), random.integers(0, width - 4, 6), strict=True):
        cover[y : y + 3, x : x + 3] = 0.8
    page = Image.fromarray((235 * (1 - cover) + 40 * cover).astype(np.uint8)).convert("RGBA")
    page = page.rotate(random.uniform(-8, 8), Image.Resampling.BICUBIC, expand=True)
    wood = tuple(int(value) for value in np.array([110, 80, 55]) + random.integers(-35, 36, 3))
    gaps = [int(gap) for gap in random.integers(0, 60, 4)]
    table = Image.new("RGB", (page.width + gaps[0] + gaps[1], page.height + gaps[2] + gaps[3]), wood)
    table.paste(page, (gaps[0], gaps[2]), page)
    return _jpeg(table, int(random.integers(50, 96)))


def exif(ink: Array, random: np.random.Generator) -> Image.Image:
    """A JPEG of a page with one of the eight EXIF orientations."""
    orientation = int(random.integers(1, 9))
    width, height = (int(side) for side in random.integers(200, 700, 2))
    cover = _cover(ink, (width, height), int(min(width, height) * random.uniform(0.3, 0.9)), random)
    page = Image.fromarray((240 * (1 - cover) + 30 * cover).astype(np.uint8)).convert("RGB")
    turn = _HELD[orientation]
    tags = Image.Exif()
    tags[ExifTags.Base.Orientation] = orientation
    return _jpeg(page if turn is None else page.transpose(turn), int(random.integers(50, 96)), exif=tags)


KINDS: Mapping[str, Maker] = {
    "clean": clean,
    "inverted": inverted,
    "black pen on a transparent canvas": canvas,
    "small on a large page": large_page,
    "photographed page": photo,
    "coloured ink on cream": cream,
    "tiny in a corner": corner,
    "turned by its EXIF": exif,
    "page on a table": on_table,
}


def _scaled(ink: Array, size: int) -> Image.Image:
    return Image.fromarray(ink).resize((size, size), Image.Resampling.BICUBIC)


def _place(random: np.random.Generator, page: tuple[int, int], size: int) -> tuple[int, int]:
    """Random position of the digit's upper left corner, (x, y)."""
    return int(random.integers(page[0] - size + 1)), int(random.integers(page[1] - size + 1))


def _cover(ink: Array, page: tuple[int, int], size: int, random: np.random.Generator, *, angle: float = 0.0) -> Array:
    """Ink coverage of each pixel, float64 (height, width) in 0..1."""
    layer = Image.new("L", page)
    digit = _scaled(ink, size).rotate(angle, Image.Resampling.BICUBIC, expand=False)
    layer.paste(digit, _place(random, page, size))
    cover: Array = np.asarray(layer) / 255.0
    return cover


def _light(page: tuple[int, int], random: np.random.Generator) -> Array:
    """Brightness of each pixel in 0.35..1: a gradient in a random direction, often with the soft edge of a shadow."""
    x, y = np.linspace(-1, 1, page[0])[None, :], np.linspace(-1, 1, page[1])[:, None]
    turn, depth = random.uniform(0, 2 * np.pi), random.uniform(0, 0.45)
    slope = 1 - depth * (1 + (np.cos(turn) * x + np.sin(turn) * y) / np.sqrt(2)) / 2
    if random.random() < 0.5:
        edge = np.cos(turn + 1) * x + np.sin(turn + 1) * y - random.uniform(-0.8, 0.8)
        slope = slope * (1 - random.uniform(0.05, 0.3) / (1 + np.exp(-edge / random.uniform(0.1, 0.4))))
    light: Array = slope
    return light


def _jpeg(page: Image.Image, quality: int, **options: Image.Exif) -> Image.Image:
    file = io.BytesIO()
    page.save(file, "jpeg", quality=quality, **options)
    return Image.open(file)
