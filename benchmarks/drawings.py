"""Drawings of 280 x 280 as a page's canvas makes them: requests per second, and small pictures beside them.

The hand-written route only decodes a drawing and resizes it; the service looks for the ink and checks it.
"""

import math
import threading
from collections.abc import Mapping, Sequence
from statistics import median

from benchmarks import load
from benchmarks.load import Body, Load
from benchmarks.picture_costs import encoded, ink
from benchmarks.report import table
from benchmarks.servers import SEVEN, Running, Server, started

AT = 64  # connections
BESIDE, SMALL = "small pictures beside drawings", "small pictures beside small ones"
_SIDE = 280
_SMALL_CALLERS = 4


def body() -> Body:
    """Return a drawing of a seven, white on black as the network wants it: the hand-written route does not invert."""
    return Body(content=encoded(ink(_SIDE), format="png"), media_type="image/png", labels=(7,))


def through(server: Server, seconds: int) -> dict[str, float]:
    """Measure requests per second of a server at 64 connections; of this service also the p99 of small pictures, in ms,
    beside one caller that sends drawings, and beside one that sends small pictures. Raises LoadError.
    """
    found = {}
    with started(server) as running:
        running.settle()
        load.send(running.url, body(), (server.path,), connections=AT, seconds=1)
        seen = load.send(running.url, body(), (server.path,), connections=AT, seconds=seconds)
        found[server.name] = _right(seen).rate
        if server.name == "torchloop":
            for name, other in ((SMALL, SEVEN), (BESIDE, body())):
                found[name] = _beside(running, server.path, other, seconds).p99_ms
    return found


def _beside(running: Running, path: str, other: Body, seconds: int) -> Load:
    """Measure small pictures over a few connections while one caller sends another body."""
    sending = threading.Thread(
        target=load.send, args=(running.url, other, (path,)), kwargs={"connections": 1, "seconds": seconds + 1}
    )
    sending.start()
    try:
        return _right(load.send(running.url, SEVEN, (path,), connections=_SMALL_CALLERS, seconds=seconds))
    finally:
        sending.join()


def _right(seen: Load) -> Load:
    if seen.bad:
        raise load.LoadError(f"{seen.bad} of {seen.requests} answers to drawings were wrong")
    return seen


def to_handwritten(found: Mapping[str, float]) -> float:
    """Return the rate of the service / that of the hand-written route. Raises KeyError."""
    return found["torchloop"] / found["handwritten"]


def slowed(found: Mapping[str, float]) -> float:
    """Return the p99 of small pictures beside drawings / beside small pictures. Raises KeyError."""
    return found[BESIDE] / found[SMALL]


def table_of(rounds: Sequence[Mapping[str, float]]) -> str:
    """Return the table of medians."""
    rows = [
        [f"{name}, requests/s at {AT} connections", _median(rounds, name, ".0f")]
        for name in ("torchloop", "handwritten")
    ]
    rows += [[f"{name}, p99 ms", _median(rounds, name, ".2f")] for name in (SMALL, BESIDE)]
    return table(["", "median"], rows)


def _median(rounds: Sequence[Mapping[str, float]], name: str, form: str) -> str:
    values = [found[name] for found in rounds if name in found]
    return format(median(values) if values else math.nan, form)
