"""A larger share of a trial begins in all web processes at one time."""

import asyncio
import os
import time
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path

import pytest

from service.delivery.followers import Followers
from service.delivery.trial_follower import LEAD_S
from service.delivery.trials import Trial
from service.store.database import Store
from tests.following import Process, run, started
from tests.open_trials import moved, opened, stage, trial_of
from tests.trial_traffic import add_line


class Sleeps:
    """Sleeps until the test wakes it."""

    def __init__(self) -> None:
        self.seconds: list[float] = []
        self.begun = asyncio.Event()  # the first one
        self._sleeping: list[asyncio.Event] = []

    async def __call__(self, seconds: float) -> None:
        self.seconds.append(seconds)
        self.begun.set()
        self._sleeping.append(woken := asyncio.Event())
        await woken.wait()

    async def wake(self, but: int = 0) -> None:
        """Let all that sleep go on, but the last ones."""
        await asyncio.sleep(0)  # they begin to sleep
        chosen = self._sleeping[: len(self._sleeping) - but]
        del self._sleeping[: len(chosen)]
        for one in chosen:
            one.set()
        await asyncio.sleep(0)


@pytest.fixture
def candidate(store: Store) -> int:
    """The version that is tried beside version 1."""
    add_line(store, 2, live=True)
    return add_line(store, 3)


@asynccontextmanager
async def two_processes(
    store: Store, folder: Path, sleeps: Sleeps | None = None
) -> AsyncIterator[tuple[Process, Sleeps]]:
    """A web process of two, and its sleeps."""
    Followers(folder, pid=os.getppid()).write("line", 1)  # the other one
    sleeps = sleeps or Sleeps()
    async with started(store, followers=Followers(folder), sleep=sleeps) as process:
        yield process, sleeps


def test_a_larger_share_begins_at_one_time_in_all_processes(store: Store, candidate: int, tmp_path: Path) -> None:
    async def go() -> None:
        async with two_processes(store, tmp_path) as (process, sleeps):
            stages = [stage(shadow=1.0), stage(share=0.3), stage(share=0.5), stage(share=0.1)]
            trial = opened(store, trial_of(stages, version=candidate))
            await process.follow()
            assert process.pipeline.observers.interested("line", {}, "stem")  # a shadow answers nobody: at once
            await move(process, trial, 1)
            assert process.answering() == {1}
            assert process.presence.behind_trial(trial.id, 1)  # the caller who moved it waits
            await sleeps.wake()
            assert sleeps.seconds == [LEAD_S]
            few = len(process.chosen())
            assert few > 0
            await move(process, trial, 2)
            assert len(process.chosen()) == few
            await sleeps.wake()
            many = len(process.chosen())
            assert many > few
            await move(process, trial, 3)  # a smaller one, at once
            assert len(process.chosen()) < few

    run(go)


async def move(process: Process, trial: Trial, number: int) -> None:
    moved(process.store, trial, state="canary", stage=number, stage_since=time.time() + 60)
    await process.follower.follow()


def test_a_stage_begins_although_the_trial_is_paused_meanwhile(store: Store, candidate: int, tmp_path: Path) -> None:
    async def go() -> None:
        async with two_processes(store, tmp_path) as (process, sleeps):
            trial = opened(store, trial_of([stage(shadow=1.0), stage(share=0.5)], version=candidate))
            await process.follow()
            await move(process, trial, 1)
            moved(store, trial, state="paused")
            await process.follower.follow()
            assert process.answering() == {1}
            await sleeps.wake()
            assert process.answering() == {1, candidate}

    run(go)


def test_a_stage_begins_although_the_next_one_is_decided_on_meanwhile(
    store: Store, candidate: int, tmp_path: Path
) -> None:
    async def go() -> None:
        async with two_processes(store, tmp_path) as (process, sleeps):
            stages = [stage(shadow=1.0), stage(share=0.1), stage(share=0.5)]
            trial = opened(store, trial_of(stages, version=candidate))
            await process.follow()
            await move(process, trial, 1)
            await move(process, trial, 2)
            await sleeps.wake(but=1)
            few = len(process.chosen())
            assert 0 < few < 30
            await sleeps.wake()
            assert len(process.chosen()) > few

    run(go)


def test_a_trial_that_ends_before_its_stage_begins_answers_nobody(store: Store, candidate: int, tmp_path: Path) -> None:
    async def go() -> None:
        async with two_processes(store, tmp_path) as (process, sleeps):
            trial = opened(store, trial_of([stage(shadow=1.0), stage(share=0.5)], version=candidate))
            await process.follow()
            await move(process, trial, 1)
            moved(store, trial, state="rolled_back")
            await process.follower.follow()
            await sleeps.wake()
            assert process.answering() == {1}
            assert not process.pipeline.canaries

    run(go)


async def enter(starting: AbstractAsyncContextManager[tuple[Process, Sleeps]]) -> set[int]:
    async with starting as (process, _):
        return process.answering()


def test_a_process_that_starts_serves_from_the_beginning_of_the_stage(
    store: Store, candidate: int, tmp_path: Path
) -> None:
    async def go() -> None:
        trial = opened(store, trial_of([stage(share=0.1), stage(share=0.5)], version=candidate))
        moved(store, trial, state="canary", stage=1, stage_since=time.time() + 60)
        sleeps = Sleeps()
        starting = asyncio.create_task(enter(two_processes(store, tmp_path, sleeps)))
        await sleeps.begun.wait()
        assert not starting.done()
        await sleeps.wake()
        assert await starting == {1, candidate}

    run(go)
