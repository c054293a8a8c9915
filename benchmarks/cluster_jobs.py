"""Jobs on a Ray cluster whose nodes fail: how soon one is taken up again, and whether any is lost.

The cluster is on loopback, three nodes of one CPU each. `taken_up` and `killed_at_random` return tables.
"""

import random
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from benchmarks.ray_cluster import RayNodes, dispatcher, ray_nodes
from benchmarks.report import table
from service.delivery.registry import Registry
from service.execution.attempts import node_of
from service.jobs.queue import FINAL, Job, Jobs
from service.store.database import Store

_POLL_S = 0.05
_PATIENCE_S = 900.0
_TAKEN_UP_S, _PAST_S = 10.0, 20.0  # the aims
_LONG: Mapping[str, Any] = {"epochs": 10_000, "hidden": 50}
_SHORT: Mapping[str, Any] = {"epochs": 500, "hidden": 50}


class NeverCame(Exception):
    """Something that was waited for did not come about."""


class Trial:
    """A store, and a cluster that does its jobs."""

    def __init__(self, store: Store, nodes: RayNodes) -> None:
        self.jobs = Jobs(store)
        self.registry = Registry(store)
        self.nodes = nodes

    def enqueue(self, config: Mapping[str, Any]) -> Job:
        """Queue a job of the regressor."""
        return self.jobs.enqueue("regressor", config, "never", now=time.time())

    def when(self, job: Job, condition: Callable[[Job], bool]) -> Job:
        """Wait for a job. Raises NeverCame."""
        deadline = time.monotonic() + _PATIENCE_S
        while time.monotonic() < deadline:
            now = self.jobs.get(job.id)
            if condition(now):
                return now
            time.sleep(_POLL_S)
        raise NeverCame(f"job {job.id} is {self.jobs.get(job.id).state}")


@contextmanager
def trial(database_url: str, nodes: int = 3) -> Iterator[Trial]:
    """Start a cluster and its dispatcher, with a store in a temporary folder; "" for SQLite in it."""
    with TemporaryDirectory() as folder:
        store = Store(Path(folder), database_url)
        store.migrate()
        settings = {"TORCHLOOP_STORE": folder, "TORCHLOOP_DATABASE_URL": database_url}
        with ray_nodes(nodes, settings) as running, dispatcher(running):
            yield Trial(store, running)
        store.close()


def taken_up(database_url: str, rounds: int = 3) -> str:
    """Kill and freeze the node of a running job. PostgreSQL only: a frozen process may hold the lock of SQLite."""
    rows = []
    with trial(database_url) as running:
        for fault in ("kill", "freeze"):
            seconds = [_failed_node(running, fault) for _ in range(rounds)]
            for what, found, aim_s in zip(
                ("taken up", "past the old epoch"), zip(*seconds, strict=True), (_TAKEN_UP_S, _PAST_S), strict=True
            ):
                met = "yes" if max(found) <= aim_s else "no"
                rows.append([f"{fault}: {what}", f"{min(found):.1f} to {max(found):.1f}", f"{aim_s:g}", met])
    return table(["", "s", "aim s", "met"], rows)


def _failed_node(running: Trial, fault: str) -> tuple[float, float]:
    """Return the seconds until a job is taken up, and until it is past the epoch that it had reached."""
    job = running.enqueue(_LONG)
    begun = running.when(job, lambda now: _epoch(now) > 20 and now.attempt == 1)
    node = node_of(begun.worker) or ""
    running.nodes.do(f"{fault} {node}")
    failed_at = time.monotonic()
    reached = _epoch(running.jobs.get(job.id))
    running.when(job, lambda now: now.attempt == 2)
    up_s = time.monotonic() - failed_at
    running.when(job, lambda now: now.attempt == 2 and _epoch(now) > reached)
    past_s = time.monotonic() - failed_at
    if fault == "freeze":
        running.nodes.do(f"kill {node}")
    running.nodes.do("add")
    running.jobs.cancel(job.id, now=time.time())
    running.when(job, lambda now: now.state in FINAL)
    return up_s, past_s


def killed_at_random(database_url: str = "", *, count: int = 50, every: int = 5, seed: int = 1) -> str:
    """Queue jobs, and kill a node whenever `every` more of them have ended; another one takes its place.

    By their number and not by the time: on a slow machine a job would lose its node in each of its three attempts.
    """
    chance = random.Random(seed)  # noqa: S311 - no secret
    began = time.monotonic()
    killed = 0
    with trial(database_url) as running:
        jobs = [running.enqueue(_SHORT) for _ in range(count)]
        while unfinished := [job for job in jobs if running.jobs.get(job.id).state not in FINAL]:
            if time.monotonic() > began + _PATIENCE_S:
                raise NeverCame(f"{len(unfinished)} jobs have not ended")
            if (count - len(unfinished)) // every > killed:
                running.nodes.do(f"kill {chance.choice(sorted(running.nodes.nodes))}")
                running.nodes.do("add")
                killed += 1
            time.sleep(_POLL_S * 10)
        ended = [running.jobs.get(job.id) for job in jobs]
        versions = Counter(version.job for version in running.registry.versions("regressor"))
    return _outcome(ended, versions, killed, time.monotonic() - began)


def _outcome(ended: Sequence[Job], versions: Mapping[str | None, int], killed: int, seconds: float) -> str:
    states, attempts = Counter(job.state for job in ended), Counter(job.attempt for job in ended)
    once = sum(versions.get(job.id, 0) == 1 for job in ended)
    rows = [
        ["jobs", str(len(ended))],
        ["nodes killed", str(killed)],
        *([state, str(number)] for state, number in states.items()),
        ["with one version each", str(once)],
        *([f"ended in attempt {number}", str(attempts[number])] for number in sorted(attempts)),
        ["s", f"{seconds:.0f}"],
    ]
    return table(["", ""], rows)


def _epoch(job: Job) -> int:
    return int(job.progress["epoch"]) if job.progress else 0
