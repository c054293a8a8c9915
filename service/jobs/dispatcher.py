"""Dispatcher: have each waiting job attempted on a node of a cluster.

It keeps nothing that another dispatcher, or one that is started later, could not read from the rows and the cluster.
Several may run: the name of an attempt is placed once, and the row decides which attempt counts.
"""

import logging
import time
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping

from service.execution.attempts import Attempt, Cluster, Unplaceable, job_and_number, name_of, node_of, worker_of
from service.execution.groups import Share
from service.execution.pauses import Pauses
from service.jobs.leases import Lease
from service.jobs.queue import FINAL, Job, Jobs
from service.jobs.resources import Resources, in_words
from service.store.database import Store

log = logging.getLogger(__name__)
_LOOKED_AT = 200  # waiting jobs, the first ones
_PENDING = 4  # attempts of the same resources that wait for a node: the order of the queue holds for the others
_OVER_S = 15.0  # after which an attempt that counts no more is ended by force, if it has not ended by itself
_LACKING_S = 5.0  # without nodes that have the resources of a job, after which an event says so
_SUSPECT_S = 60.0  # for which a node that let a lease expire is avoided


class Dispatcher:
    """Compares the waiting jobs with the placed attempts, at each `look`."""

    def __init__(
        self,
        store: Store,
        cluster: Cluster,
        *,
        lease_s: float,
        default: Resources,
        now: Callable[[], float] = time.time,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        """`default`: resources of a job that does not ask for them."""
        self._jobs = Jobs(store)
        self._cluster = cluster
        self._lease_s = lease_s
        self._default = default
        self._now = now
        self._monotonic = monotonic
        self._over: dict[str, float] = {}  # name of an attempt that counts no more -> since when
        self._pauses = Pauses()  # between placements of an attempt that ends before it claims its job
        self._lacking: dict[str, float] = {}  # name of an attempt that no nodes have the resources for -> since when
        self._told: set[str] = set()  # of these, the ones of which an event says so
        self._suspects: dict[str, float] = {}  # id of a node -> until when

    def look(self) -> None:
        """Place attempts, and end those that count no more. Call it twice a second. Raises StoreUnavailable."""
        placed = {name: found for name in self._cluster.placed() if (found := job_and_number(name))}
        at = self._monotonic()
        ids = {job for job, _ in placed.values()}

        def lost(lease: Lease) -> bool:
            """Whether an attempt of the cluster is not there any more: its process, or its node, was killed."""
            return node_of(lease.worker) is not None and name_of(lease.job, lease.attempt) not in placed

        board = self._jobs.waiting(ids, now=self._now(), monotonic_s=at, most=_LOOKED_AT, lost=lost)
        over = {name for name, (job, number) in placed.items() if _is_over(board.others.get(job), number)}
        self._end_late(over, at)
        self._suspect([job for job in board.jobs if job.state == "running"], at)
        attempts = [self._attempt(job) for job in board.jobs]
        self._place(attempts, placed, at)
        self._tell({attempt.name: attempt for attempt in attempts if attempt.name in placed}, at)

    def _tell(self, pending: Mapping[str, Attempt], at: float) -> None:
        """Tell of jobs that wait for more than the cluster has, and of those for which it has enough by now.

        Each change is reported once, however many dispatchers see it: see Jobs.wait_for. Raises StoreUnavailable.
        """
        offers = self._cluster.nodes().values() if pending else ()
        lacking = {name for name, attempt in pending.items() if not _fits(attempt, offers)}
        self._lacking = {name: self._lacking.get(name, at) for name in lacking}
        self._told &= pending.keys()
        for name in self._told - lacking:
            self._say(pending[name], "the cluster has what it waits for, but not free")
            self._told.discard(name)
        for name, since in self._lacking.items():
            if at - since >= _LACKING_S and name not in self._told:
                job, asks = pending[name].job, _asks(pending[name])
                log.warning("job waits for more than the cluster has", extra={"job": job, "waits_for": asks})
                self._say(pending[name], f"the cluster does not have what it waits for: {asks}")
                self._told.add(name)

    def _say(self, attempt: Attempt, reason: str) -> None:
        self._jobs.wait_for(attempt.job, reason, now=self._now())

    def _place(self, attempts: Collection[Attempt], placed: Collection[str], at: float) -> None:
        self._pauses.keep({attempt.name for attempt in attempts})
        pending: Counter[tuple[float, float, int]] = Counter()
        for attempt in attempts:
            kind = attempt.cpus, attempt.gpus, attempt.nodes
            if attempt.name in placed:
                pending[kind] += 1
            elif pending[kind] < _PENDING and self._pauses.over(attempt.name, at):
                pending[kind] += 1
                self._place_one(attempt, at)

    def _place_one(self, attempt: Attempt, at: float) -> None:
        fields = {"job": attempt.job, "attempt": attempt.number}
        if self._pauses.tried(attempt.name, at):
            log.warning("attempt ended before it claimed its job, it is placed again", extra=fields)
        asks = {"cpus": attempt.cpus, "gpus": attempt.gpus, "nodes": attempt.nodes}
        try:
            if self._cluster.place(attempt, self._suspects.keys()):
                log.info("attempt placed", extra={**fields, **asks})
        except Unplaceable as err:  # the other jobs go on
            log.warning("attempt refused by the cluster", extra={**fields, **asks, "reason": str(err)})

    def _attempt(self, job: Job) -> Attempt:
        resources = self._default.asked(job.resources)
        return Attempt(
            job=job.id,
            number=job.attempt + 1,
            beats=job.beats,
            cpus=resources.cpus,
            gpus=resources.gpus,
            nodes=int(resources.nodes),
            lease_s=self._lease_s,
        )

    def _end_late(self, over: Collection[str], at: float) -> None:
        """End attempts by force that should have ended by themselves: on a frozen node, or pending for no more."""
        self._over = {name: self._over.get(name, at) for name in over}
        for name, since in self._over.items():
            if at - since > _OVER_S:
                self._cluster.remove(name)

    def _suspect(self, silent: Collection[Job], at: float) -> None:
        """Avoid the nodes whose workers are silent: it may take the cluster a minute to notice."""
        self._suspects = {node: until for node, until in self._suspects.items() if at < until}
        for job in silent:
            node = node_of(job.worker)
            if node is not None:
                if node not in self._suspects:
                    log.warning("node avoided: its worker is silent", extra={"node": node, "job": job.id})
                self._suspects[node] = at + _SUSPECT_S


def _asks(attempt: Attempt) -> str:
    return in_words({"cpus": attempt.cpus, "gpus": attempt.gpus, "nodes": attempt.nodes})


def _fits(attempt: Attempt, offers: Iterable[Share]) -> bool:
    """Whether the cluster has as many nodes with these resources as an attempt asks for, if nothing else used them."""
    return sum(has.cpus >= attempt.cpus and has.gpus >= attempt.gpus for has in offers) >= attempt.nodes


def _is_over(job: Job | None, number: int) -> bool:
    """Whether an attempt counts no more: the job has ended, or another attempt, or another worker, has it."""
    if job is None or job.state in FINAL or job.attempt > number:
        return True
    if job.attempt < number:  # it waits for a node, or for its lease to be given up
        return False
    node = node_of(job.worker)
    return node is None or job.worker != worker_of(node, name_of(job.id, number))
