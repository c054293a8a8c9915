"""Worker: claim jobs that train or ingest, supervise the torch subprocess, register the outcome."""

import contextlib
import logging
import signal
import threading
import time
from collections.abc import Callable
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import TypeVar

from sqlalchemy import Connection

from models.checkpoints.location import DatasetFile
from models.checkpoints.record import Record
from models.groups import PEER_LOST
from models.messages import (
    CheckpointFile,
    Evaluate,
    Evaluated,
    Export,
    Failed,
    Fit,
    Fitted,
    Ingested,
    Order,
    Progress,
    Progressed,
    R,
)
from service.delivery.gate import Bounds, Gate, decide
from service.delivery.registry import Registry
from service.delivery.trials import Opening, Trials
from service.errors import Conflict, NotFound, ObjectsAway, StoreUnavailable
from service.execution.process import Child, Printed, StartChild
from service.execution.stop import Stopping
from service.jobs.ingests import Ingests, reported
from service.jobs.output import Output, folders
from service.jobs.queue import FINAL, Job, Jobs, LeaseLost
from service.jobs.resources import Resources
from service.store.database import Store

LEASE_S = 6.0  # after this long without a heartbeat, another worker takes the job
_BEAT_S = 0.5  # the longest time between two heartbeats: also how soon a cancel is seen
_BEAT_EVERY_S = 0.2  # the shortest
_LAST_TRIES = 6  # of a worker that ends while the database is away; the lease then runs out by itself
_POLL_S = 0.5  # how often an idle worker looks for a job, and a worker without a database for the database


log = logging.getLogger(__name__)
T = TypeVar("T")


class _Stop(Exception):
    """Stop working on the current job, for the reason in the subclass."""


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
        capacity: Resources | None = None,
        stopping: Stopping | None = None,
        judge_forms: bool = False,
        now: Callable[[], float] = time.time,
        start_child: StartChild = Child,
    ) -> None:
        self._store = store
        self._storage = store.storage
        self._registry = Registry(store)
        self._jobs = Jobs(store)
        self._trials = Trials(store)
        self._ingests = Ingests(store, self._jobs)
        self._data = data
        self._name = name
        self._device = device
        self._lease_s = lease_s
        self._capacity = capacity
        self._judge_forms = judge_forms
        self._stopping: Stopping = stopping or threading.Event()
        self._now = now
        self._start_child = start_child
        self._folders = folders(store.folder, data)
        self._output = Output(self._folders)  # of the attempt at work

    def run(self) -> None:
        """Work until `stopping` is set. Nothing that a job does ends this loop."""
        with contextlib.suppress(_Stopping):
            self._insist(self._store.migrate)
            self._insist(self._sweep)
            log.info("worker started", extra={"worker": self._name})
            while not self._stopping.is_set():
                job = self._insist(self._claim)
                if job is None:
                    self._stopping.wait(_POLL_S)
                else:
                    self.work(job)
        log.info("worker stopped", extra={"worker": self._name})

    def _claim(self) -> Job | None:
        return self._jobs.claim(
            self._name,
            now=self._now(),
            monotonic_s=time.monotonic(),
            lease_s=self._lease_s,
            capacity=self._capacity,
        )

    def attempt(self, job_id: str, number: int, beats: int) -> bool:
        """Claim this attempt at a job, see Jobs.take, and make it. Returns False if it is not to be made any more."""
        take = partial(self._jobs.take, job_id, number, beats, self._name, lease_s=self._lease_s)
        with contextlib.suppress(_Stopping):
            job = self._insist(lambda: take(now=self._now()))
            if job is not None:
                self.work(job)
                return True
        return False

    def work(self, job: Job) -> None:
        """One attempt at a job that this worker has claimed."""
        fields = {"job": job.id, "model": job.model, "attempt": job.attempt}
        log.info("job started", extra=fields)
        child = self._start_child()
        self._output = Output(self._folders)
        try:
            if job.kind == "ingest":
                self._ingest(job, child)
            else:
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
        match self._order(job, child, self._fit_order(job)):
            case None:
                self._end_early(job, child)
            case Failed() as failed:
                self._fail(job, failed)
            case Fitted() as fitted:
                self._register(job, child, fitted)
                self._tidy(job.id)

    def _ingest(self, job: Job, child: Child) -> None:
        match self._order(job, child, self._ingests.order(job, self._data)):
            case None:
                self._end_early(job, child)
            case Failed() as failed:
                self._fail(job, failed)
            case Ingested() as made:
                try:
                    self._insist(lambda: self._ingests.finish(job, made, now=self._now()))
                except NotFound as err:
                    reason = err.detail
                    self._settle(lambda: self._jobs.requeue(job, now=self._now(), reason=reason))

    def _end_early(self, job: Job, child: Child) -> None:
        """Return the job to the queue after the subprocess has died."""
        reason = _exit_in_words(child.exit)
        log.warning("job ended early", extra={"job": job.id, "attempt": job.attempt, "reason": reason})
        self._settle(lambda: self._jobs.requeue(job, now=self._now(), reason=reason))

    def _fail(self, job: Job, failed: Failed) -> None:
        log.warning("job failed", extra={"job": job.id, "reason": failed.detail})
        report = reported(failed.summary)
        self._settle(lambda: self._jobs.fail(job, failed.title, failed.detail, report=report, now=self._now()))
        self._tidy(job.id)

    def _register(self, job: Job, child: Child, fitted: Fitted) -> None:
        """Compare with the live version; then register, promote or keep, and finish, in one transaction."""
        self._export(job, child, fitted.record)
        while True:
            live = self._insist(lambda: self._registry.live().get(job.model))
            measured = None if live is None else self._live_figures(job, child, live, fitted.record)
            done = self._insist(partial(self._finish, job, fitted, live, measured))
            if done:
                return

    def _finish(
        self,
        job: Job,
        fitted: Fitted,
        live: int | None,
        measured: Evaluated | None,
    ) -> bool:
        """Return False if another version went live in the meantime: the comparison must then be repeated."""
        record = fitted.record
        gate = decide(
            job.promote,
            fitted.metric,
            fitted.higher_is_better,
            record.metrics,
            None if measured is None else measured.metrics,
            None if measured is None else measured.pairs,
            None if job.promote_bounds is None else Bounds(**job.promote_bounds),
            apart=(None, None) if measured is None else (measured.old, measured.new),
        )
        now = self._now()
        with self._store.write() as connection:
            if self._registry.live_of(connection, job.model) != live:
                return False
            path = self._storage.checkpoint(job.model, record.sha256)
            version = self._registry.add(connection, job.model, path, record, job=job.id, now=now)
            if gate.decision == "promoted":
                self._registry.promote(connection, job.model, version, by=job.id, reason=gate.reason, now=now)
            elif job.promote == "trial" and gate.candidate is not None:
                gate = self._tried(connection, job, version, gate, now)
            self._jobs.finish(connection, job, version, gate, now=now)
        log.info("job succeeded", extra={"job": job.id, "model": job.model, "version": version, **gate.as_dict()})
        return True

    def _tried(self, connection: Connection, job: Job, version: int, gate: Gate, now: float) -> Gate:
        """Open a trial of a new version. Returns the gate that names it, or says why there is none."""
        order = Opening(model=job.model, version=version)
        try:
            trial = self._trials.begin_in(connection, order, by=job.id, job=job.id, now=now)
        except Conflict as err:
            return replace(gate, reason=f"{gate.reason}; no trial was opened: {err.detail}")
        return replace(gate, reason=f"{gate.reason}; trial {trial.id} decides", trial=trial.id)

    def _live_figures(self, job: Job, child: Child, live: int, candidate: Record) -> Evaluated:
        """Return the figures of the live version on the candidate's split: measured, or else from its record."""
        version = self._insist(lambda: self._registry.version(job.model, live))
        order = Evaluate(
            model=job.model,
            config=job.config,
            data=self._data.resolve(),
            path=self._registry.path(version).resolve(),
            record=Record(**version.record),
            store=self._storage.location(patient=True),
            candidate=CheckpointFile(
                path=self._storage.checkpoint(job.model, candidate.sha256).resolve(), record=candidate
            ),
            dataset=self._dataset(job),
            trained_on=self._version_file(
                job.model, version.record.get("dataset"), version.record.get("dataset_sha256")
            ),
        )
        answer = self._order(job, child, order)
        if isinstance(answer, Evaluated):
            return answer
        reason = answer.detail if answer else _exit_in_words(child.exit)
        log.warning("live version not evaluated", extra={"job": job.id, "version": live, "reason": reason})
        measured_on = version.record["dataset"], version.record.get("dataset_sha256", "")
        same = measured_on == (candidate.dataset, candidate.dataset_sha256)
        return Evaluated(metrics=dict(version.record["metrics"]) if same else {}, dataset=candidate.dataset)

    def _export(self, job: Job, child: Child, record: Record) -> None:
        """Write the export now, so that the version goes live sooner. A failure shows when it is loaded."""
        path = self._storage.checkpoint(job.model, record.sha256).resolve()
        store = self._storage.location(patient=True)
        order = Export(model=job.model, path=path, record=record, store=store, judge=self._judge_forms)
        self._order(job, child, order)

    def _order(self, job: Job, child: Child, order: Order[R]) -> R | Failed | None:
        """Have an order executed and renew the lease meanwhile. Returns None if the subprocess died.

        While the database cannot be reached, progress is buffered and the subprocess continues.
        """
        child.send(order)
        points: list[Progress] = []
        final: R | Failed | None = None
        due = 0.0
        while points or self._output.waiting() or (final is None and child.exit is None):  # stored before the end
            for message in child.messages(_BEAT_S):
                if isinstance(message, Progressed):
                    points.append(message.point)
                elif isinstance(message, Printed):
                    self._output.add(message.text)
                else:
                    final = order.answered_by(message) or final
            if self._stopping.is_set():
                raise _Stopping
            if time.monotonic() < due and final is None and child.exit is None:
                continue  # a fit that reports every millisecond does not keep the database busy
            due = time.monotonic() + _BEAT_EVERY_S
            with contextlib.suppress(StoreUnavailable):
                told = [asdict(point) for point in points]
                cancel = self._jobs.beat(job, told, output=self._output.waiting(), now=self._now())
                points.clear()
                self._output.stored()
                if cancel:
                    raise _CancelRequested
        return final

    def _fit_order(self, job: Job) -> Fit:
        events = self._insist(lambda: self._jobs.events(job.id, kind="progress"))
        return Fit(
            model=job.model,
            config=job.config,
            data=self._data.resolve(),
            store=self._storage.location(patient=True),
            job=job.id,
            attempt=job.attempt,
            device=self._device,
            tensorboard=job.tensorboard,
            history=tuple(Progress(**event.data) for event in events),
            dataset=self._dataset(job),
        )

    def _dataset(self, job: Job) -> DatasetFile | None:
        """Return the dataset version that the job trains on; None for the data of the recipe."""
        return self._version_file(job.model, job.dataset, job.dataset_sha256)

    def _version_file(self, model: str, label: str | None, sha256: str | None) -> DatasetFile | None:
        """Return the files of a dataset version; None without a digest."""
        if not label or not sha256:
            return None
        folder, store = self._storage.dataset(model, sha256).resolve(), self._storage.location(patient=True)
        return DatasetFile(label=label, sha256=sha256, folder=folder, store=store)

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
            except StoreUnavailable:
                tries += 1
            if self._stopping.wait(_POLL_S):
                if not even_when_stopping or tries >= _LAST_TRIES:
                    raise _Stopping
                time.sleep(_POLL_S)

    def _sweep(self) -> None:
        """Remove what jobs left behind that ended without their worker."""
        for job_id in self._storage.job_ids():
            try:
                over = self._jobs.get(job_id).state in FINAL
            except NotFound:
                over = True
            if over:
                self._tidy(job_id)

    def _tidy(self, job_id: str) -> None:
        """Remove a finished job's resume points; its plot stays. If that fails, the next start removes them."""
        try:
            self._storage.remove_resume_points(job_id)
        except OSError as err:
            log.warning("resume points not removed", extra={"job": job_id, "reason": err.strerror})
        except ObjectsAway as err:
            log.warning("resume points not removed", extra={"job": job_id, "reason": err.detail})


def _exit_in_words(status: int | None) -> str:
    if status == PEER_LOST:
        return "another node of this job was lost"
    if status is not None and status < 0:
        name = signal.Signals(-status).name
        hint = "; SIGKILL often means that memory ran out" if name == "SIGKILL" else ""
        return f"the training process was killed by {name}{hint}"
    return f"the training process ended with exit status {status} and no result; the worker's log says why"
