"""CPU time to decode and normalise pictures as people send them, beside the decoder alone and with a plain resize.

Drawings of 280 x 280 as a page's canvas makes them, photos of 640 x 480 and of 12 megapixels. The ways are measured in
turn, so that other work on the machine slows all of them; a figure is the median over the rounds.
"""

import io
import time
from collections.abc import Callable, Mapping
from functools import partial
from statistics import median
from typing import Any, NamedTuple

import numpy as np
from PIL import Image, ImageFilter

from benchmarks.report import table
from models.entries import from_picture, picture_or_entry
from models.mnist import SPEC, drawn_seven
from models.spec import Array

MAX_PIXELS = 25_000_000
_CALLS = 20  # of a small picture in a round: the least time counts
_LARGE = 1_000_000  # bytes: larger files are read once a round


class Kind(NamedTuple):
    """A kind of picture, and its aims: CPU ms, and times of the decoder alone."""

    content: bytes
    most_ms: float | None = None
    most_decodes: float | None = None


def kinds() -> Mapping[str, Kind]:
    """Draw a picture of each kind."""
    return {
        "280 x 280 PNG, grey": Kind(encoded(drawing(), format="png"), 3),
        "280 x 280 PNG, RGB": Kind(encoded(drawing().convert("RGB"), format="png"), 3),
        "280 x 280 PNG, transparent": Kind(encoded(_transparent(), format="png"), 3),
        "280 x 280 JPEG": Kind(encoded(drawing().convert("RGB"), format="jpeg", quality=85), 3),
        "640 x 480 JPEG, photo": Kind(encoded(photographed((640, 480)), format="jpeg", quality=85), 6),
        "640 x 480 PNG, photo": Kind(encoded(photographed((640, 480)), format="png")),
        "3000 x 4000 JPEG, photo": Kind(encoded(photographed((3000, 4000)), format="jpeg", quality=85), 30),
        "3000 x 4000 PNG, photo": Kind(encoded(photographed((3000, 4000)), format="png", compress_level=1), None, 1.1),
    }


def table_of_costs(rounds: int) -> str:
    """Measure each kind of picture. Returns the table with the aims."""
    head = ["CPU ms a picture", "read", "decoder", "+ plain resize", "read / that", "aim", ""]
    return table(head, [_row(name, kind, rounds) for name, kind in kinds().items()])


def _row(name: str, kind: Kind, rounds: int) -> list[str]:
    ways = {"read": read, "decoder": decoded, "resized": _resized}
    taken: dict[str, list[float]] = {way: [] for way in ways}
    for _ in range(rounds):
        for way, function in ways.items():
            taken[way].append(_cpu_ms(partial(function, kind.content), 1 if len(kind.content) > _LARGE else _CALLS))
    read_ms, decoder_ms, resized_ms = (median(taken[way]) for way in ways)
    cells = [name, *(f"{spent:.2f}" for spent in (read_ms, decoder_ms, resized_ms)), f"{read_ms / resized_ms:.2f}"]
    if kind.most_ms is not None:
        return [*cells, f"at most {kind.most_ms:g} ms", "yes" if read_ms <= kind.most_ms else "no"]
    if kind.most_decodes is not None:
        ratio = median(one / other for one, other in zip(taken["read"], taken["decoder"], strict=True))
        is_met = ratio <= kind.most_decodes
        return [*cells, f"{ratio:.2f} decoders, at most {kind.most_decodes:g}", "yes" if is_met else "no"]
    return cells


def _cpu_ms(way: Callable[[], object], calls: int) -> float:
    """Return the least CPU time of some calls, in ms."""
    spent = []
    for _ in range(calls):
        began = time.process_time()
        way()
        spent.append(time.process_time() - began)
    return min(spent) * 1e3


def read(content: bytes) -> Array:
    """Read a picture as the service does: uint8 (28, 28)."""
    found = picture_or_entry(content, SPEC, MAX_PIXELS)
    return from_picture(found, SPEC) if isinstance(found, Image.Image) else found


def decoded(content: bytes) -> Image.Image:
    """Decode a picture at its full size."""
    picture = Image.open(io.BytesIO(content))
    picture.load()
    return picture


def _resized(content: bytes) -> Array:
    return np.asarray(decoded(content).convert("L").resize(drawn_seven().shape))


def ink(side: int) -> Image.Image:
    """Draw a seven, white on black."""
    return Image.fromarray(drawn_seven()).resize((side, side), Image.Resampling.BICUBIC)


def drawing(side: int = 280) -> Image.Image:
    """Draw a seven, black on white."""
    return ink(side).point(lambda level: 255 - level)


def _transparent() -> Image.Image:
    pen = Image.new("RGBA", (280, 280))
    pen.putalpha(drawing().point(lambda level: 255 - level))
    return pen


def photographed(size: tuple[int, int]) -> Image.Image:
    """Draw a photo of a digit on an unevenly lit, noisy page."""
    width, height = (max(1, side * 1000 // max(size)) for side in size)
    page = Image.new("L", (width, height), 225)
    side = min(width, height) // 2
    page.paste(40, (width // 4, height // 4), ink(side))
    light = np.linspace(0.6, 1, width)[None, :, None] * np.ones((height, 1, 1))
    noise = np.random.default_rng(0).normal(0, 4, (height, width, 3))
    lit = np.asarray(page.filter(ImageFilter.GaussianBlur(1)))[..., None] * light + noise
    return Image.fromarray(lit.clip(0, 255).astype(np.uint8)).resize(size, Image.Resampling.BICUBIC)


def encoded(picture: Image.Image, **options: Any) -> bytes:
    """Encode a picture; the options are those of Pillow's `save`."""
    file = io.BytesIO()
    picture.save(file, **options)
    return file.getvalue()
