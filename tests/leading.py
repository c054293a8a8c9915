"""A web process that leads trials, without its server."""

import asyncio
from collections.abc import Awaitable, Callable

from prometheus_client import CollectorRegistry
from sqlalchemy import update

from service.delivery.rollout import Change
from service.delivery.trial_leader import Leader
from service.delivery.trial_tally import Tallies
from service.delivery.trials import Trial, Trials
from service.store.database import Store
from service.store.leadership import LEASE_S, Leadership
from service.store.tables import leaders
from service.telemetry.trial_metrics import TrialMetrics


class Process:
    """A web process with a leader; `loads` is awaited before a promotion is committed."""

    def __init__(
        self, store: Store, name: str, now: float = 0.0, note_truths: Callable[[Trial], object] = lambda _: None
    ) -> None:
        self.store = store
        self.trials = Trials(store)
        self.tallies = Tallies(store, monotonic=lambda: 1e9 * self.now)  # reads everything again after each change
        self.now = now
        self.loads: Callable[[], Awaitable[None]] = self._at_once
        self.registry = CollectorRegistry()
        leadership = Leadership(store, "trials", name)
        metrics = TrialMetrics(self.registry)
        self.leader = Leader(
            self.trials,
            self.tallies,
            leadership,
            self._promote,
            metrics,
            note_truths=note_truths,
            now=lambda: self.now,
            pause=self._paused,
        )
        self.looks: asyncio.Queue[None] = asyncio.Queue()
        self.looked = asyncio.Event()

    async def look(self, now: float) -> None:
        self.now = now
        await self.leader.look()
        await self.leader.settled()

    def shown(self, name: str, **labels: str) -> float | None:
        return self.registry.get_sample_value(f"torchloop_trial_{name}", {"model": "line", **labels})

    async def _promote(self, model: str, version: int, commit: Callable[[], int | None]) -> Change:
        assert model == "line"
        await self.loads()
        return Change(version, await asyncio.to_thread(commit), [])

    async def _at_once(self) -> None:
        pass

    async def _paused(self) -> None:
        if self.shown("share") is not None:
            self.looked.set()
        await self.looks.get()


def run(test: Callable[[], Awaitable[None]]) -> None:
    asyncio.run(asyncio.wait_for(test(), 60))


def silent(store: Store) -> None:
    """Let the lease look as if it has expired."""
    with store.write() as connection:
        connection.execute(update(leaders).values(seen_at=leaders.c.seen_at - LEASE_S - 1))


def states(store: Store, trial: Trial) -> list[str]:
    return [one.data["state"] for one in Trials(store).events(trial.id) if one.kind == "state"]
