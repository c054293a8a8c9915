"""What one database carries: jobs queued, claimed, and kept by heartbeats, promotions, reads of the live versions, and
captures.

Each database is asked by threads of this process, each with connections of its own, as workers and web processes on
other machines would ask it. Heartbeats come every half a second from each job, as a worker sends them.
"""

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from statistics import quantiles
from tempfile import TemporaryDirectory

import numpy as np

from benchmarks import Options
from benchmarks.postgres import NoPostgres, Postgres
from benchmarks.report import table
from models.checkpoints.record import Record
from models.mnist import SPEC
from service.data.capture import MOST_ROWS
from service.data.capture_rows import Origin, Row, rows_of
from service.data.captures import Captures
from service.data.sampled import Sampled
from service.delivery.registry import Registry
from service.errors import StoreUnavailable
from service.jobs.queue import Job, Jobs
from service.store.database import Store
from service.telemetry.ids import next_stem, prediction_id

_MODEL = "mnist"
_BEAT_S = 0.5
_JOBS = (10, 100)  # that run at once
_CALLERS = 4
_WRITERS = 2  # web processes that capture
_CONNECTIONS = 300
Open = Callable[[], Store]
Ask = Callable[[], object]


@dataclass(frozen=True, kw_only=True)
class Seen:
    """Answers a second, the median and the 99th percentile of their times, and requests that the database refused."""

    rate: float
    p50_ms: float
    p99_ms: float
    refused: int

    def cells(self) -> list[str]:
        """Return the cells of a row."""
        return [f"{self.rate:.0f}", f"{self.p50_ms:.1f}", f"{self.p99_ms:.1f}", f"{self.refused}"]


def main(options: Options) -> str:
    """Return a table for SQLite and, if this machine can start a server, one for PostgreSQL."""
    with TemporaryDirectory() as folder:
        parts = [f"  SQLite\n{_measured(_opener(Path(folder), ''), options.seconds)}"]
    with TemporaryDirectory() as folder, TemporaryDirectory() as data:
        try:
            with _postgres(Path(data)) as url:
                parts.append(f"  PostgreSQL\n{_measured(_opener(Path(folder), url), options.seconds)}")
        except NoPostgres as err:
            parts.append(f"  PostgreSQL was not measured: {err}")
    return "\n\n".join(parts)


def beating(seconds: float, count: int = _JOBS[-1]) -> Seen:
    """Return the times of heartbeats of so many jobs, on a PostgreSQL server of its own. Raises NoPostgres."""
    with TemporaryDirectory() as folder, TemporaryDirectory() as data, _postgres(Path(data)) as url:
        opened = _opener(Path(folder), url)
        opened().migrate()
        return ask(_beats(opened, count), seconds, every_s=_BEAT_S)


def _opener(folder: Path, url: str) -> Open:
    return lambda: Store(folder, url)


@contextmanager
def _postgres(folder: Path) -> Iterator[str]:
    """Start a server, and yield the URL of a fresh database. Raises NoPostgres."""
    server = Postgres(folder)
    try:
        server.execute(f"ALTER SYSTEM SET max_connections = {_CONNECTIONS}")
        server.execute("ALTER SYSTEM SET fsync = on")  # as it is run
        server.stop()
        server.start()
        yield server.create_database("benchmark")
    finally:
        server.stop()


def _measured(opened: Open, seconds: float) -> str:
    """Return the table of one database, an empty one."""
    first = opened()
    first.migrate()
    _two_versions(first)
    rows = [
        ["looks for a job, none waits, 4 workers", *ask(_claims(opened), seconds).cells()],
        ["jobs queued, 4 callers", *ask([_queue(opened()) for _ in range(_CALLERS)], seconds).cells()],
        ["jobs claimed, 4 workers", *ask(_claims(opened), seconds).cells()],
        *(
            [f"heartbeats of {count} jobs", *ask(_beats(opened, count), seconds, every_s=_BEAT_S).cells()]
            for count in _JOBS
        ),
        ["promotions, 4 callers", *ask([_promote(opened()) for _ in range(_CALLERS)], seconds).cells()],
        ["reads of the live versions, 4 callers", *ask([Registry(opened()).live] * _CALLERS, seconds).cells()],
        [
            f"transactions of {MOST_ROWS} captures, {_WRITERS} web processes",
            *ask([capturing(opened()) for _ in range(_WRITERS)], seconds).cells(),
        ],
    ]
    return table(["", "a second", "p50 ms", "p99 ms", "refused"], rows)


def _two_versions(store: Store) -> None:
    registry = Registry(store)
    with store.write() as connection:
        for number in (1, 2):
            record = Record(model=_MODEL, sha256=f"{number:064x}")
            registry.add(connection, _MODEL, store.folder / f"{number}.pt", record, job=None, now=time.time())


def _queue(store: Store) -> Ask:
    jobs = Jobs(store)
    return lambda: jobs.enqueue(_MODEL, {"epochs": 1}, "never", most=1_000_000, now=time.time())


def _claims(opened: Open) -> list[Ask]:
    return [_claim(opened(), f"w{i}") for i in range(_CALLERS)]


def _claim(store: Store, worker: str) -> Ask:
    jobs = Jobs(store)
    return lambda: jobs.claim(worker, now=time.time(), monotonic_s=time.monotonic(), lease_s=60)


def _beats(opened: Open, count: int) -> list[Ask]:
    """Return the heartbeats of `count` jobs, each with a point of progress, of workers with a connection each."""
    stores = [opened() for _ in range(count)]
    return [_beat(Jobs(store), _claimed(store, f"beats-{count}-{i}")) for i, store in enumerate(stores)]


def _claimed(store: Store, worker: str) -> Job:
    jobs = Jobs(store)
    jobs.enqueue(_MODEL, {"epochs": 1}, "never", most=1_000_000, now=time.time())
    job = jobs.claim(worker, now=time.time(), monotonic_s=time.monotonic(), lease_s=60)
    assert job is not None
    return job


def _beat(jobs: Jobs, job: Job) -> Ask:
    point = {"epoch": 0, "epochs": 1, "step": 1, "steps": 100, "metrics": {"loss": 0.5}}
    return lambda: jobs.beat(job, [point], now=time.time())


def _promote(store: Store) -> Ask:
    registry = Registry(store)

    def promote() -> None:
        with store.write() as connection:
            live = registry.live_of(connection, _MODEL)
            registry.promote(connection, _MODEL, 1 if live == 2 else 2, by="bench", reason="benchmark", now=time.time())

    return promote


def capturing(store: Store) -> Ask:
    """Return the work of a web process that captures: a transaction of as many new samples as it has at the most."""
    captures, row = Captures(store), _captured_row()

    def capture() -> None:
        rows = [{**row, "id": prediction_id(next_stem(), row["version"])} for _ in range(MOST_ROWS)]
        captures.insert(rows, time.time())

    return capture


def _captured_row() -> Row:
    """Return the row of a captured picture of mnist."""
    one = Sampled(
        model=_MODEL,
        id=prediction_id(next_stem(), 1),
        version=1,
        at=time.time(),
        key=None,
        media_type="image/png",
        content_type="image/png",
        body=b"",
        entries=SPEC.example[:1],
        positions=[0],
        values=np.full((1, 10), 0.1, np.float32),
        describe=None,
        backend="onnxruntime",
        form=None,
        rate=1.0,
        size=1,
    )
    return rows_of(one, SPEC, Origin(), {})[0]


def ask(work: Sequence[Ask], seconds: float, every_s: float = 0.0) -> Seen:
    """Do each piece of work again and again in a thread of its own, at most once in `every_s`, for some seconds."""
    times: list[list[float]] = [[] for _ in work]
    refused = [0] * len(work)
    begin = time.perf_counter()

    def repeat(i: int) -> None:
        due = begin + every_s * i / len(work)  # spread over the interval
        while (now := time.perf_counter()) < begin + seconds:
            if now < due:
                time.sleep(due - now)
            asked = time.perf_counter()
            refused[i] += 1
            with suppress(StoreUnavailable):
                work[i]()
                refused[i] -= 1
                times[i].append(time.perf_counter() - asked)
            due += every_s

    threads = [threading.Thread(target=repeat, args=(i,)) for i in range(len(work))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    passed = time.perf_counter() - begin
    every = sorted(spent for spents in times for spent in spents)
    cuts = [1e3 * cut for cut in quantiles(every, n=100, method="inclusive")] if len(every) > 1 else [float("nan")] * 99
    return Seen(rate=len(every) / passed, p50_ms=cuts[49], p99_ms=cuts[98], refused=sum(refused))
