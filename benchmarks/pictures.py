"""Time to decode and normalise a picture: 28x28 (compared with Pillow's decoder) and a photo of 12 megapixels.

Each photo is decoded in a separate process, in a thread as in the service, while an event loop ticks every millisecond:
the longest delay of a tick is the delay that other requests would have.
"""

import asyncio
import io
import json
import subprocess
import sys
import time
import timeit
from collections.abc import Callable
from functools import partial
from statistics import median
from typing import Any

import numpy as np
import psutil
from PIL import Image, ImageFilter

from benchmarks import Options
from benchmarks.report import table
from models.mnist import SPEC, drawn_seven
from models.spec import Array
from service.execution.threads import Threads
from service.inference.decoding import Decoder

_MAX_PIXELS = 25_000_000
_CALLS = 2_000  # calls per measurement of a small picture
_PHOTOS: dict[str, dict[str, Any]] = {
    "JPEG": {"format": "jpeg", "quality": 85},
    "progressive JPEG": {"format": "jpeg", "quality": 85, "progressive": True},
    "PNG": {"format": "png", "compress_level": 1},
}


def main(options: Options) -> str:
    """Return the tables for a small picture and for photos."""
    small = _small(options.rounds)
    photos = [_photo(name, options.rounds) for name in _PHOTOS]
    head = ["photo of 3000 x 4000", "MB", "ms", "additional peak, MB", "longest event loop delay, ms"]
    return f"{small}\n\n{table(head, photos)}"


def _small(rounds: int) -> str:
    content = _encoded(Image.fromarray(drawn_seven()), format="png")
    decoder = Decoder(_MAX_PIXELS, Threads())
    ways: dict[str, Callable[[], object]] = {
        "plain decode": partial(_decoded, content),
        "as the service reads it": partial(decoder.decode_inline, "image/png", SPEC, content),
    }
    taken: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(rounds):
        for name, way in ways.items():
            taken[name].append(timeit.timeit(way, number=_CALLS) / _CALLS * 1e6)
    rows = [[name, f"{median(each):.1f}", f"{min(each):.1f}"] for name, each in taken.items()]
    return table(["a grey PNG of 28 x 28", "median µs", "least µs"], rows)


def _decoded(content: bytes) -> Array:
    return np.asarray(Image.open(io.BytesIO(content)))


def _photo(name: str, rounds: int) -> list[str]:
    """Return a row of the table: medians over the rounds."""
    command = [sys.executable, "-m", "benchmarks.pictures"]
    content = _photographed(name)
    runs = [
        json.loads(subprocess.run(command, input=content, stdout=subprocess.PIPE, check=True).stdout)
        for _ in range(rounds)
    ]
    spent = [median(run[key] for run in runs) for key in ("ms", "megabytes", "wait_ms")]
    return [name, f"{len(content) / 1e6:.1f}", *(f"{value:.0f}" for value in spent)]


def _photographed(name: str) -> bytes:
    """Return an encoded photo of a digit on an unevenly lit, noisy page."""
    page = Image.new("L", (750, 1000), 225)
    page.paste(40, (180, 300), Image.fromarray(drawn_seven()).resize((400, 400), Image.Resampling.BICUBIC))
    light = np.linspace(0.6, 1, 750)[None, :, None] * np.ones((1000, 1, 1))
    noise = np.random.default_rng(0).normal(0, 4, (1000, 750, 3))
    lit = np.asarray(page.filter(ImageFilter.GaussianBlur(1)))[..., None] * light + noise
    photo = Image.fromarray(lit.clip(0, 255).astype(np.uint8)).resize((3000, 4000), Image.Resampling.BICUBIC)
    return _encoded(photo, **_PHOTOS[name])


def _encoded(picture: Image.Image, **options: Any) -> bytes:
    file = io.BytesIO()
    picture.save(file, **options)
    return file.getvalue()


async def _measured(content: bytes) -> dict[str, float]:
    """Return time, additional memory, and the longest time for which the event loop was blocked."""
    decoder = Decoder(_MAX_PIXELS, threads := Threads())
    process, small = psutil.Process(), _encoded(Image.fromarray(drawn_seven()), format="png")
    await decoder.pictures([small], SPEC)  # warm-up: imports
    before, peak, wait = process.memory_info().rss, 0, 0.0
    began = time.perf_counter()
    reading = asyncio.ensure_future(decoder.pictures([content], SPEC))
    while not reading.done():
        ticked = time.perf_counter()
        await asyncio.sleep(0.001)
        wait = max(wait, time.perf_counter() - ticked - 0.001)
        peak = max(peak, process.memory_info().rss)
    spent = time.perf_counter() - began
    assert not reading.result().errors
    threads.close()
    return {"ms": spent * 1e3, "megabytes": max(peak - before, 0) / 1e6, "wait_ms": wait * 1e3}


if __name__ == "__main__":
    sys.stdout.write(json.dumps(asyncio.run(_measured(sys.stdin.buffer.read()))))
