"""Time to decode and normalise a picture: 28x28 (compared with Pillow's decoder), pictures as people send them (see
`picture_costs`), and photos of 12 megapixels.

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
from PIL import Image

from benchmarks import Options
from benchmarks.picture_costs import MAX_PIXELS, encoded, photographed, table_of_costs
from benchmarks.report import table
from models.mnist import SPEC, drawn_seven
from models.spec import Array
from service.execution.threads import Threads
from service.inference.decoding import Decoder

_CALLS = 2_000  # calls per measurement of a small picture
_MOST_MB = 40  # of memory that reading a JPEG may take
_PHOTOS: dict[str, dict[str, Any]] = {
    "JPEG": {"format": "jpeg", "quality": 85},
    "progressive JPEG": {"format": "jpeg", "quality": 85, "progressive": True},
    "PNG": {"format": "png", "compress_level": 1},
}


def main(options: Options) -> str:
    """Return the tables for a small picture, for pictures as people send them, and for photos."""
    small = _small(options.rounds)
    photos = [_photo(name, options.rounds) for name in _PHOTOS]
    head = ["photo of 3000 x 4000", "MB", "ms", "longest event loop delay, ms", "additional peak, MB", "aim", ""]
    return f"{small}\n\n{table_of_costs(options.rounds)}\n\n{table(head, photos)}"


def _small(rounds: int) -> str:
    content = encoded(Image.fromarray(drawn_seven()), format="png")
    decoder = Decoder(MAX_PIXELS, Threads())
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
    content = encoded(photographed((3000, 4000)), **_PHOTOS[name])
    runs = [
        json.loads(subprocess.run(command, input=content, stdout=subprocess.PIPE, check=True).stdout)
        for _ in range(rounds)
    ]
    spent = [median(run[key] for run in runs) for key in ("ms", "wait_ms", "megabytes")]
    aim = [f"at most {_MOST_MB}", "yes" if spent[-1] <= _MOST_MB else "no"] if name == "JPEG" else []
    return [name, f"{len(content) / 1e6:.1f}", *(f"{value:.0f}" for value in spent), *aim]


async def _measured(content: bytes) -> dict[str, float]:
    """Return time, additional memory, and the longest time for which the event loop was blocked."""
    decoder = Decoder(MAX_PIXELS, threads := Threads())
    process, small = psutil.Process(), encoded(Image.fromarray(drawn_seven()), format="png")
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
