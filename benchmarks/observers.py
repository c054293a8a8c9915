"""What a prediction pays for its observers: for none, traces of 1% and of all, captures of 5%, and counts of drift.

Each cost is measured alone, with the objects of the service in one process, and given as a share of the CPU time of a
request of a running service, or of a core. All CPU time counts, that of the threads that write and send, too. While
capture and tracing are off they observe no model: a request pays for the question whether anybody does. The counter of
drift is shown at most 100 requests of a model in a second, however many there are, and counts them once a second.
"""

import asyncio
import os
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from threading import Thread
from types import SimpleNamespace
from typing import cast
from unittest.mock import patch

import numpy as np
import psutil

from benchmarks import Options, load
from benchmarks.report import Aim, table
from benchmarks.servers import PRETRAINED, SEVEN, cpu_s
from benchmarks.service_process import running_service
from models import mnist
from models.checkpoints.record import verify
from models.drift.reference import DriftReference, counted
from service.api.predictions import showing
from service.data.capture import CaptureWriter
from service.data.captures import Captures
from service.data.sampled import Sampler, Waiting
from service.inference.callers import Answer
from service.inference.decoding import Samples
from service.inference.pipeline import Lane, Pipeline, Stopwatch
from service.store.database import Store
from service.telemetry.ids import next_stem
from service.telemetry.served import Observer, Observers, Served
from service.telemetry.tracing import tracing_of

_CONNECTIONS = 64
_REQUESTS = 20_000
_TIMES = 5
_IN_A_TURN = 16  # requests that end in one turn of the event loop
_SHOWN_PER_S = 100  # to the counter of drift, at most
_LANE, _HEADERS, _BODY = Lane("mnist", None), {b"content-type": b"image/png"}, bytes(300)
_PIXELS = np.random.default_rng(0).integers(0, 256, (_SHOWN_PER_S, 1, 28, 28)).astype(np.uint8)
_VALUES = np.full((_SHOWN_PER_S, 10), 0.1, np.float32)
_SAMPLES = Samples(_PIXELS[:1], {}, 1, _PIXELS[:1])
_ANSWER = Answer(1, _VALUES[:1], True, 1e-4, 1e-4, _IN_A_TURN)


class _Everything:
    """Observer that wants each request, and does nothing."""

    def wants(self, headers: Mapping[bytes, bytes], stem: str, size: int | None) -> bool:  # noqa: ARG002 - see Observer
        """See Observer."""
        return True

    def ended(self, served: Served) -> None:
        """See Observer."""


def main(options: Options) -> str:
    """Return the table."""
    request_us = _request_us(options)
    nobody, another, shown = (_spent_us(one) for one in ({}, {"other": _Everything()}, {"mnist": _Everything()}))
    with _collector() as endpoint:
        traced = _traced_us(endpoint, 0.01, _REQUESTS), _traced_us(endpoint, 1.0, 1_000)
    captured, counted_us = _captured_us(0.05), _counted_us()
    rows = [
        Aim("CPU of a request, µs", [request_us]),
        Aim("capture and tracing off: asking whether anybody observes, share of it", [nobody / request_us], 0.005),
        Aim("  if another model is observed", [another / request_us], 0.01),
        Aim("tracing 1% of the requests, share of it", [traced[0] / request_us], 0.03),
        Aim("  all, µs a request, with a collector in the same process", [traced[1]]),
        Aim("capturing 5%, share of it", [captured / request_us]),
        Aim("  µs a captured request", [captured / 0.05]),
        Aim("drift: shown, µs a request", [shown]),
        Aim(f"  counting {_SHOWN_PER_S} requests, µs", [counted_us]),
        Aim("  share of a core at most", [(_SHOWN_PER_S * shown + counted_us) / 1e6], 0.01),
    ]
    return table(["", "value", "aim", "met"], [row.cells() for row in rows])


def _request_us(options: Options) -> float:
    """Return the CPU time of a request of a running service, in µs."""
    spent = []
    with running_service({}) as (url, process):
        for _ in range(options.rounds + 1):
            before = cpu_s(psutil.Process(process.pid))
            sent = load.send(url, SEVEN, ("/predict/mnist",), connections=_CONNECTIONS, seconds=options.seconds)
            spent.append((cpu_s(psutil.Process(process.pid)) - before) / sent.requests * 1e6)
    return median(spent[1:])


def _spent_us(
    observing: Mapping[str, Observer], requests: int = _REQUESTS, end: Callable[[], Awaitable[None]] | None = None
) -> float:
    """Return the CPU time that a request of mnist pays for observers, by model, in µs; that of `end` included."""
    pipeline = cast("Pipeline", SimpleNamespace(observers=Observers(), canaries={}))
    for model, observer in observing.items():
        pipeline.observers.add(model, observer)
    watch = Stopwatch()

    async def go(*, asks: bool) -> float:
        began = time.process_time()
        for number in range(requests):
            stem = next_stem()
            if asks and pipeline.observers:
                about = ("/predict/{model}", stem, _LANE, _HEADERS, watch, _BODY)
                show = showing(pipeline, *about, counts=False, size=1)
                if show is not None:
                    show(_SAMPLES, _ANSWER)
            if number % _IN_A_TURN == 0:
                await asyncio.sleep(0)
        await asyncio.sleep(0)
        if asks and end is not None:
            await end()
        return time.process_time() - began

    plain = min(asyncio.run(go(asks=False)) for _ in range(_TIMES))
    asked = min(asyncio.run(go(asks=True)) for _ in range(1 if end else _TIMES))
    return max(0.0, asked - plain) / requests * 1e6


def _traced_us(endpoint: str, share: float, requests: int) -> float:
    """Return the CPU time that a request pays for tracing a share of them, in µs, until all spans are sent."""
    wanted = {
        "OTEL_EXPORTER_OTLP_ENDPOINT": endpoint,
        "OTEL_TRACES_SAMPLER": "traceidratio",
        "OTEL_TRACES_SAMPLER_ARG": str(share),
    }
    found = []
    with patch.dict(os.environ, wanted):
        for _ in range(_TIMES):
            tracing = tracing_of(os.environ, "torchloop 0")
            assert tracing is not None, "the extra otel is not installed"
            found.append(_spent_us({"mnist": tracing}, requests, tracing.__aexit__))
    return min(found)


@contextmanager
def _collector() -> Iterator[str]:
    """An OTLP receiver that reads spans and keeps none."""

    class Receiver(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            """Log nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Receiver)
    Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


def _captured_us(rate: float) -> float:
    """Return the CPU time that a request pays for capturing a share of them, in µs, until all are written."""
    with TemporaryDirectory() as folder:
        store = Store(Path(folder))
        store.migrate()
        waiting = Waiting()
        sampler = Sampler(waiting, lambda *_: None)
        sampler.rate = rate
        drawn = _spent_us({"mnist": sampler})
        written = waiting.load.rows
        writer = CaptureWriter({"mnist": mnist.SPEC}, Captures(store), waiting, lambda *_: None, pause=lambda _: None)
        began = time.process_time()
        while writer.write(time.time()):
            pass
        spent = (time.process_time() - began) / written * 1e6
        store.close()
    return drawn + rate * spent


def _counted_us() -> float:
    """Return the CPU time of counting the requests of a second, in µs."""
    reference = DriftReference.of_json(verify("mnist", PRETRAINED / "mnist.pt").drift)
    spent = []
    for _ in range(100):
        began = time.thread_time()
        counted(mnist.SPEC, reference, _PIXELS, _VALUES)
        spent.append(time.thread_time() - began)
    return min(spent) * 1e6
