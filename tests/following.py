"""A web process that follows trials, without its server."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

from service.delivery.followers import Followers
from service.delivery.presence import Presence
from service.delivery.rollout import Rollout
from service.delivery.trial_follower import TrialFollower
from service.execution.threads import Threads
from service.inference.admission import Admission
from service.inference.backends.pytorch import EagerBackend
from service.inference.batcher import Batcher
from service.inference.decoding import Decoder
from service.inference.engine import Engine, Loaded
from service.inference.pipeline import Pipeline, networks_of
from service.inference.working_set import WorkingSet
from service.store.database import Store
from service.telemetry.metrics import Metrics
from tests.trial_traffic import SPECS


class Loads(EagerBackend):
    """Counts what it loads, and may fail."""

    def __init__(self) -> None:
        super().__init__("cpu", 1, 8)
        self.loaded: list[str] = []
        self.errors: list[Exception] = []

    def load(self, model: str, *arguments: Any) -> Any:
        self.loaded.append(model)
        if self.errors:
            raise self.errors.pop(0)
        return super().load(model, *arguments)


class Process:
    """One web process without its server."""

    def __init__(
        self,
        store: Store,
        followers: Followers | None = None,
        address: str = "node:1",
        load_wait_s: float | None = None,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self.store = store
        self.backend = Loads()
        self.engine = Engine(SPECS, self.backend, max_batch=8)
        metrics, networks = Metrics(), WorkingSet(self.engine)
        batcher = Batcher(networks_of(self.engine, metrics), max_batch=8)
        self.pipeline = Pipeline(
            decoder=Decoder(1000, Threads()),
            admission=Admission(batcher, 100, lambda: 0.0),
            batcher=batcher,
            metrics=metrics,
            timeout_s=60,
            networks=networks,
        )
        self.presence = Presence(store, followers or Followers(None), list(SPECS), address=address)
        self.rollout = Rollout(SPECS, store, [store.folder / "none"], self.engine, metrics, self.presence, networks)
        self.follower = TrialFollower(
            SPECS, store, self.engine, self.pipeline, self.rollout.loader, self.presence, load_wait_s, sleep=sleep
        )

    async def follow(self) -> None:
        """Follow once, and write the row."""
        await self.follower.follow()
        await self.follower.settled()
        await self.follower.follow()
        self.presence.join()

    def chosen(self) -> list[Loaded]:
        """The candidate, for each of a hundred requests that it answers."""
        found = [self.pipeline.candidate("line", {}, f"stem-{number}") for number in range(100)]
        return [one for one in found if one is not None]

    def answering(self) -> set[int]:
        """The versions that answer a hundred requests."""
        chosen = self.chosen()
        return {one.version for one in chosen} | ({1} if len(chosen) < 100 else set())


@asynccontextmanager
async def started(store: Store, **arguments: Any) -> AsyncIterator[Process]:
    """A process that has loaded the live versions, and follows when it is told to."""
    process = Process(store, **arguments)
    await process.rollout.follow()
    async with process.follower:
        yield process


def run(test: Callable[[], Awaitable[None]]) -> None:
    asyncio.run(asyncio.wait_for(test(), 60))
