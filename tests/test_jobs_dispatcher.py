"""The dispatcher with a cluster in memory. Time is an argument: nothing here waits."""

from collections.abc import Collection, Mapping
from typing import Any

import pytest

from service.errors import StoreUnavailable
from service.execution.attempts import Attempt, Unplaceable, job_and_number, node_of, worker_of
from service.execution.groups import Share
from service.jobs.dispatcher import Dispatcher
from service.jobs.queue import Job, Jobs
from service.jobs.resources import Resources
from service.store.database import Store
from service.store.feed import Changes

NODE = "a1"


class InMemory:
    """A cluster that places nothing by itself: tests claim, as the processes of attempts do."""

    def __init__(self) -> None:
        self.attempts: dict[str, Attempt] = {}
        self.avoided: dict[str, set[str]] = {}
        self.removed: list[str] = []
        self.offers = {NODE: Share(64, 8)}
        self.refused: set[str] = set()

    def placed(self) -> Collection[str]:
        return {*self.attempts, "another-actor", "other"}

    def nodes(self) -> Mapping[str, Share]:
        return self.offers

    def place(self, attempt: Attempt, avoid: Collection[str]) -> bool:
        if attempt.name in self.attempts:
            return False
        if attempt.job in self.refused:
            raise Unplaceable("no such resources")
        self.attempts[attempt.name] = attempt
        self.avoided[attempt.name] = set(avoid)
        return True

    def remove(self, name: str) -> None:
        self.removed.append(name)
        self.attempts.pop(name, None)


class Trial:
    """A dispatcher, what it sees, and its clock."""

    def __init__(self, store: Store, cluster: InMemory | None = None) -> None:
        self.store = store
        self.jobs = Jobs(store)
        self.cluster = cluster or InMemory()
        self.at = 0.0
        self.dispatcher = Dispatcher(
            store,
            self.cluster,
            lease_s=6,
            default=Resources(cpus=1, gpus=0),
            now=lambda: 0.0,
            monotonic=lambda: self.at,
        )

    def enqueue(self, **options: Any) -> Job:
        return self.jobs.enqueue("m", {}, "never", now=0, **options)

    def look(self, seconds: float = 0.0) -> list[str]:
        """Look, twice a second for so long. Returns what is placed, in order."""
        for _ in range(int(2 * seconds)):
            self.dispatcher.look()
            self.at += 0.5
        self.dispatcher.look()
        return list(self.cluster.attempts)

    def claim(self, name: str, node: str = NODE) -> Job:
        """Claim as the process of an attempt does."""
        job = self.take(name, node)
        assert job is not None
        return job

    def take(self, name: str, node: str = NODE) -> Job | None:
        attempt = self.cluster.attempts[name]
        worker = worker_of(node, name)
        return self.jobs.take(attempt.job, attempt.number, attempt.beats, worker, now=0, lease_s=attempt.lease_s)


@pytest.fixture
def trial(sqlite_store: Store) -> Trial:
    return Trial(sqlite_store)


def test_names_of_attempts_and_workers_are_read_back() -> None:
    assert job_and_number("ab-12") == ("ab", 12)
    assert [job_and_number(name) for name in ("ab", "-1", "ab-x", "ab-", "")] == [None] * 5
    assert node_of(worker_of(NODE, "ab-12")) == NODE
    assert [node_of(name) for name in ("host-17", "cluster/x", None, "a/b/c")] == [None] * 4


def test_each_waiting_job_is_placed_once_with_its_resources(trial: Trial) -> None:
    plain, asking = trial.enqueue(), trial.enqueue(resources={"gpus": 0.5, "cpus": 4})
    assert trial.look(5) == [f"{plain.id}-1", f"{asking.id}-1"]
    first, second = trial.cluster.attempts.values()
    assert (first.cpus, first.gpus, first.lease_s) == (1, 0, 6)
    assert (second.cpus, second.gpus, second.nodes) == (4, 0.5, 1)
    job = trial.claim(first.name)
    assert (job.state, job.attempt, job.worker) == ("running", 1, f"cluster/{NODE}/{plain.id}-1")
    assert trial.take(first.name) is None, "claimed a second time"


def test_a_job_of_several_nodes_is_placed_and_left_alone_by_workers_beside_the_cluster(trial: Trial) -> None:
    wide = trial.enqueue(resources={"nodes": 2, "cpus": 3})
    capacity = Resources(cpus=64, gpus=8)
    assert trial.jobs.claim("host-1", now=0, monotonic_s=0, lease_s=6, capacity=capacity) is None
    (name,) = trial.look()
    attempt = trial.cluster.attempts[name]
    assert (attempt.job, attempt.nodes, attempt.cpus) == (wide.id, 2, 3)
    assert trial.claim(name).attempt == 1


def test_two_dispatchers_place_a_job_once_and_a_later_one_goes_on(trial: Trial) -> None:
    job = trial.enqueue()
    second = Trial(trial.store, trial.cluster)
    assert trial.look() == second.look() == [f"{job.id}-1"]
    trial.claim(f"{job.id}-1")
    third = Trial(trial.store, trial.cluster)
    for _ in range(40):  # the attempt goes on without the first two
        third.look(0.5)
        third.jobs.beat(third.jobs.get(job.id), [], now=0)
    assert (third.look(), third.cluster.removed) == ([f"{job.id}-1"], [])


def test_a_silent_attempt_is_placed_again_away_from_its_node_and_can_claim_no_more(trial: Trial) -> None:
    job = trial.enqueue()
    trial.look()
    held = trial.claim(f"{job.id}-1")
    trial.jobs.beat(held, [], now=0)
    assert trial.look(6) == [f"{job.id}-1"]
    assert trial.look(0.5) == [f"{job.id}-1", f"{job.id}-2"]
    assert trial.cluster.avoided[f"{job.id}-2"] == {NODE}
    again = trial.claim(f"{job.id}-2", "b2")
    assert (again.attempt, again.state) == (2, "running")
    other = trial.enqueue()
    trial.look()
    assert trial.cluster.avoided[f"{other.id}-1"] == {NODE}
    trial.jobs.beat(again, [], now=0)
    trial.at += 61
    later = trial.enqueue()
    trial.look()
    assert trial.cluster.avoided[f"{later.id}-1"] == set(), "avoided for good"


def test_an_attempt_that_was_silent_and_beats_again_keeps_its_job(trial: Trial) -> None:
    job = trial.enqueue()
    trial.look()
    held = trial.claim(f"{job.id}-1")
    trial.look(6.5)
    assert trial.jobs.beat(held, [], now=0) is False
    assert trial.take(f"{job.id}-2") is None
    assert trial.jobs.get(job.id).attempt == 1
    assert trial.look(30) == [f"{job.id}-1", f"{job.id}-2"], "it ends by itself"


def test_a_lost_attempt_is_placed_again_after_two_seconds(trial: Trial) -> None:
    job = trial.enqueue()
    trial.look()
    trial.claim(f"{job.id}-1")
    trial.look()
    trial.cluster.attempts.clear()
    assert trial.look(2) == []
    assert trial.look(0.5) == [f"{job.id}-2"]


def test_a_worker_outside_of_the_cluster_keeps_its_whole_lease(trial: Trial) -> None:
    job = trial.enqueue()
    assert trial.jobs.claim("host-1", now=0, monotonic_s=0, lease_s=6)
    assert trial.look(6) == []
    assert trial.look(0.5) == [f"{job.id}-2"]
    assert trial.cluster.avoided[f"{job.id}-2"] == set()


def test_attempts_that_count_no_more_are_ended_if_they_do_not_end_by_themselves(trial: Trial) -> None:
    ended, moved, taken, waits = (trial.enqueue() for _ in range(4))
    trial.look()
    trial.jobs.cancel(ended.id, now=0)
    trial.jobs.requeue(trial.claim(f"{moved.id}-1"), now=0, reason="stopped", in_good_order=True)
    held = trial.jobs.claim("host-1", now=0, monotonic_s=0, lease_s=60)
    elsewhere = trial.jobs.claim("host-1", now=0, monotonic_s=0, lease_s=60)
    assert held is not None
    assert elsewhere is not None
    assert {held.id, elsewhere.id} == {moved.id, taken.id}
    trial.look(15)
    assert trial.cluster.removed == []
    trial.look(0.5)
    assert set(trial.cluster.removed) == {f"{ended.id}-1", f"{moved.id}-1", f"{taken.id}-1"}
    assert f"{waits.id}-1" in trial.look()


def test_few_attempts_of_a_kind_wait_for_a_node_and_other_kinds_do_not_wait_for_them(trial: Trial) -> None:
    large = [trial.enqueue(resources={"gpus": 1}) for _ in range(9)]
    small = trial.enqueue()
    assert trial.look(3) == [*(f"{job.id}-1" for job in large[:4]), f"{small.id}-1"]
    trial.claim(f"{large[0].id}-1")
    assert f"{large[4].id}-1" in trial.look()


def test_an_attempt_that_ends_before_its_claim_is_placed_again_ever_more_rarely(trial: Trial) -> None:
    job = trial.enqueue()
    times = []
    for _ in range(40):
        if trial.look():
            times.append(trial.at)
            trial.cluster.attempts.clear()
        trial.at += 0.5
    assert times == [0, 1, 3, 7, 15]
    assert trial.jobs.get(job.id).attempt == 0


def test_a_job_to_be_cancelled_or_without_attempts_left_is_ended_and_not_placed(trial: Trial) -> None:
    cancelled, spent = trial.enqueue(), trial.enqueue()
    trial.look()
    trial.claim(f"{cancelled.id}-1")
    trial.jobs.cancel(cancelled.id, now=0)
    for number in (1, 2, 3):
        trial.jobs.requeue(trial.claim(f"{spent.id}-{number}"), now=0, reason="killed")
        trial.look()
    trial.cluster.attempts.clear()
    assert trial.look(7) == []
    assert [trial.jobs.get(job.id).state for job in (cancelled, spent)] == ["cancelled", "failed"]


def test_jobs_are_placed_in_the_order_in_which_workers_claim_them(trial: Trial) -> None:
    for submitter in "cd":
        trial.enqueue(submitter=submitter)
    begun = trial.jobs.claim("w", now=0, monotonic_s=0, lease_s=6)
    assert begun is not None
    for submitter in "aaaabbccbd":
        trial.enqueue(submitter=submitter, resources={"cpus": 1})
    trial.jobs.requeue(begun, now=0, reason="stopped", in_good_order=True)
    waiting = trial.jobs.waiting((), now=0, monotonic_s=0, most=7, lost=lambda _: False)
    claimed = []
    while job := trial.jobs.claim("w", now=0, monotonic_s=0, lease_s=6):
        claimed.append(job.id)
    assert [job.id for job in waiting.jobs] == claimed[:7]


def test_a_job_that_the_cluster_refuses_holds_up_no_other_one(trial: Trial, caplog: pytest.LogCaptureFixture) -> None:
    refused, other = trial.enqueue(resources={"gpus": 0.00001}), trial.enqueue()
    trial.cluster.refused = {refused.id}
    assert trial.look(1) == [f"{other.id}-1"]
    told = [record for record in caplog.records if record.msg == "attempt refused by the cluster"]
    assert [(record.__dict__["job"], record.__dict__["reason"]) for record in told] == [
        (refused.id, "no such resources")
    ] * 2
    trial.cluster.refused.clear()
    assert f"{refused.id}-1" in trial.look(2)


def test_a_job_says_that_the_cluster_does_not_have_what_it_waits_for(trial: Trial) -> None:
    trial.cluster.offers = {NODE: Share(2, 0), "b2": Share(4, 1)}
    fitting = trial.enqueue(resources={"cpus": 4, "gpus": 1})
    large, wide = trial.enqueue(resources={"cpus": 5}), trial.enqueue(resources={"nodes": 2, "cpus": 3})
    trial.look(4.5)
    assert [_reasons(trial, job) for job in (fitting, large, wide)] == [[], [], []]
    trial.look(5)
    assert _reasons(trial, fitting) == []
    said = "the cluster does not have what it waits for: "
    assert _reasons(trial, large) == [f"{said}a worker or node with 5 CPUs"]
    assert _reasons(trial, wide) == [f"{said}2 nodes with 3 CPUs each"]
    trial.cluster.offers["c3"] = Share(5, 0)
    trial.look(1)
    del trial.cluster.offers["c3"]
    trial.look(6)
    there = "the cluster has what it waits for, but not free"
    for job, asks in ((large, "a worker or node with 5 CPUs"), (wide, "2 nodes with 3 CPUs each")):
        assert _reasons(trial, job) == [f"{said}{asks}", there, f"{said}{asks}"]


def test_what_several_dispatchers_find_or_one_before_and_after_a_restart_is_told_once(trial: Trial) -> None:
    """Two dispatchers on one cluster: each change is one event of the job, and one entry of the feed."""
    trial.cluster.offers = {NODE: Share(2, 0)}
    job = trial.enqueue(resources={"cpus": 5})
    other = Trial(trial.store, trial.cluster)
    for one in (trial, other, Trial(trial.store, trial.cluster)):  # the last one was started later
        one.look(6)
    trial.cluster.offers[NODE] = Share(8, 0)
    for one in (trial, other):
        one.look(1)
    said = ["the cluster does not have what it waits for: a worker or node with 5 CPUs"]
    said += ["the cluster has what it waits for, but not free"]
    assert _reasons(trial, job) == said
    told = [entry.data for entry in Changes(trial.store).new_events(0, 99)]
    assert [one["reason"] for one in told if "reason" in one] == said
    trial.claim(f"{job.id}-1")
    trial.jobs.wait_for(job.id, "too late", now=0)
    assert _reasons(trial, job) == said


def test_what_the_database_has_not_noted_is_told_again(trial: Trial, monkeypatch: pytest.MonkeyPatch) -> None:
    def away(*_: object, **__: object) -> None:
        raise StoreUnavailable("away")

    job = trial.enqueue(resources={"cpus": 500})
    with monkeypatch.context() as context:
        context.setattr(trial.dispatcher._jobs, "wait_for", away)
        with pytest.raises(StoreUnavailable):
            trial.look(6)
    trial.look()
    assert len(_reasons(trial, job)) == 1


def _reasons(trial: Trial, job: Job) -> list[str]:
    found = trial.jobs.events(job.id, kind="state")
    return [event.data["reason"] for event in found if "reason" in event.data]
