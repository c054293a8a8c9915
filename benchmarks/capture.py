"""Capture: CPU time and latency of predictions without it and at 5%, and predictions while the database is frozen.

`python -m service` with one web process answers a 28x28 picture, first in a closed loop, which measures the
sustainable rate, then at a quarter of it in an open loop. Rates of capture take turns within a round, so that each
figure is a median of ratios of neighbours; the ratios of one load without capture to the next show what difference
chance makes. The p99 of a load is the median of that of each two seconds, in which captured samples are written at
least once: a moment that other work on the machine has spoilt counts once.

At the end SQLite's write lock is held, for 60 seconds with --whole, while each request is to be captured: every
response must be 200, and the memory of the service bounded. Client and service share the machine.
"""

import sqlite3
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from urllib.parse import urlsplit

import httpx
import psutil

from benchmarks import Options
from benchmarks.openloop import Client, p99s_ms
from benchmarks.report import table
from benchmarks.servers import SEVEN, cpu_s
from benchmarks.service_process import running_service

_CALLERS = 16
_SHARE = 0.25  # of the sustainable rate
_RATES = (0.0, 0.05)
_TURNS = 6  # of each rate in a round
_FROZEN_S = 60.0
_WRITTEN_S = 2.0  # captured samples wait for as long at most


@dataclass(frozen=True, slots=True)
class Seen:
    """One load: requests that were not answered with 200, p99 in ms, CPU time of the service per request in µs."""

    bad: int
    p99_ms: float
    cpu_us: float


@dataclass(frozen=True, slots=True)
class Frozen:
    """A load while the database was frozen: requests, those without a 200, growth of memory, counted samples."""

    requests: int
    bad: int
    grown_mb: float
    outcomes: Mapping[str, float]


def main(options: Options) -> str:
    """Return the tables. Raises SystemExit with them if a prediction failed."""
    with TemporaryDirectory() as folder, running_service({"TORCHLOOP_STORE": folder}) as (url, process):
        where = urlsplit(url)
        assert where.hostname
        assert where.port
        service = psutil.Process(process.pid)
        with Client(where.hostname, where.port, "/predict/mnist", SEVEN.content, SEVEN.media_type) as client:
            client.closed_loop(_CALLERS, 1)
            rate = _SHARE * len(client.closed_loop(_CALLERS, options.seconds)) / options.seconds
            rounds = [_round(client, service, url, rate, options.seconds) for _ in range(options.rounds)]
            frozen_s = _FROZEN_S if options.whole else 3.0 * options.seconds
            frozen = _frozen(client, service, url, rate, frozen_s, Path(folder))
    text = f"{_compared(rounds, rate)}\n\n{_of_frozen(frozen, frozen_s)}"
    if frozen.bad or any(seen.bad for turn in rounds for loads in turn.values() for seen in loads):
        raise SystemExit(f"capture\n{text}\n  predictions failed")
    return text


def _round(
    client: Client, service: psutil.Process, url: str, rate: float, seconds: int
) -> Mapping[float, Sequence[Seen]]:
    """Measure each rate of capture several times, in turns; every other turn in the other order."""
    loads: dict[float, list[Seen]] = {share: [] for share in _RATES}
    for turn in range(_TURNS):
        for share in _RATES if turn % 2 == 0 else reversed(_RATES):
            _set(url, share)
            loads[share].append(_load(client, service, rate, seconds))
    return loads


def _load(client: Client, service: psutil.Process, rate: float, seconds: float) -> Seen:
    """Measure once samples are written as they come, and none of an earlier load wait."""
    client.open_loop(rate, 1.5 * _WRITTEN_S)
    before = cpu_s(service)
    answers = client.open_loop(rate, seconds)
    spent_s = cpu_s(service) - before
    bad = sum(answer.status != 200 for answer in answers)
    return Seen(bad, median(p99s_ms(answers, _WRITTEN_S)), spent_s / max(1, len(answers)) * 1e6)


def _frozen(client: Client, service: psutil.Process, url: str, rate: float, seconds: float, folder: Path) -> Frozen:
    _set(url, 1.0)
    before, counted = service.memory_info().rss, _outcomes(url)
    with _locked(folder):
        answers = client.open_loop(rate, seconds)
    grown = (service.memory_info().rss - before) / 1e6
    after = _outcomes(url)
    outcomes = {name: after[name] - counted.get(name, 0) for name in after}
    return Frozen(len(answers), sum(answer.status != 200 for answer in answers), grown, outcomes)


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Hold the write lock of the service's database."""
    (database,) = folder.glob("*.db")
    with closing(sqlite3.connect(database, isolation_level=None, timeout=30)) as connection:
        connection.execute("BEGIN IMMEDIATE")
        yield
        connection.execute("ROLLBACK")


def _set(url: str, rate: float) -> None:
    httpx.put(f"{url}/models/mnist/capture", json={"rate": rate}, timeout=30).raise_for_status()


def _outcomes(url: str) -> dict[str, float]:
    """Return how many samples were captured, dropped or failed."""
    lines = httpx.get(f"{url}/metrics", timeout=30).text.splitlines()
    found = [line for line in lines if line.startswith("torchloop_captures_total{")]
    return {line.partition('outcome="')[2].partition('"')[0]: float(line.rpartition(" ")[2]) for line in found}


def _compared(rounds: Sequence[Mapping[float, Sequence[Seen]]], rate: float) -> str:
    loads = {share: [seen for turn in rounds for seen in turn[share]] for share in _RATES}
    base = loads[0.0]
    rows = []
    for share, seen in loads.items():
        p99, cpu = _median_ratios(zip(seen, base, strict=True))
        figures = median(one.p99_ms for one in seen), median(one.cpu_us for one in seen)
        rows.append([f"{share:.0%}", f"{figures[0]:.2f}", f"{p99:.3f}", f"{figures[1]:.1f}", f"{cpu:.3f}"])
    head = ["captured", "p99 ms", "ratio", "CPU µs a request", "ratio"]
    p99, cpu = _median_ratios(pairwise(base))
    rows.append(["one load without it to the next", "", f"{p99:.3f}", "", f"{cpu:.3f}"])
    return f"  {rate:.0f} requests/s; medians of {len(base)} loads, ratios within neighbours\n{table(head, rows)}"


def _median_ratios(pairs: Iterable[tuple[Seen, Seen]]) -> tuple[float, float]:
    """Return the median ratios of p99 and of CPU time."""
    found = [(one.p99_ms / other.p99_ms, one.cpu_us / other.cpu_us) for one, other in pairs]
    return median(p99 for p99, _ in found), median(cpu for _, cpu in found)


def _of_frozen(frozen: Frozen, seconds: float) -> str:
    counts = [f"{frozen.outcomes.get(name, 0):.0f}" for name in ("captured", "dropped", "failed")]
    row = [f"{seconds:.0f}", f"{frozen.requests}", f"{frozen.bad}", f"{frozen.grown_mb:.0f}", *counts]
    return table(["database frozen, s", "requests", "failed", "memory, MB more", "captured", "dropped", "lost"], [row])
