"""Generate pictures that are easy to read wrong: halos, pasted squares, boxes, ruled paper, plots, hot pixels, crops.

Each maker takes ink, uint8 (28, 28), white on black, and a random generator for everything that varies.
"""

import io
from collections.abc import Callable, Mapping
from functools import partial

import numpy as np
from PIL import Image, ImageDraw

from models.spec import Array

Maker = Callable[[Array, np.random.Generator], Image.Image]
Colour = tuple[int, int, int]
_COLOURS: list[Colour] = [(90, 140, 220), (200, 60, 50), (128, 128, 128), (240, 200, 60), (40, 90, 60), (205, 205, 215)]


def _mask(ink: Array, size: int) -> Image.Image:
    return Image.fromarray(ink).resize((size, size), Image.Resampling.BICUBIC)


def _page(ink: Array, size: int, paper: Colour, pen: Colour) -> Image.Image:
    """A square page filled by the sample, margins included."""
    page = Image.new("RGB", (size, size), paper)
    page.paste(pen, (0, 0), _mask(ink, size))
    return page


def _on_white_or_black(ink: Array, size: int, random: np.random.Generator) -> Image.Image:
    dark, light = (0, 0, 0), (255, 255, 255)
    return _page(ink, size, dark, light) if random.random() < 0.5 else _page(ink, size, light, dark)


def transparent(kind: str, light_ink: bool, ink: Array, random: np.random.Generator) -> Image.Image:
    """A palette picture whose paper became transparent; the soft edges of the strokes keep the paper's colour."""
    size = int(random.integers(56, 300))
    levels = np.asarray(_mask(ink, size))
    grey = levels if light_ink else 255 - levels
    colours = Image.fromarray(grey).quantize(int(random.choice([8, 16, 32, 64])))
    indices = np.asarray(colours)
    paper = int(indices[levels == 0][0]) if (levels == 0).any() else int(indices[0, 0])
    file = io.BytesIO()
    colours.save(file, kind, transparency=paper)
    return Image.open(file)


def square(ink: Array, random: np.random.Generator) -> Image.Image:
    """A square with a digit, black on white or white on black, pasted on a page of another colour."""
    size = int(random.integers(60, 240))
    page = (size + int(random.integers(20, 300)), size + int(random.integers(20, 300)))
    pasted = _on_white_or_black(ink, size, random)
    corner = pasted.getpixel((0, 0))
    others = [*_COLOURS, (0, 0, 0) if corner == (255, 255, 255) else (255, 255, 255)]
    picture = Image.new("RGB", page, others[random.integers(len(others))])
    x, y = (int(random.integers(0, whole - size + 1)) for whole in page)
    picture.paste(pasted, (x, y))
    return picture


def box(width: int, ink: Array, random: np.random.Generator) -> Image.Image:
    """A digit in a box drawn with lines of `width` pixels, as a field of a form."""
    size = int(random.integers(80, 260))
    margin = int(random.integers(0, 60))
    side = size + 2 * margin
    picture = Image.new("RGB", (side, side), (255, 255, 255))
    picture.paste((0, 0, 0), (margin, margin), _mask(ink, size))
    rows, columns = (np.flatnonzero(ink.max(axis=axis) > 0) for axis in (1, 0))
    scale = size / 28
    gap = random.uniform(0.4, 2.5) * scale + width
    left, top = margin + columns[0] * scale - gap, margin + rows[0] * scale - gap
    right, bottom = margin + (columns[-1] + 1) * scale + gap, margin + (rows[-1] + 1) * scale + gap
    if random.random() < 0.5:  # a square
        half = max(right - left, bottom - top) / 2
        x, y = (left + right) / 2, (top + bottom) / 2
        left, right, top, bottom = x - half, x + half, y - half, y + half
    places = [min(max(int(place), 0), side - 1) for place in (left, top, right, bottom)]
    pens: list[Colour] = [(0, 0, 0), (0, 0, 0), (120, 120, 120), (60, 90, 200), (200, 60, 50)]
    ImageDraw.Draw(picture).rectangle(places, outline=pens[random.integers(len(pens))], width=width)
    return picture


def border(ink: Array, random: np.random.Generator) -> Image.Image:
    """A frame around the whole picture, at its edge or a little inside."""
    size = int(random.integers(56, 260))
    picture = _on_white_or_black(ink, size, random)
    pen: Colour = (255, 255, 255) if picture.getpixel((0, 0)) == (0, 0, 0) else (0, 0, 0)
    gap, width = int(random.integers(0, max(1, size // 28) + 1)), int(random.integers(1, 2 + size // 28))
    ImageDraw.Draw(picture).rectangle((gap, gap, size - 1 - gap, size - 1 - gap), outline=pen, width=width)
    return picture


def ruled(squared: bool, ink: Array, random: np.random.Generator) -> Image.Image:
    """A digit on lined or squared paper, which crosses the lines."""
    width, height = (int(side) for side in random.integers(160, 400, 2))
    size = int(min(width, height) * random.uniform(0.5, 1.0))
    spacing = int(size * (random.uniform(0.12, 0.35) if squared else random.uniform(0.2, 0.6)))
    pens: list[Colour] = [(160, 190, 235), (180, 180, 180), (235, 150, 150), (110, 140, 200), (90, 90, 90)]
    pen, line = pens[random.integers(len(pens))], int(random.integers(1, 3))
    turn = random.uniform(-2, 2) if random.random() < 0.4 else 0.0
    paper = Image.new("RGB", (2 * width, 2 * height), (252, 252, 248))
    draw = ImageDraw.Draw(paper)
    for y in range(int(random.integers(spacing)), 2 * height, spacing):
        draw.line((0, y, 2 * width, y), pen, line)
    for x in range(int(random.integers(spacing)), 2 * width, spacing) if squared else ():
        draw.line((x, 0, x, 2 * height), pen, line)
    paper = paper.rotate(turn, Image.Resampling.BICUBIC).crop(
        (width // 2, height // 2, width * 3 // 2, height * 3 // 2)
    )
    inks: list[Colour] = [(20, 20, 20), (30, 50, 140), (10, 10, 60)]
    place = (int(random.integers(0, paper.width - size + 1)), int(random.integers(0, paper.height - size + 1)))
    paper.paste(inks[random.integers(len(inks))], place, _mask(ink, size))
    return paper


def plot(colours: str, axes: bool, ink: Array, random: np.random.Generator) -> Image.Image:
    """A screenshot of matplotlib's imshow."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg  # noqa: PLC0415 - half a second, needed here only
    from matplotlib.figure import Figure  # noqa: PLC0415

    figure = Figure(dpi=float(random.choice([50, 72, 100])))
    canvas = FigureCanvasAgg(figure)
    plane = figure.add_subplot()
    plane.imshow(ink, cmap=colours)
    if not axes:
        plane.axis("off")
    canvas.draw()  # type: ignore[no-untyped-call]
    return Image.fromarray(np.asarray(canvas.buffer_rgba())[..., :3])  # type: ignore[no-untyped-call]


def hot_pixels(ink: Array, random: np.random.Generator) -> Image.Image:
    """A picture of 12-bit values in 16 bits, with a few pixels at the end of the range."""
    size = int(random.integers(56, 300))
    levels = (255 - np.asarray(_mask(ink, size)).astype(np.uint16)) * 16
    for y, x in random.integers(0, size, (int(random.integers(1, 4)), 2)):
        levels[y, x] = 65535
    return Image.fromarray(levels)


def cropped(ink: Array, random: np.random.Generator) -> Image.Image:
    """A page cut to the ink."""
    size = int(random.integers(80, 400))
    picture = _on_white_or_black(ink, size, random)
    rows, columns = (np.flatnonzero(np.asarray(_mask(ink, size)).max(axis=axis) > 60) for axis in (1, 0))
    return picture.crop((int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1))


def nested(ink: Array, random: np.random.Generator) -> Image.Image:
    """A digit in frames inside each other, the innermost with rounded corners."""
    size = int(random.integers(100, 260))
    picture = _page(ink, size, (255, 255, 255), (0, 0, 0))
    page = Image.new("RGB", (size + 80, size + 80), (255, 255, 255))
    page.paste(picture, (40, 40))
    draw = ImageDraw.Draw(page)
    for gap in range(8, 8 + 9 * int(random.integers(0, 3)), 9):
        draw.rectangle((gap, gap, size + 79 - gap, size + 79 - gap), outline=(0, 0, 0), width=2)
    corners, width = int(size * random.uniform(0.03, 0.15)), int(random.integers(1, 6))
    draw.rounded_rectangle((36, 36, size + 43, size + 43), corners, outline=(0, 0, 0), width=width)
    return page


def tilted(maker: Maker, ink: Array, random: np.random.Generator) -> Image.Image:
    """A picture turned by up to two degrees."""
    picture = maker(ink, random).convert("RGB")
    outside = tuple(int(level) for level in np.asarray(picture)[0, 0])
    return picture.rotate(random.uniform(-2, 2), Image.Resampling.BICUBIC, fillcolor=outside)


def as_jpeg(maker: Maker, ink: Array, random: np.random.Generator) -> Image.Image:
    """A picture that was saved as JPEG."""
    file = io.BytesIO()
    maker(ink, random).convert("RGB").save(file, "JPEG", quality=int(random.integers(40, 90)))
    return Image.open(file)


def speckled(ink: Array, random: np.random.Generator) -> Image.Image:
    """A digit with salt and pepper noise."""
    size = int(random.integers(80, 300))
    levels = 255 - np.asarray(_mask(ink, size))
    return Image.fromarray(
        np.where(random.random(levels.shape) < 0.03, random.choice([0, 255], levels.shape), levels).astype(np.uint8)
    )


def noise(name: str, _ink: Array, random: np.random.Generator) -> Image.Image:
    """No digit: noise."""
    size = tuple(int(side) for side in random.integers(28, 300, 2))
    made: dict[str, Callable[[], Array]] = {
        "uniform": lambda: random.integers(0, 256, size),
        "colour": lambda: random.integers(0, 256, (*size, 3)),
        "normal": lambda: random.normal(128, random.uniform(15, 60), size),
        "salt and pepper": lambda: np.where(random.random(size) < random.uniform(0.05, 0.5), 0, 255),
    }
    return Image.fromarray(made[name]().clip(0, 255).astype(np.uint8))


DIGITS: Mapping[str, Maker] = {
    "gif, transparent paper": partial(transparent, "GIF", False),
    "png-8, transparent paper": partial(transparent, "PNG", False),
    "png-8, transparent paper, light ink": partial(transparent, "PNG", True),
    "pasted square": square,
    "box of 2 pixels": partial(box, 2),
    "box of 5 pixels": partial(box, 5),
    "frame at the edge": border,
    "lined paper": partial(ruled, False),
    "squared paper": partial(ruled, True),
    "plot, grey, with axes": partial(plot, "gray", True),
    "plot, grey, without axes": partial(plot, "gray", False),
    "plot, dark on light, with axes": partial(plot, "gray_r", True),
    "plot, viridis, with axes": partial(plot, "viridis", True),
    "plot, viridis, without axes": partial(plot, "viridis", False),
    "16 bits with hot pixels": hot_pixels,
    "cut to the ink": cropped,
    "frames inside each other": nested,
    "pasted square, tilted": partial(tilted, square),
    "box, tilted": partial(tilted, partial(box, 5)),
    "pasted square, JPEG": partial(as_jpeg, square),
    "box, JPEG": partial(as_jpeg, partial(box, 2)),
    "plot, JPEG": partial(as_jpeg, partial(plot, "gray", True)),
    "lined paper, JPEG": partial(as_jpeg, partial(ruled, False)),
    "salt and pepper on a digit": speckled,
}
NO_DIGITS: Mapping[str, Maker] = {
    f"noise, {name}": partial(noise, name) for name in ("uniform", "colour", "normal", "salt and pepper")
}
KINDS: Mapping[str, Maker] = {**DIGITS, **NO_DIGITS}
