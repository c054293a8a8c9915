"""Queue of training and ingest jobs: enqueue, claim, heartbeat, finish, fail, cancel.

Every transition says `WHERE id = ? AND state = ? AND attempt = ?`. The attempt number rises with each claim and is the
fencing token: a worker that froze and continues after its lease expired gets LeaseLost for every write.
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, and_, func, select, update

from service.data.datasets import Datasets, DatasetVersion, may_mean
from service.delivery.gate import Gate, Policy
from service.errors import Conflict
from service.jobs import turns
from service.jobs.leases import Lease, Leases
from service.jobs.resources import Resources
from service.jobs.rows import (
    FINAL,
    MAX_ATTEMPTS,
    Event,
    Job,
    Kind,
    LeaseLost,
    State,
    added,
    change,
    claimed,
    end,
    give_up_waiting,
    job_of,
    known,
    one,
    release,
    require_same,
    required,
    spent,
    tell_state,
    told_of,
    with_key,
)
from service.store.database import Store
from service.store.feed import append_all
from service.store.tables import events, jobs

__all__ = ["FINAL", "MAX_ATTEMPTS", "Event", "Job", "Jobs", "Kind", "LeaseLost", "State"]
MAX_QUEUED = 1000  # jobs of one submitter


@dataclass(frozen=True, slots=True, kw_only=True)
class Waiting:
    """The jobs that wait for a worker, in order, and the present rows of other jobs by their ids."""

    jobs: Sequence[Job]
    others: Mapping[str, Job]


class Jobs:
    """The tables of jobs and of their events, and the leases that a worker has seen."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._datasets = Datasets(store)
        self._leases = Leases()

    def enqueue(
        self,
        model: str,
        config: Mapping[str, Any],
        promote: Policy,
        *,
        promote_bounds: Mapping[str, Any] | None = None,
        tensorboard: bool = False,
        resources: Mapping[str, Any] | None = None,
        dataset: str | None = None,
        key: str | None = None,
        submitter: str = "",
        most: int = MAX_QUEUED,
        now: float,
    ) -> Job:
        """Add a job, or return the first job with the same idempotency key. `dataset` is pinned: a bare name becomes
        name@version of its newest version.

        Raises Invalid if the first job had another request body, NotFound for an unknown dataset, and LimitReached if
        `most` jobs of this submitter are queued.
        """
        with self._store.write() as connection:
            first = with_key(connection, key)
            if first is not None:
                order = "train", model, config, promote, promote_bounds, tensorboard, resources
                what = first.kind, first.model, first.config, first.promote, first.promote_bounds
                known = *what, first.tensorboard, first.resources
                same = known == order and first.feedback is None and may_mean(dataset, first.dataset)
                require_same(first, same=same)
                return first
            pinned = None if dataset is None else self._datasets.find(connection, model, dataset)
            values = {
                "model": model,
                "config": dict(config),
                "promote": promote,
                "promote_bounds": promote_bounds,
                "tensorboard": tensorboard,
                "resources": resources,
                "idempotency_key": key,
                **_pin(pinned),
            }
            return added(connection, values, submitter, most, now)

    def enqueue_ingest(
        self,
        connection: Connection,
        model: str,
        dataset: str,
        config: Mapping[str, Any],
        ingest: Mapping[str, Any],
        *,
        job_id: str,
        key: str | None = None,
        submitter: str = "",
        most: int = MAX_QUEUED,
        now: float,
    ) -> Job:
        """Add an ingest job in the caller's transaction, or return the first job with the same idempotency key, which
        has another id than `job_id`. See jobs/ingests.py. Raises as `enqueue` does.
        """
        first = with_key(connection, key)
        if first is not None:
            name = (first.dataset or "").partition("@")[0]
            order = "ingest", model, dataset, ingest
            require_same(first, same=(first.kind, first.model, name, first.ingest) == order)
            return first
        values = {
            "id": job_id,
            "kind": "ingest",
            "model": model,
            "config": dict(config),
            "promote": "never",
            "tensorboard": False,
            "dataset": dataset,
            "ingest": dict(ingest),
            "idempotency_key": key,
        }
        return added(connection, values, submitter, most, now)

    def get(self, job_id: str) -> Job:
        """Return one job. Raises NotFound."""
        with self._store.read() as connection:
            return required(connection, job_id)

    def has_ended(self, job_id: str) -> bool:
        """Return whether a job has ended, and no event of it follows. Raises NotFound."""
        return self.get(job_id).state in FINAL

    def page(
        self,
        *,
        model: str | None = None,
        state: str | None = None,
        kind: Kind | None = None,
        before: int | None = None,
        limit: int,
    ) -> Sequence[Job]:
        """Return jobs, newest first; with `before`, those older than that job number."""
        chosen = {"model": model, "state": state, "kind": kind}
        query = select(jobs).where(*(jobs.c[name] == value for name, value in chosen.items() if value is not None))
        query = query.where(jobs.c.number < before) if before is not None else query
        with self._store.read() as connection:
            return [job_of(row) for row in connection.execute(query.order_by(jobs.c.number.desc()).limit(limit))]

    def events(self, job_id: str, after: int = 0, kind: str | None = None) -> Sequence[Event]:
        """Return the events of a job after event `after`, oldest first."""
        query = select(events).where(events.c.job == job_id, events.c.id > after).order_by(events.c.id)
        query = query.where(events.c.kind == kind) if kind is not None else query
        with self._store.read() as connection:
            return [Event(**row) for row in connection.execute(query).mappings()]

    def last_event(self) -> int:
        """Return the id of the last event of all jobs; 0 if there is none."""
        with self._store.read() as connection:
            return connection.scalar(select(func.max(events.c.id))) or 0

    def new_events(self, after: int, limit: int) -> Sequence[Event]:
        """Return events of all jobs after event `after`, oldest first. Writers take turns, so none comes in between."""
        query = select(events).where(events.c.id > after).order_by(events.c.id).limit(limit)
        with self._store.read() as connection:
            return [Event(**row) for row in connection.execute(query).mappings()]

    def cancel(self, job_id: str, *, now: float) -> Job:
        """End a queued job, or ask the worker of a running job to stop. Raises NotFound, Conflict."""
        with self._store.write() as connection:
            job = required(connection, job_id)
            if job.state in FINAL:
                raise Conflict(f"job {job_id} has {job.state} already: it cannot be cancelled")
            if job.state == "queued":
                self._end(connection, job, now, state="cancelled")
            else:
                connection.execute(update(jobs).where(jobs.c.id == job_id).values(cancel_requested=True))
            return required(connection, job_id)

    def cancel_queued(self, model: str | None = None, submitter: str | None = None, *, now: float) -> int:
        """End all queued jobs, or those of one model, or of one submitter. Returns how many."""
        chosen = jobs.c.state == "queued"
        if model is not None:
            chosen = and_(chosen, jobs.c.model == model)
        if submitter is not None:
            chosen = and_(chosen, jobs.c.submitter == submitter)
        with self._store.write() as connection:
            found = connection.execute(select(jobs).where(chosen)).all()
            if found:
                data = {"state": "cancelled", "error": None}
                rows = [
                    {"job": row.id, "attempt": row.attempt, "at": now, "kind": "state", "data": data} for row in found
                ]
                connection.execute(update(jobs).where(chosen).values(state="cancelled", error=None, finished_at=now))
                connection.execute(events.insert(), rows)
                ended = [job_of(row) for row in found]
                told = [(job.model, told_of(job, job.attempt, data)) for job in ended]
                append_all(connection, "job.cancelled", now, told)
                for job in ended:
                    self._drop_file(connection, job)
        return len(found)

    def claim(
        self, worker: str, *, now: float, monotonic_s: float, lease_s: float, capacity: Resources | None = None
    ) -> Job | None:
        """Claim a job: the oldest one that was begun and has no worker, else one of the submitter whose turn it is.

        It takes several calls to find out that a lease has expired (see Leases). A job without attempts left fails
        instead, and one with a cancel request is cancelled. Jobs that ask for more than `capacity` are left to others.
        """
        with self._store.write() as connection:
            expired = turns.expired(connection, self._leases, monotonic_s)
            while row := turns.next_row(connection, expired, capacity):
                job = job_of(row)
                if not self._ended(connection, job, now):
                    return claimed(connection, job, worker, now, lease_s)
        return None

    def take(self, job_id: str, attempt: int, beats: int, worker: str, *, now: float, lease_s: float) -> Job | None:
        """Claim this attempt at a job, if it is still to be made: `beats` is the count of heartbeats by which a running
        job was found silent. Ends the job instead as `claim` does.
        """
        with self._store.write() as connection:
            job = one(connection, jobs.c.id == job_id)
            if job is None or job.attempt != attempt - 1 or job.state in FINAL:
                return None
            if (job.state == "running" and job.beats != beats) or self._ended(connection, job, now):
                return None
            return claimed(connection, job, worker, now, lease_s)

    def waiting(
        self, others: Collection[str], *, now: float, monotonic_s: float, most: int, lost: Callable[[Lease], bool]
    ) -> Waiting:
        """Return the jobs to claim, in the order of `claim`, at most `most`, and those of `others`. Claims none.

        Jobs that `claim` would end are ended. `lost` is as for Leases.expired.
        """
        with self._store.write() as connection:
            expired = turns.expired(connection, self._leases, monotonic_s, lost)
            found = [job_of(row) for row in turns.next_rows(connection, expired, most)]
            free = [job for job in found if not self._ended(connection, job, now)]
            rows = connection.execute(select(jobs).where(jobs.c.id.in_(others)))
            return Waiting(jobs=free, others={row.id: job_of(row) for row in rows})

    def _ended(self, connection: Connection, job: Job, now: float) -> bool:
        """End a job that is to be cancelled or has no attempts left. Returns whether it was one."""
        if job.cancel_requested:
            self._end(connection, job, now, state="cancelled")
        elif job.attempt - job.released >= MAX_ATTEMPTS:
            self._end(connection, job, now, state="failed", error=spent(job))
        else:
            return False
        return True

    def beat(self, job: Job, points: Sequence[Mapping[str, Any]], *, output: Sequence[str] = (), now: float) -> bool:
        """Renew the lease, and store events: progress, and `output` of the subprocess.

        Returns whether the job is to be cancelled. Raises LeaseLost.
        """
        with self._store.write(durable=False) as connection:
            values: dict[str, Any] = {"beats": jobs.c.beats + 1}
            told: list[tuple[str, Mapping[str, Any]]] = [("log", {"output": text}) for text in output]
            told += [("progress", point) for point in points]
            if points:
                values["progress"] = points[-1]
            if told:
                about = {"job": job.id, "attempt": job.attempt, "at": now}
                connection.execute(events.insert(), [{**about, "kind": kind, "data": data} for kind, data in told])
            changed = update(jobs).where(known(job)).values(**values).returning(jobs.c.cancel_requested)
            cancel_requested: bool | None = connection.scalar(changed)
            if cancel_requested is None:
                raise LeaseLost(job.id)
            return cancel_requested

    def finish(self, connection: Connection, job: Job, version: int, gate: Gate, *, now: float) -> None:
        """Mark the job as succeeded, in the transaction that registers its version. Raises LeaseLost."""
        end(connection, job, now, state="succeeded", version=version, gate=gate.as_dict())

    def finish_ingest(
        self, connection: Connection, job: Job, version: DatasetVersion, report: Mapping[str, Any], *, now: float
    ) -> None:
        """Mark an ingest job as succeeded, in the transaction that registers its dataset version. Raises LeaseLost."""
        change(connection, job, report=report)
        end(connection, job, now, state="succeeded", **_pin(version))
        release(connection, job, _pin(version), now)

    def fail(self, job: Job, title: str, detail: str, *, report: Mapping[str, Any] | None = None, now: float) -> None:
        """Mark the job as failed, without another attempt. Raises LeaseLost."""
        with self._store.write() as connection:
            if report is not None:
                change(connection, job, report=report)
            self._end(connection, job, now, state="failed", error={"title": title, "detail": detail})

    def wait_for(self, job_id: str, reason: str, *, now: float) -> None:
        """Add an event to a queued job that says why it waits, unless that is what its last state says: another
        dispatcher, or this one before a restart, has found the same.
        """
        with self._store.write(durable=False) as connection:
            job = one(connection, jobs.c.id == job_id)
            if job is None or job.state != "queued":
                return
            told = {"state": "queued", "reason": reason}
            states = select(events.c.data).where(events.c.job == job_id, events.c.kind == "state")
            if connection.scalar(states.order_by(events.c.id.desc()).limit(1)) != told:
                tell_state(connection, job, job.attempt, now, told)

    def cancelled(self, job: Job, *, now: float) -> None:
        """Mark the job as cancelled. Raises LeaseLost."""
        with self._store.write() as connection:
            self._end(connection, job, now, state="cancelled")

    def requeue(self, job: Job, *, now: float, reason: str, in_good_order: bool = False) -> None:
        """Return the job to the queue, to be resumed. With `in_good_order` it does not count as a failed attempt.

        Raises LeaseLost.
        """
        with self._store.write() as connection:
            released = job.released + 1 if in_good_order else job.released
            error = None if in_good_order else {"title": f"Attempt {job.attempt} ended early", "detail": reason}
            change(connection, job, state="queued", worker=None, released=released, error=error)
            tell_state(connection, job, job.attempt, now, {"state": "queued", "reason": reason})

    def _end(self, connection: Connection, job: Job, now: float, *, state: State, **values: Any) -> None:
        """End a job without a result. Raises LeaseLost."""
        end(connection, job, now, state=state, **values)
        give_up_waiting(connection, job, state, now)
        self._drop_file(connection, job)

    def _drop_file(self, connection: Connection, job: Job) -> None:
        """Remove the file of an ingest job that has ended without a version."""
        if job.ingest is not None:
            self._datasets.drop_source(connection, job.model, job.ingest["source"])


def _pin(version: DatasetVersion | None) -> dict[str, str]:
    return {} if version is None else {"dataset": version.label, "dataset_sha256": version.sha256}
