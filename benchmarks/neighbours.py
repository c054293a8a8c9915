"""A small network beside a medium one: mnist's latency while batches of 60 pictures keep a ResNet-18 busy.

One web process of `python -m service`. mnist gets one picture every 20 ms in an open loop, first alone, then while one
client sends batches to the ResNet, each as soon as the one before is answered. Figures are medians over the rounds.
"""

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from urllib.parse import urlsplit

import httpx
import numpy as np
import psutil

from benchmarks import Options, resnet
from benchmarks.loop import percentile
from benchmarks.openloop import Answer, Client
from benchmarks.report import table
from benchmarks.servers import SEVEN, copy_checkout
from benchmarks.service_process import running_service

PICTURES = 60
AIM_MS = 50.0
_RATE = 50.0  # requests per second
_TIMEOUT_S = 120.0


@dataclass(frozen=True, kw_only=True)
class Round:
    """Result of one round. `batches`: seconds that each batch of the ResNet took."""

    alone: Sequence[Answer]
    beside: Sequence[Answer]
    batches: Sequence[float]


def main(options: Options) -> str:
    """Return the table."""
    with TemporaryDirectory() as folder:
        checkout = Path(folder)
        copy_checkout(checkout)
        environ = resnet.add_to(checkout)
        settings = {**environ, "TORCHLOOP_REQUEST_TIMEOUT_S": str(_TIMEOUT_S)}
        with running_service(settings, cwd=checkout) as (url, process):
            rounds = _rounds(url, options)
            resident_mb = psutil.Process(process.pid).memory_info().rss / 1e6
    return table_of(rounds, resident_mb)


def _rounds(url: str, options: Options) -> list[Round]:
    where = urlsplit(url)
    assert where.hostname
    assert where.port
    rounds = []
    with Client(where.hostname, where.port, "/predict/mnist", SEVEN.content, SEVEN.media_type) as client:
        for _ in range(options.rounds):
            alone = client.open_loop(_RATE, options.seconds, connections=64)
            with _batches(url) as taken:
                beside = client.open_loop(_RATE, options.seconds, connections=64)
            rounds.append(Round(alone=alone, beside=beside, batches=taken))
    return rounds


@contextmanager
def _batches(url: str) -> Iterator[list[float]]:
    """Send batches to the ResNet inside the context, one after the other. Yields the seconds that each took."""
    file = BytesIO()
    np.save(file, np.repeat(resnet.waves()[None], PICTURES, axis=0), allow_pickle=False)
    headers = {"Content-Type": "application/x-npy"}
    over, taken = threading.Event(), list[float]()

    def send() -> None:
        with httpx.Client(timeout=_TIMEOUT_S) as client:
            while not over.is_set():
                answer = client.post(f"{url}/predict/{resnet.NAME}", content=file.getvalue(), headers=headers)
                assert answer.status_code == 200, answer.text[:200]
                taken.append(answer.elapsed.total_seconds())

    thread = threading.Thread(target=send)
    thread.start()
    try:
        yield taken
    finally:
        over.set()
        thread.join()


def table_of(rounds: Sequence[Round], resident_mb: float) -> str:
    """Return latencies of mnist, seconds of a batch, memory, and the aim."""
    rows = []
    for name, seen in (
        ("alone", [one.alone for one in rounds]),
        (f"beside {PICTURES}", [one.beside for one in rounds]),
    ):
        ends = [_over(seen, share) for share in (0.5, 0.99, 1.0)]
        bad = sum(answer.status != 200 for answers in seen for answer in answers)
        rows.append([f"mnist {name}", *(f"{end:.1f}" for end in ends), f"{bad}"])
    p99 = _over([one.beside for one in rounds], 0.99)
    batch_s = median(second for one in rounds for second in one.batches)
    return "\n".join(
        [
            f"  one picture every {1000 / _RATE:g} ms, medians of {len(rounds)} rounds",
            table(["", "p50 ms", "p99 ms", "longest ms", "bad answers"], rows),
            "",
            f"  a batch of {PICTURES} takes {batch_s:.2f} s; the web process has {resident_mb:.0f} MB afterwards",
            "",
            table(
                ["aim", "reached", ""], [[f"p99 at most {AIM_MS:g} ms", f"{p99:.1f}", "yes" if p99 <= AIM_MS else "no"]]
            ),
        ]
    )


def _over(rounds: Sequence[Sequence[Answer]], share: float) -> float:
    return median(percentile([answer.took_s * 1000 for answer in seen], share) for seen in rounds)
