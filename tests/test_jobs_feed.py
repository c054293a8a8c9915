"""One poller for all event streams: the database is asked as often for a thousand of them as for one."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import pytest
from sqlalchemy import Engine, event

from service.delivery.trials import TrialEvent, Trials
from service.errors import LimitReached
from service.jobs.feed import Feed
from service.jobs.queue import Event, Job, Jobs
from service.store.database import Store
from tests.trials import opened

STREAMS = 1000


@pytest.fixture
def jobs(store: Store) -> Jobs:
    return Jobs(store)


def run(main: Callable[[], Coroutine[Any, Any, None]]) -> None:
    asyncio.run(asyncio.wait_for(main(), 120))


class Pauses:
    """Pauses of the poller that end when the test says so."""

    def __init__(self) -> None:
        self._let_go = asyncio.Event()
        self._reached = asyncio.Event()

    async def __call__(self) -> None:
        self._reached.set()
        await self._let_go.wait()
        self._let_go.clear()

    async def reached(self) -> None:
        """Wait until a look has ended."""
        await self._reached.wait()

    async def look(self) -> None:
        """Let the poller look once."""
        await self.reached()
        self._reached.clear()
        self._let_go.set()
        await self.reached()


@contextmanager
def counted_queries() -> Iterator[Counter[str]]:
    """Count the queries of all engines by their table."""
    counted: Counter[str] = Counter()

    def count(_: Any, __: Any, statement: str, *___: Any) -> None:
        for table in ("events", "jobs"):
            if statement.startswith("SELECT") and f"FROM {table}" in statement.replace("\n", ""):
                counted[table] += 1

    event.listen(Engine, "before_cursor_execute", count)
    yield counted
    event.remove(Engine, "before_cursor_execute", count)


def enqueue(jobs: Jobs) -> Job:
    return jobs.enqueue("m", {}, "never", now=0)


def claim(jobs: Jobs) -> Job:
    job = jobs.claim("w", now=0, monotonic_s=0, lease_s=9)
    assert job is not None
    return job


async def take(events: AsyncIterator[Event | None], count: int) -> list[Event]:
    taken = [await anext(events) for _ in range(count)]
    return [event for event in taken if event is not None]


def words(events: list[Event]) -> list[Any]:
    return [event.data.get("state", event.data.get("step")) for event in events]


@pytest.mark.slow
def test_a_thousand_streams_take_one_query_a_look(jobs: Jobs) -> None:
    async def main() -> None:
        pauses, job = Pauses(), enqueue(jobs)
        feed = Feed(jobs, STREAMS, pauses)
        with ExitStack() as stack:
            streams = [stack.enter_context(feed.opened(job.id, 0)) for _ in range(STREAMS)]
            first = await asyncio.gather(*(take(stream, 1) for stream in streams))
            assert {tuple(words(events)) for events in first} == {("queued",)}
            running = claim(jobs)
            jobs.beat(running, [{"step": 1}, {"step": 2}], now=0)
            waiting = asyncio.gather(*(take(stream, 3) for stream in streams))
            with counted_queries() as counted:
                await pauses.look()
                assert {tuple(words(events)) for events in await waiting} == {("running", 1, 2)}
                await pauses.look()
            assert counted == {"events": 2}
            for stream in streams:
                await stream.aclose()  # type: ignore[attr-defined]

    run(main)


@pytest.mark.parametrize("after", range(7))
def test_a_stream_sends_every_event_once_from_where_it_resumes(jobs: Jobs, after: int) -> None:
    """Events come before it is opened, before the first look, and after it."""

    async def main() -> None:
        pauses = Pauses()
        feed = Feed(jobs, 2, pauses)
        job = enqueue(jobs)
        running = claim(jobs)
        first = jobs.events(job.id)[0].id
        jobs.beat(running, [{"step": 1}], now=0)
        with feed.opened(job.id, first + after - 1) as events, feed.opened(job.id, 0) as other:
            jobs.beat(running, [{"step": 2}], now=0)
            assert len(await take(other, 4)) == 4
            sent = asyncio.create_task(_all(events))
            jobs.beat(running, [{"step": 3}], now=0)
            await pauses.look()
            jobs.fail(running, "title", "detail", now=0)
            await pauses.look()
            expected = ["queued", "running", 1, 2, 3, "failed"][after:]
            if expected:
                assert words(await sent) == expected
            else:
                sent.cancel()
            await other.aclose()  # type: ignore[attr-defined]

    run(main)


async def _all(events: AsyncIterator[Event | None]) -> list[Event]:
    return [event async for event in events if event is not None]


def test_a_stream_of_a_trial_ends_with_the_trial(store: Store) -> None:
    async def main() -> None:
        pauses, trials, trial = Pauses(), Trials(store), opened(store)
        feed = Feed(trials, 1, pauses, address="/trials")
        with feed.opened(trial.id, 0) as events:
            assert (await anext(events), trials.last_event()) == (trials.events(trial.id)[0], 1)
            rest = asyncio.create_task(told(events))
            with pytest.raises(LimitReached, match=f"poll GET /trials/{trial.id}"):
                feed.opened(trial.id, 0).__enter__()
            await pauses.look()
            moved = trials.advance(trial, by="a", reason="", now=1)
            trials.note_fault(moved, "load", "broken", now=2)
            await pauses.look()
            trials.roll_back(moved, by="a", reason="", now=3)
            await pauses.look()
            assert await rest == ["canary", None, "rolled_back"]

    async def told(events: AsyncIterator[TrialEvent | None]) -> list[str | None]:
        return [event.data.get("state") async for event in events if event is not None]

    run(main)


def test_a_slow_stream_keeps_few_events_in_memory_and_misses_none(jobs: Jobs) -> None:
    async def main() -> None:
        pauses = Pauses()
        feed = Feed(jobs, 1, pauses)
        job = enqueue(jobs)
        running = claim(jobs)
        with feed.opened(job.id, 0) as events:
            assert len(await take(events, 2)) == 2
            for start in range(0, 5000, 500):
                jobs.beat(running, [{"step": step} for step in range(start, start + 500)], now=0)
                await pauses.look()
            assert words(await take(events, 5000)) == list(range(5000))
            await events.aclose()  # type: ignore[attr-defined]

    run(main)


def test_more_streams_than_allowed_are_refused_until_one_ends(jobs: Jobs) -> None:
    async def main() -> None:
        feed = Feed(jobs, 2, Pauses())
        job = enqueue(jobs)
        with feed.opened(job.id, 0):
            with feed.opened(job.id, 0), pytest.raises(LimitReached, match="2 event streams"):
                feed.opened(job.id, 0).__enter__()
            with feed.opened(job.id, 0):
                pass

    run(main)


def test_without_streams_the_database_is_left_alone(jobs: Jobs) -> None:
    async def main() -> None:
        pauses = Pauses()
        feed = Feed(jobs, 2, pauses)
        job = enqueue(jobs)
        with feed.opened(job.id, 0):
            await pauses.reached()
        with counted_queries() as counted:
            for _ in range(5):
                await asyncio.sleep(0)
            assert not counted
        with feed.opened(job.id, 0) as again:
            assert words(await take(again, 1)) == ["queued"]
            await again.aclose()  # type: ignore[attr-defined]

    run(main)


def test_a_service_that_stops_ends_its_streams_after_what_they_have(jobs: Jobs) -> None:
    async def main() -> None:
        job = enqueue(jobs)
        feed = Feed(jobs, 2, pauses := Pauses())
        async with feed:
            with feed.opened(job.id, 0) as events:
                assert [event.kind for event in await take(events, 1)] == ["state"]
                waiting = asyncio.create_task(anext(events, None))
                await pauses.reached()
                feed.leave()
                assert await waiting is None
            with feed.opened(job.id, 0) as events:
                assert await anext(events, None) is None

    run(main)
