"""Training worker: claim jobs, supervise the torch subprocess, register the outcome."""

import contextlib
import logging
import signal
import threading
import time
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from models.checkpoints.record import Record
from models.messages import Message
from models.messages import order as export_order
from service.delivery.gate import decide
from service.delivery.registry import Registry
from service.errors import NotFound, StoreUnavailable
from service.execution.process import Child
from service.execution.stop import Stopping
from service.jobs.queue import FINAL, Job, Jobs, LeaseLost
from service.store.database import Store

LEASE_S = 6.0  # after this long without a heartbeat, another worker takes the job


_BEAT_S = 0.5  # the longest time between two heartbeats: also how soon a cancel is seen


_BEAT_EVERY_S = 0.2  # the shortest


_LAST_TRIES = 6  # of a worker that ends while the database is away; the lease then runs out by itself


_POLL_S = 0.5  # how often an idle worker looks for a job, and a worker without a database for the database


log = logging.getLogger(__name__)
T = TypeVar("T")


class _Stop(Exception):
    """The job in hand is to be let go of, for the reason in the subclass."""


class _Stopping(_Stop):
    """The worker itself ends."""


class _CancelRequested(_Stop):
    """A caller cancelled the job."""


class Worker:
    """One claims-and-fits loop. `stopping` ends it, with the job in hand given back."""

    def __init__(
        self,
        store: Store,
        data: Path,
        name: str,
        *,
        device: str = "auto",
        lease_s: float = LEASE_S,
        stopping: Stopping | None = None,
        now: Callable[[], float] = time.time,
    ) -> None:
        self._store = store
        self._registry = Registry(store)
        self._jobs = Jobs(store)
        self._data = data
        self._name = name
        self._device = device
        self._lease_s = lease_s
        self._stopping: Stopping = stopping or threading.Event()
        self._now = now

    def run(self) -> None:
        """Work until `stopping` is set. Nothing that a job does ends this loop."""
        with contextlib.suppress(_Stopping):
            self._insist(self._store.migrate)
            self._insist(self._sweep)
            log.info("worker started", extra={"worker": self._name})
            while not self._stopping.is_set():
                job = self._insist(lambda: self._jobs.claim(self._name, now=self._now(), lease_s=self._lease_s))
                if job is None:
                    self._stopping.wait(_POLL_S)
                else:
                    self.work(job)
        log.info("worker stopped", extra={"worker": self._name})

    def work(self, job: Job) -> None:
        """One attempt at a job that this worker has claimed."""
        fields = {"job": job.id, "model": job.model, "attempt": job.attempt}
        log.info("job started", extra=fields)
        child = Child()
        try:
            self._attempt(job, child)
        except LeaseLost:
            log.warning("job dropped: it is another worker's by now", extra=fields)
        except _Stopping:
            child.stop()
            self._settle(lambda: self._jobs.requeue(job, now=self._now(), reason="worker stopped", in_good_order=True))
        except _CancelRequested:
            child.stop()
            self._settle(lambda: self._jobs.cancelled(job, now=self._now()))
            self._tidy(job.id)
        except Exception:
            log.exception("job failed in the worker", extra=fields)
            reason = "the worker failed on this job; its log says why"
            self._settle(lambda: self._jobs.fail(job, "Internal error", reason, now=self._now()))
        finally:
            child.stop()

    def _attempt(self, job: Job, child: Child) -> None:
        answer = self._order(job, child, {"op": "fit", **self._fit_order(job)})
        if answer is None:
            reason = _exit_in_words(child.exit)
            log.warning("fit ended early", extra={"job": job.id, "attempt": job.attempt, "reason": reason})
            self._settle(lambda: self._jobs.requeue(job, now=self._now(), reason=reason))
        elif answer["kind"] == "error":
            log.warning("job failed", extra={"job": job.id, "reason": answer["detail"]})
            self._settle(lambda: self._jobs.fail(job, answer["title"], answer["detail"], now=self._now()))
            self._tidy(job.id)
        else:
            self._register(job, child, answer)
            self._tidy(job.id)

    def _register(self, job: Job, child: Child, fitted: Message) -> None:
        """Compare with what is live; then register, promote or keep, and finish, in one transaction."""
        record = Record(**fitted["record"])
        path = self._store.folder / fitted["path"]
        self._order(job, child, export_order(self._store.folder, job.model, path, record))  # so that it is live sooner
        while True:
            live = self._insist(lambda: self._registry.live().get(job.model))
            figures = None if live is None else self._live_figures(job, child, live, record.dataset)
            done = self._insist(partial(self._finish, job, fitted, record, live, figures))
            if done:
                return

    def _finish(
        self,
        job: Job,
        fitted: Message,
        record: Record,
        live: int | None,
        figures: Mapping[str, float] | None,
    ) -> bool:
        """False where something else went live in the meantime: then the comparison must be made again."""
        gate = decide(job.promote, fitted["metric"], fitted["higher_is_better"], record.metrics, figures)
        now = self._now()
        with self._store.write() as connection:
            if self._registry.live_of(connection, job.model) != live:
                return False
            path = self._store.folder / fitted["path"]
            version = self._registry.add(connection, job.model, path, record, job=job.id, now=now)
            if gate.decision == "promoted":
                self._registry.promote(connection, job.model, version, by=job.id, reason=gate.reason, now=now)
            self._jobs.finish(connection, job, version, gate, now=now)
        log.info("job succeeded", extra={"job": job.id, "model": job.model, "version": version, **gate.as_dict()})
        return True

    def _live_figures(self, job: Job, child: Child, live: int, dataset: str) -> Mapping[str, float]:
        """What the live version's file reaches on the candidate's split; else what its record says of that split."""
        version = self._insist(lambda: self._registry.version(job.model, live))
        order = {
            "op": "evaluate",
            **self._common(job),
            "path": str(self._registry.path(version).resolve()),
            "record": version.record,
        }
        answer = self._order(job, child, order)
        if answer is not None and answer["kind"] == "result":
            return dict(answer["metrics"])
        log.warning("live version not evaluated", extra={"job": job.id, "version": live, "answer": answer})
        return dict(version.record["metrics"]) if version.record["dataset"] == dataset else {}

    def _order(self, job: Job, child: Child, order: Message) -> Message | None:
        """Have the child do something, renewing the lease meanwhile: its last word, or None where it died.

        While the database is away, what the child reports is kept, and the child goes on.
        """
        child.send(order)
        points: list[Message] = []
        final: Message | None = None
        due = 0.0
        while points or (final is None and child.exit is None):  # what was reported is stored before the end is
            for message in child.messages(_BEAT_S):
                if message["kind"] == "progress":
                    points.append({key: value for key, value in message.items() if key != "kind"})
                else:
                    final = message
            if self._stopping.is_set():
                raise _Stopping
            if time.monotonic() < due and final is None and child.exit is None:
                continue  # a fit that reports every millisecond does not keep the database busy
            due = time.monotonic() + _BEAT_EVERY_S
            with contextlib.suppress(StoreUnavailable):
                cancel = self._jobs.beat(job, points, now=self._now(), lease_s=self._lease_s)
                points.clear()
                if cancel:
                    raise _CancelRequested
        return final

    def _common(self, job: Job) -> dict[str, Any]:
        return {"model": job.model, "config": dict(job.config), "data": str(self._data.resolve())}

    def _fit_order(self, job: Job) -> dict[str, Any]:
        points = self._insist(lambda: self._jobs.events(job.id, kind="progress"))
        return {
            **self._common(job),
            "store": str(self._store.folder.resolve()),
            "job": job.id,
            "attempt": job.attempt,
            "tensorboard": job.tensorboard,
            "device": self._device,
            "history": [dict(point.data) for point in points],
        }

    def _settle(self, write: Callable[[], None]) -> None:
        """Write a job's end, however long the database is away; if the job is not ours any more, so be it."""
        try:
            self._insist(write, even_when_stopping=True)
        except LeaseLost:
            log.warning("job was another worker's by the time it ended here")
        except _Stopping:
            log.warning("job left to its lease: the database did not come back")

    def _insist(self, action: Callable[[], T], *, even_when_stopping: bool = False) -> T:
        """Do it; while the database is away, wait and try again. Raises _Stopping."""
        tries = 0
        while True:
            try:
                return action()
            except StoreUnavailable as err:
                if tries == 0:
                    log.warning("store unavailable", extra={"reason": err.detail})
                tries += 1
            if self._stopping.wait(_POLL_S):
                if not even_when_stopping or tries >= _LAST_TRIES:
                    raise _Stopping
                time.sleep(_POLL_S)

    def _sweep(self) -> None:
        """Remove what jobs left behind that ended without their worker."""
        for folder in (self._store.folder / "jobs").glob("*"):
            try:
                over = self._jobs.get(folder.name).state in FINAL
            except NotFound:
                over = True
            if over:
                self._tidy(folder.name)

    def _tidy(self, job_id: str) -> None:
        """Remove a finished job's resume points; its plot stays."""
        for path in (self._store.folder / "jobs" / job_id).glob("resume-*"):
            path.unlink(missing_ok=True)


def _exit_in_words(status: int | None) -> str:
    if status is not None and status < 0:
        name = signal.Signals(-status).name
        hint = "; SIGKILL often means that memory ran out" if name == "SIGKILL" else ""
        return f"the training process was killed by {name}{hint}"
    return f"the training process ended with exit status {status} and no result; the worker's log says why"
