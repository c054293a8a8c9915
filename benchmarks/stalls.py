"""Event loop lag caused by hostile requests, and the time until each is rejected.

A `python -m service` subprocess gets GET /health/live continuously, while each hostile request is sent. Other load on
the machine can only increase a time, so the minimum over the rounds counts.
"""

import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial

import httpx

from benchmarks import Options
from benchmarks.floods import CHECKPOINT, FLOODS, LIMIT, RANGES, UPLOAD, asked, outputs
from benchmarks.report import table
from benchmarks.service_process import running_service

_LAG_S = 0.1
_AT_ONCE_S = 1.0


def main(options: Options) -> str:
    """Return the table: lag and duration of each request in ms, and whether they meet the aims."""
    with running_service({f"TORCHLOOP_MAX_{part}_BYTES": str(LIMIT) for part in ("BODY", "CHECKPOINT")}) as (url, _):
        tried: list[tuple[str, Callable[[], object], bool]] = [
            (flood.name, partial(asked, url, flood), True) for flood in [*FLOODS, *outputs()]
        ]
        tried.append((f"an upload of {UPLOAD.name}", partial(asked, url, UPLOAD), False))
        tried += [("ten thousand ranges", partial(_ranges, url, ranges), True) for ranges in RANGES]
        rows = [_row(url, *one, rounds=options.rounds) for one in tried]
    head = ["", "lag ms", f"at most {_LAG_S * 1e3:g}", "taken ms", f"at most {_AT_ONCE_S * 1e3:g}"]
    return table(head, rows)


def _row(url: str, name: str, ask: Callable[[], object], at_once: bool, *, rounds: int) -> list[str]:
    lags, times = [], []
    for _ in range(rounds):
        with _probed(url) as taken:
            began = time.perf_counter()
            ask()
            times.append(time.perf_counter() - began)
        lags.append(max(taken))
    lag, taken_s = min(lags), min(times)
    in_time = ("yes" if taken_s < _AT_ONCE_S else "no") if at_once else ""
    return [name, f"{lag * 1e3:.0f}", "yes" if lag < _LAG_S else "no", f"{taken_s * 1e3:.0f}", in_time]


def _ranges(url: str, ranges: str) -> None:
    httpx.get(f"{url}{CHECKPOINT}", headers={"Range": f"bytes={ranges}"}, timeout=60)


@contextmanager
def _probed(url: str) -> Iterator[list[float]]:
    """Send GET /health/live continuously inside the context. Yields the latencies, in s."""
    over, taken = threading.Event(), [0.0]

    def probe() -> None:
        with httpx.Client() as client:
            client.get(f"{url}/health/live")
            while not over.is_set():
                began = time.perf_counter()
                assert client.get(f"{url}/health/live", timeout=60).status_code == 200
                taken.append(time.perf_counter() - began)

    with ThreadPoolExecutor(1) as pool:
        future = pool.submit(probe)
        try:
            yield taken
        finally:
            over.set()
            future.result()
