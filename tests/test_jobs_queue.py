"""The life of a job, on both databases. Time is an argument: nothing here waits."""

import subprocess
import sys
from collections import Counter
from typing import Any

import pytest

from service.delivery.gate import Gate
from service.errors import Conflict, Invalid, LimitReached, NotFound
from service.jobs.queue import MAX_ATTEMPTS, Job, Jobs, LeaseLost
from service.jobs.resources import Resources
from service.store.database import Store
from service.store.feed import Changes
from tests.fakes import ROOT

KEPT = Gate(decision="kept", metric="validation_mse", candidate=1.0, live=0.5, reason="not better")


@pytest.fixture
def jobs(store: Store) -> Jobs:
    return Jobs(store)


def enqueue(jobs: Jobs, now: float = 0.0, **options: Any) -> Job:
    return jobs.enqueue("m", {"epochs": 1}, "if_better", now=now, **options)


def claim(jobs: Jobs, worker: str = "a", now: float = 0.0, monotonic_s: float = 0.0) -> Job:
    job = look(jobs, worker, monotonic_s, now)
    assert job is not None
    return job


def look(jobs: Jobs, worker: str = "b", monotonic_s: float = 0.0, now: float = 0.0) -> Job | None:
    return jobs.claim(worker, now=now, monotonic_s=monotonic_s, lease_s=5)


def look_for(jobs: Jobs, seconds: float, worker: str = "b", now: float = 0.0) -> Job | None:
    """Look twice a second, as an idle worker does, until a job is free."""
    found = [look(jobs, worker, tick / 2, now) for tick in range(int(2 * seconds) + 1)]
    return found[-1]


def finish(store: Store, jobs: Jobs, job: Job, now: float = 0.0) -> None:
    with store.write() as connection:
        jobs.finish(connection, job, 1, KEPT, now=now)


def test_a_job_goes_from_queued_through_running_to_succeeded(store: Store, jobs: Jobs) -> None:
    job = enqueue(jobs, now=1)
    assert (job.state, job.attempt, job.created_at, job.started_at) == ("queued", 0, 1, None)
    job = claim(jobs, now=2)
    assert (job.state, job.attempt, job.started_at, job.lease_s) == ("running", 1, 2, 5)
    assert jobs.beat(job, [{"step": 1}, {"step": 2}], now=3) is False
    finish(store, jobs, job, now=4)
    job = jobs.get(job.id)
    assert (job.state, job.version, job.finished_at, job.progress) == ("succeeded", 1, 4, {"step": 2})
    assert job.gate == KEPT.as_dict()
    states = [event.data["state"] for event in jobs.events(job.id, kind="state")]
    assert states == ["queued", "running", "succeeded"]
    assert [event.data["step"] for event in jobs.events(job.id, kind="progress")] == [1, 2]


def test_jobs_are_claimed_in_the_order_they_came_and_each_once(jobs: Jobs) -> None:
    ids = [enqueue(jobs).id for _ in range(3)]
    assert [claim(jobs).id for _ in range(3)] == ids
    assert look(jobs) is None


def test_a_repeated_idempotency_key_gives_the_first_job(jobs: Jobs) -> None:
    first = enqueue(jobs, key="k")
    assert enqueue(jobs, key="k") == first
    assert enqueue(jobs, key="other").id != first.id
    assert len(jobs.page(limit=10)) == 2


@pytest.mark.parametrize(
    "change",
    [
        {"model": "m2"},
        {"config": {"epochs": 2}},
        {"promote": "never"},
        {"tensorboard": True},
        {"resources": {"cpus": 1}},
    ],
)
def test_an_idempotency_key_of_another_order_is_refused(jobs: Jobs, change: dict[str, Any]) -> None:
    order: dict[str, Any] = {"model": "m", "config": {"epochs": 1}, "promote": "always", "tensorboard": False}
    first = jobs.enqueue(**order, key="k", now=0)
    with pytest.raises(Invalid, match=f"another order, job {first.id}"):
        jobs.enqueue(**{**order, **change}, key="k", now=0)
    assert jobs.page(limit=10) == [first]


def test_a_job_without_heartbeats_for_its_lease_is_claimed_by_another_worker(jobs: Jobs) -> None:
    enqueue(jobs)
    first = claim(jobs, "a")
    assert look_for(jobs, 5) is None
    second = look(jobs, "b", 5.5)
    assert second is not None
    assert (second.id, second.attempt, second.worker, second.started_at) == (first.id, 2, "b", 0)


@pytest.mark.many
@pytest.mark.parametrize("ahead", [-3600, -20, -5, 0, 5, 20, 3600, 10**9])
def test_the_clock_of_a_worker_neither_takes_a_live_job_nor_keeps_a_dead_one(
    store: Store, jobs: Jobs, ahead: float
) -> None:
    """The holder's clock, or that of the worker that looks, is wrong; or the clock was set back after a crash."""
    enqueue(jobs)
    held = claim(Jobs(store), "a", now=1000 + ahead)
    for tick in range(30):
        Jobs(store).beat(held, [], now=1000 + ahead)
        assert look(jobs, "b", tick / 2, now=1000) is None
    other = Jobs(store)
    assert look_for(other, 5, now=1000) is None
    taken = look(other, "b", 5.5, now=1000)
    assert taken is not None
    assert (taken.id, taken.attempt) == (held.id, 2)


def test_heartbeats_missed_while_the_database_was_away_lose_no_job(jobs: Jobs, store: Store) -> None:
    enqueue(jobs)
    held = claim(Jobs(store), "a")
    assert look(jobs, "b", 0) is None
    assert look(jobs, "b", 600) is None, "the first look after the outage took the job"
    Jobs(store).beat(held, [], now=600)
    assert look(jobs, "b", 600.5) is None


def test_a_worker_that_woke_after_its_lease_can_write_nothing(store: Store, jobs: Jobs) -> None:
    enqueue(jobs)
    woken = claim(jobs, "a", now=0)
    look_for(jobs, 5)
    owner = claim(jobs, "b", monotonic_s=5.5)
    with pytest.raises(LeaseLost):
        jobs.beat(woken, [{"step": 9}], now=7)
    with pytest.raises(LeaseLost):
        finish(store, jobs, woken)
    with pytest.raises(LeaseLost):
        jobs.fail(woken, "t", "d", now=7)
    with pytest.raises(LeaseLost):
        jobs.cancelled(woken, now=7)
    with pytest.raises(LeaseLost):
        jobs.requeue(woken, now=7, reason="r")
    assert jobs.get(owner.id) == owner
    assert jobs.events(owner.id, kind="progress") == []
    finish(store, jobs, owner)
    with pytest.raises(LeaseLost):
        finish(store, jobs, owner)


def test_after_three_attempts_a_job_fails_with_the_reason(jobs: Jobs) -> None:
    job = enqueue(jobs)
    for attempt in range(1, MAX_ATTEMPTS + 1):
        job = claim(jobs)
        assert job.attempt == attempt
        jobs.requeue(job, now=0, reason=f"killed {attempt}")
    assert look(jobs) is None
    job = jobs.get(job.id)
    assert job.state == "failed"
    assert job.error is not None
    assert "3 attempts" in job.error["detail"]
    assert "killed 3" in job.error["detail"]


def test_three_silent_workers_fail_a_job_too(store: Store) -> None:
    job = enqueue(Jobs(store))
    claim(Jobs(store))
    for attempt in range(2, MAX_ATTEMPTS + 1):
        taken = look_for(Jobs(store), 5.5)
        assert taken is not None
        assert taken.attempt == attempt
    assert look_for(Jobs(store), 5.5) is None
    assert "stopped answering" in str(Jobs(store).get(job.id).error)


def test_attempts_given_back_in_good_order_do_not_count(jobs: Jobs) -> None:
    enqueue(jobs)
    for attempt in range(1, 10):
        job = claim(jobs)
        assert job.attempt == attempt
        jobs.requeue(job, now=0, reason="worker stopped", in_good_order=True)


def test_a_queued_job_is_cancelled_at_once_and_a_running_one_by_its_worker(jobs: Jobs) -> None:
    assert jobs.cancel(enqueue(jobs).id, now=1).state == "cancelled"
    enqueue(jobs)
    job = claim(jobs)
    assert jobs.cancel(job.id, now=1).state == "running"
    assert jobs.beat(job, [], now=2) is True
    jobs.cancelled(job, now=3)
    with pytest.raises(Conflict, match="cancelled already"):
        jobs.cancel(job.id, now=4)


def test_a_cancelled_job_whose_worker_died_is_not_taken_up_again(jobs: Jobs) -> None:
    enqueue(jobs)
    job = claim(jobs, now=0)
    jobs.cancel(job.id, now=1)
    assert look_for(jobs, 5.5) is None
    assert jobs.get(job.id).state == "cancelled"


def test_an_unknown_job_says_where_they_are_listed(jobs: Jobs) -> None:
    with pytest.raises(NotFound, match="GET /jobs"):
        jobs.get("nope")
    with pytest.raises(NotFound):
        jobs.cancel("nope", now=0)


def test_pages_go_backwards_and_can_be_filtered(jobs: Jobs) -> None:
    numbers = [enqueue(jobs).number for _ in range(5)]
    claim(jobs)
    first = jobs.page(limit=2)
    assert [job.number for job in first] == numbers[:2:-1]
    rest = jobs.page(limit=10, before=first[-1].number)
    assert [job.number for job in rest] == numbers[2::-1]
    assert [job.number for job in jobs.page(state="running", limit=10)] == numbers[:1]
    assert jobs.page(model="other", limit=10) == []


def test_events_resume_after_the_last_one_seen(jobs: Jobs) -> None:
    enqueue(jobs)
    job = claim(jobs)
    jobs.beat(job, [{"step": step} for step in range(5)], now=1)
    seen = jobs.events(job.id)
    assert jobs.events(job.id, after=seen[3].id) == seen[4:]


def claimed_submitters(jobs: Jobs, count: int) -> str:
    """One letter for each claim."""
    claimed = [claim(jobs) for _ in range(count)]
    return "".join(job.submitter for job in claimed)


@pytest.mark.parametrize(
    ("queued", "served"),
    [
        ("aaaa", "aaaa"),
        ("aaaab", "abaaa"),
        ("aaaabbb", "abababa"),
        ("aaabbbcc", "abcabcab"),
        ("cbaabbcc", "cbacbacb"),
        ("a" * 30 + "b", "ab" + "a" * 29),
    ],
)
def test_workers_take_the_jobs_of_different_keys_in_turn(jobs: Jobs, queued: str, served: str) -> None:
    for submitter in queued:
        enqueue(jobs, submitter=submitter)
    assert claimed_submitters(jobs, len(queued)) == served
    assert look(jobs) is None


def test_a_key_that_comes_late_waits_for_one_job_only(jobs: Jobs) -> None:
    for _ in range(20):
        enqueue(jobs, submitter="a")
    assert claimed_submitters(jobs, 5) == "aaaaa"
    for _ in range(2):
        enqueue(jobs, submitter="b")
    assert claimed_submitters(jobs, 4) == "baba"


def test_a_job_that_was_begun_goes_before_those_that_were_not(jobs: Jobs) -> None:
    for submitter in "aab":
        enqueue(jobs, submitter=submitter)
    begun = claim(jobs)
    jobs.requeue(begun, now=0, reason="worker stopped", in_good_order=True)
    assert [claim(jobs).number for _ in range(3)] == [begun.number, begun.number + 2, begun.number + 1]


def test_a_key_fills_its_own_share_of_the_queue_only(jobs: Jobs) -> None:
    ids = [enqueue(jobs, submitter="a", most=3, key=f"key {number}").id for number in range(3)]
    with pytest.raises(LimitReached, match="POST /jobs/ID/cancel") as raised:
        enqueue(jobs, submitter="a", most=3)
    assert (raised.value.status, raised.value.headers) == (429, {"Retry-After": "10"})
    assert enqueue(jobs, submitter="a", most=3, key="key 0").id == ids[0], "a repeat takes no place"
    assert enqueue(jobs, submitter="b", most=3).state == "queued"
    claim(jobs)
    assert enqueue(jobs, submitter="a", most=3).state == "queued", "a running job takes no place"


@pytest.mark.parametrize("model", [None, "m", "other"])
def test_all_queued_jobs_are_cancelled_at_once(jobs: Jobs, store: Store, model: str | None) -> None:
    for name in ("m", "m", "other", "other"):
        jobs.enqueue(name, {}, "never", submitter=name, now=0)
    running = claim(jobs)
    chosen = [job for job in jobs.page(state="queued", limit=9) if model in {None, job.model}]
    assert jobs.cancel_queued(model, now=7) == len(chosen)
    assert jobs.get(running.id) == running
    for job in chosen:
        ended = jobs.get(job.id)
        assert (ended.state, ended.finished_at) == ("cancelled", 7)
        assert jobs.events(job.id)[-1].data == {"state": "cancelled", "error": None}
    assert len(jobs.page(state="queued", limit=9)) == 3 - len(chosen)
    assert jobs.cancel_queued(model, now=8) == 0
    told = [entry.data["job"] for entry in Changes(store).new_events(0, 99) if entry.kind == "job.cancelled"]
    assert sorted(told) == sorted(job.id for job in chosen)


def test_a_worker_takes_the_jobs_that_it_has_the_resources_for(jobs: Jobs) -> None:
    asked: list[dict[str, float] | None] = [{"cpus": 8}, {"gpus": 1}, {"gpus": 0.5, "cpus": 2}, {"cpus": 4}, None]
    ids = [enqueue(jobs, resources=resources).id for resources in asked]
    assert [jobs.get(job).resources for job in ids] == asked

    def claimed_by(capacity: Resources | None) -> list[int]:
        found = []
        while job := jobs.claim("w", now=0, monotonic_s=0, lease_s=1000, capacity=capacity):
            found.append(ids.index(job.id))
        return found

    assert claimed_by(Resources(cpus=1, gpus=0)) == [4]
    assert claimed_by(Resources(cpus=4, gpus=0.5)) == [2, 3]
    begun = jobs.get(ids[2])
    jobs.requeue(begun, now=0, reason="stopped", in_good_order=True)
    assert claimed_by(Resources(cpus=8, gpus=0)) == [0]
    assert claimed_by(None) == [2, 1]


def test_one_attempt_is_claimed_by_its_number_only_while_it_is_to_be_made(jobs: Jobs) -> None:
    job = enqueue(jobs)

    def take(number: int, beats: int = 0) -> Job | None:
        return jobs.take(job.id, number, beats, "a", now=1, lease_s=5)

    assert jobs.take("nope", 1, 0, "a", now=1, lease_s=5) is None
    assert [take(number) for number in (0, 2)] == [None, None]
    first = take(1)
    assert first is not None
    assert (first.state, first.attempt, first.worker, first.beats, first.lease_s) == ("running", 1, "a", 1, 5)
    assert take(1, first.beats) is None
    assert take(2, first.beats - 1) is None, "its worker beat in the meantime"
    second = take(2, first.beats)
    assert second is not None
    with pytest.raises(LeaseLost):
        jobs.beat(first, [], now=2)
    jobs.cancel(job.id, now=2)
    assert take(3, second.beats) is None
    assert jobs.get(job.id).state == "cancelled"
    assert take(3, second.beats) is None


def test_output_is_an_event_before_the_progress_that_was_reported_with_it(jobs: Jobs) -> None:
    enqueue(jobs)
    job = claim(jobs)
    jobs.beat(job, [{"step": 1}], output=["hello\n", "again"], now=1)
    told = [(event.kind, dict(event.data)) for event in jobs.events(job.id)][2:]
    assert told == [("log", {"output": "hello\n"}), ("log", {"output": "again"}), ("progress", {"step": 1})]
    assert jobs.get(job.id).progress == {"step": 1}


RACER = """
import sys
from pathlib import Path
from service.jobs.queue import Jobs
from service.delivery.gate import Gate
from service.store.database import Store
store = Store(Path(sys.argv[1]), sys.argv[2])
jobs = Jobs(store)
gate = Gate(decision="kept", metric="m", candidate=None, live=None, reason="")
sys.stdin.readline()
while job := jobs.claim(sys.argv[3], now=0, monotonic_s=0, lease_s=1000):
    with store.write() as connection:
        jobs.finish(connection, job, 1, gate, now=0)
    print(job.id, flush=True)
"""


@pytest.mark.slow
def test_two_workers_racing_for_fifty_jobs_run_each_once(store: Store, jobs: Jobs, database_url: str) -> None:
    ids = [enqueue(jobs).id for _ in range(50)]
    racers = [
        subprocess.Popen(
            [sys.executable, "-c", RACER, str(store.folder), database_url, name],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for name in "ab"
    ]
    done = Counter(job for racer in racers for job in racer.communicate("go\n", timeout=120)[0].split())
    assert done == Counter(ids)
    assert {jobs.get(job).attempt for job in ids} == {1}
