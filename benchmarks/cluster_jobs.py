"""Jobs on a Ray cluster whose nodes, dispatcher and head fail: how soon one is taken up again, and whether any is lost.

The cluster is on loopback, three nodes of one CPU each.
"""

import random
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import psutil

from benchmarks.ray_cluster import RayNodes, dispatcher, ray_nodes
from benchmarks.report import Aim
from service.delivery.registry import Registry
from service.execution.attempts import node_of
from service.jobs.queue import FINAL, Job, Jobs
from service.store.database import Store

_POLL_S = 0.05
PATIENCE_S = 180.0
_TAKEN_UP_S, _PAST_S = 10.0, 20.0  # the aims
_WOKEN_S = 5.0
_A_JOB_S = 30.0
_LONG: Mapping[str, Any] = {"epochs": 10_000, "hidden": 50, "batch_size": 1}  # longer than the head is dead
_SHORT: Mapping[str, Any] = {"epochs": 500, "hidden": 50}


class NeverCame(Exception):
    """Something that was waited for did not come about."""


class Trial:
    """A store, and a cluster that does its jobs."""

    def __init__(self, store: Store, nodes: RayNodes, stack: ExitStack) -> None:
        self.jobs = Jobs(store)
        self.registry = Registry(store)
        self.nodes = nodes
        self._stack = stack
        self._dispatcher = stack.enter_context(dispatcher(nodes))

    def replace_dispatcher(self) -> None:
        """Start another dispatcher; the one before has been killed."""
        self._dispatcher = self._stack.enter_context(dispatcher(self.nodes))

    def kill_dispatcher(self) -> None:
        """Kill the dispatcher and its supervisor."""
        parent = psutil.Process(self._dispatcher.pid)
        processes = [parent, *parent.children(recursive=True)]
        for process in processes:
            process.kill()
        psutil.wait_procs(processes[1:], PATIENCE_S)

    def enqueue(self, config: Mapping[str, Any]) -> Job:
        """Queue a job of the regressor."""
        return self.jobs.enqueue("regressor", config, "never", now=time.time())

    def begun(self) -> Job:
        """Queue a long job, and return it when it has done some epochs."""
        job = self.enqueue(_LONG)
        return self.when(job, lambda now: epoch(now) > 20 and now.attempt == 1)

    def when(self, job: Job, condition: Callable[[Job], bool]) -> Job:
        """Wait for a job. Raises NeverCame."""
        deadline = time.monotonic() + PATIENCE_S
        while time.monotonic() < deadline:
            now = self.jobs.get(job.id)
            if condition(now):
                return now
            if now.state in FINAL:
                break
            time.sleep(_POLL_S)
        raise NeverCame(f"job {job.id} is {self.jobs.get(job.id).state}")

    def end(self, job: Job) -> None:
        """Cancel a job, and wait until it has ended."""
        self.jobs.cancel(job.id, now=time.time())
        self.when(job, lambda now: now.state in FINAL)


@contextmanager
def trial(database_url: str, nodes: int = 3) -> Iterator[Trial]:
    """Start a cluster and its dispatcher, with a store in a temporary folder; its head finds its state again."""
    with TemporaryDirectory() as folder, ExitStack() as stack:
        store = Store(Path(folder, "store"), database_url)
        stack.callback(store.close)
        store.migrate()
        settings = {
            "TORCHLOOP_STORE": str(store.folder),
            "TORCHLOOP_DATABASE_URL": database_url,
            "RAY_gcs_storage": "rocksdb",
            "RAY_gcs_storage_path": str(Path(folder, "head")),
            "RAY_gcs_rpc_server_reconnect_timeout_s": "3600",
        }
        running = stack.enter_context(ray_nodes(nodes, settings))
        yield Trial(store, running, stack)


def taken_up(running: Trial, fault: str, rounds: int) -> list[Aim]:
    """`kill` or `freeze` the node of a running job. PostgreSQL only: a frozen process may hold the lock of SQLite."""
    found = [_failed_node(running, fault) for _ in range(rounds)]
    what = {"kill": "training node killed", "freeze": "training node frozen"}[fault]
    aims = [
        Aim(f"{what}: taken up, s", [up_s for up_s, _, _ in found], _TAKEN_UP_S),
        Aim(f"{what}: past the old epoch, s", [past_s for _, past_s, _ in found], _PAST_S),
    ]
    if fault == "freeze":
        aims.append(Aim(f"{what}: points that the woken one wrote", [float(late) for *_, late in found], 0))
    return aims


def _failed_node(running: Trial, fault: str) -> tuple[float, float, int]:
    """Return the s until a job is taken up and until it is past the old epoch, and what a woken attempt then wrote."""
    begun = running.begun()
    node = node_of(begun.worker) or ""
    running.nodes.do(f"{fault} {node}")
    failed_at = time.monotonic()
    reached = epoch(running.jobs.get(begun.id))
    running.when(begun, lambda now: now.attempt == 2)
    up_s = time.monotonic() - failed_at
    running.when(begun, lambda now: now.attempt == 2 and epoch(now) > reached)
    past_s = time.monotonic() - failed_at
    late = _woken(running, begun, node) if fault == "freeze" else 0
    running.nodes.do("add")
    running.end(begun)
    return up_s, past_s, late


def _woken(running: Trial, job: Job, node: str) -> int:
    """Wake a frozen node, and kill it later. Returns how many points the first attempt wrote meanwhile."""
    before = _points(running, job, 1)
    running.nodes.do(f"thaw {node}")
    time.sleep(_WOKEN_S)
    late = _points(running, job, 1) - before
    running.nodes.do(f"kill {node}")
    return late


def _points(running: Trial, job: Job, attempt: int) -> int:
    events = running.jobs.events(job.id, kind="progress")
    return sum(event.attempt == attempt for event in events)


def dispatcher_killed(running: Trial, seconds: float) -> Aim:
    """Kill the dispatcher for some seconds: the attempt goes on, and another dispatcher places the next job."""
    job = running.begun()
    running.kill_dispatcher()
    time.sleep(seconds)
    reached = epoch(running.jobs.get(job.id))
    now = running.when(job, lambda now: epoch(now) > reached)
    running.replace_dispatcher()
    running.end(running.begun())
    running.end(job)
    return Aim("dispatcher killed: attempts of the running job", [float(now.attempt)], 1)


def killed_at_random(running: Trial, count: int, every: int = 5, seed: int = 1) -> list[Aim]:
    """Queue jobs, and kill a node whenever `every` more of them have ended; another one takes its place.

    By their number and not by the time: on a slow machine a job would lose its node in each of its three attempts.
    """
    chance = random.Random(seed)  # noqa: S311 - no secret
    killed = 0
    jobs = [running.enqueue(_SHORT) for _ in range(count)]
    deadline = time.monotonic() + PATIENCE_S + _A_JOB_S * count
    while unfinished := [job for job in jobs if running.jobs.get(job.id).state not in FINAL]:
        if time.monotonic() > deadline:
            raise NeverCame(f"{len(unfinished)} jobs have not ended")
        if (count - len(unfinished)) // every > killed:
            running.nodes.do(f"kill {chance.choice(sorted(running.nodes.nodes))}")
            running.nodes.do("add")
            killed += 1
        time.sleep(_POLL_S * 10)
    ended = [running.jobs.get(job.id) for job in jobs]
    versions = Counter(version.job for version in running.registry.versions("regressor"))
    return _outcome(ended, versions, killed)


def _outcome(ended: Sequence[Job], versions: Mapping[str | None, int], killed: int) -> list[Aim]:
    what = f"{len(ended)} jobs, {killed} random kills"
    lost = sum(job.state != "succeeded" for job in ended)
    twice = sum(versions.get(job.id, 0) != 1 for job in ended)
    return [Aim(f"{what}: not succeeded", [lost], 0), Aim(f"{what}: without exactly one version", [twice], 0)]


def epoch(job: Job) -> int:
    """Return the epoch that a job has reached."""
    return int(job.progress["epoch"]) if job.progress else 0
