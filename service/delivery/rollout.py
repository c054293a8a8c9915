"""Rollout: load the promoted versions in every web process."""

import asyncio
import contextlib
import logging
import time
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path

from models.checkpoints.record import Record
from models.checkpoints.storage import Storage
from models.errors import CheckpointError
from models.spec import ModelSpec
from service.delivery.bootstrap import register_shipped
from service.delivery.followers import Followers
from service.delivery.registry import Registry, Version
from service.errors import Conflict, NothingLive, StoreUnavailable
from service.inference.engine import Engine, Loaded
from service.store.database import Store
from service.telemetry.metrics import Metrics

log = logging.getLogger(__name__)
_POLL_S = 0.5
_FOLLOW_S = 2.0  # how long a promotion waits for the other web processes
_LOOK_S = 0.05
_RETRY_S = 5.0  # after a version could not be loaded, or the store not be written
_PINNED = 4  # versions that are not live but were asked for by number, kept loaded


class Rollout:
    """Keep the loaded versions equal to the live versions of the registry while entered, and say why if they differ.

    Loading and warming up happen off the request path; a version that cannot be loaded leaves the old one answering,
    and is tried again. While the database is away, loaded versions go on answering.
    """

    def __init__(
        self,
        specs: Mapping[str, ModelSpec],
        store: Store,
        pretrained: Sequence[Path],
        engine: Engine,
        metrics: Metrics,
        followers: Followers,
        follow_s: float = _FOLLOW_S,
    ) -> None:
        self._specs = specs
        self._store = store
        self._registry = Registry(store)
        self._pretrained = pretrained
        self._engine = engine
        self._metrics = metrics
        self._followers = followers
        self._follow_s = follow_s
        self._turn = asyncio.Lock()  # one promotion at a time, in this process
        self._prepared = False
        self._retry_at: dict[tuple[str, int], float] = {}
        self._try_again_at = 0.0
        self._pinned: OrderedDict[tuple[str, int], Loaded] = OrderedDict()
        self.live: dict[str, int] = {}
        self.faults: dict[str, str] = {}
        self.store_fault: str | None = None

    @property
    def not_ready(self) -> dict[str, str]:
        """Return, by model, why the service is not ready: the model has a live version, but none is loaded."""
        reasons = {model: fault for model, fault in self.faults.items() if self._engine.loaded(model) is None}
        if not self._prepared:
            reasons["store"] = self.store_fault or "the store is being prepared"
        return reasons

    async def __aenter__(self) -> None:
        await self.follow()
        self._following = asyncio.create_task(self._run())

    async def __aexit__(self, *_: object) -> None:
        self._following.cancel()
        await asyncio.gather(self._following, return_exceptions=True)

    async def follow(self) -> None:
        """Load the live versions that are not loaded yet, once."""
        try:
            async with self._turn:
                if not self._prepared:
                    await asyncio.to_thread(self._prepare)
                live = await asyncio.to_thread(self._registry.live)
                self.live = {model: version for model, version in live.items() if model in self._specs}
                await asyncio.gather(*(self._bring_up(*wanted) for wanted in self.live.items()))
        except StoreUnavailable as err:
            self.store_fault = err.detail
        else:
            self.store_fault = None
            await self._try_again()

    async def _try_again(self) -> None:
        """Find out now and then whether a store that failed to be written works again."""
        if self._store.faults and time.monotonic() >= self._try_again_at:
            self._try_again_at = time.monotonic() + _RETRY_S
            with contextlib.suppress(StoreUnavailable):
                await asyncio.to_thread(self._store.try_again)

    async def promote(self, model: str, number: int, by: str, expected: int | None = None) -> int | None:
        """Load and warm up a version, then make it live. Returns the previous one. Raises NotFound, Conflict.

        Raises PreconditionFailed if another version than `expected` is live.
        """
        async with self._turn:
            loaded = await self._verified(model, number)

            def commit() -> int | None:
                with self._store.write() as connection:
                    self._registry.expect_live(connection, model, expected)
                    return self._registry.promote(
                        connection,
                        model,
                        number,
                        by=by,
                        reason="promoted by hand",
                        now=time.time(),
                    )

            previous = await asyncio.to_thread(commit)
            self._swap(loaded)
        await self._everywhere(model, number)
        return previous

    async def rollback(
        self, model: str, by: str, expected: int | None = None, key: str | None = None
    ) -> tuple[int, int]:
        """Make the version before the live one live: (now live, before). Raises Conflict.

        A repeat with the same idempotency key returns the same and changes nothing.
        Raises PreconditionFailed if another version than `expected` is live, and Invalid if the key is another model's.
        """
        async with self._turn:
            if (first := await asyncio.to_thread(self._rolled_back, model, key)) is not None:
                return first
            target = await asyncio.to_thread(self._registry.rollback_target, model)
            loaded = await self._verified(model, target)
            commit = partial(self._commit_rollback, model, target, by=by, expected=expected, key=key)
            done, is_new = await asyncio.to_thread(commit)
            if is_new:
                self._swap(loaded)
        if is_new:
            await self._everywhere(model, target)
        return done

    def _rolled_back(self, model: str, key: str | None) -> tuple[int, int] | None:
        if key is None:
            return None
        with self._store.read() as connection:
            return self._registry.rolled_back(connection, model, key)

    def _commit_rollback(
        self, model: str, target: int, *, by: str, expected: int | None, key: str | None
    ) -> tuple[tuple[int, int], bool]:
        """Return the outcome of the rollback, and whether it was made now: not if its key has come again meanwhile."""
        with self._store.write() as connection:
            if (first := self._registry.rolled_back(connection, model, key)) is not None:
                return first, False
            self._registry.expect_live(connection, model, expected)
            reason = "rolled back by hand"
            done = self._registry.rollback(connection, model, by=by, reason=reason, now=time.time(), key=key)
            if done[0] != target:
                raise Conflict(f"another version of {model} went live in this moment: look, then try again")
            return done, True

    async def reload(self, model: str) -> None:
        """Load the live version again. Raises NothingLive, or Conflict: then the loaded version goes on answering."""
        async with self._turn:
            live = await asyncio.to_thread(self._registry.live)
            if model not in live:
                raise NothingLive(f"{model} has no live version that could be loaded: promote one")
            self._swap(await self._verified(model, live[model]))

    async def pinned(self, model: str, number: int) -> Loaded:
        """Return a version by its number, live or not; the last few stay loaded. Raises NotFound, Conflict."""
        live = self._engine.loaded(model)
        if live is not None and live.version == number:
            return live
        if (model, number) not in self._pinned:
            self._pinned[model, number] = await self._verified(model, number)
            while len(self._pinned) > _PINNED:
                self._pinned.popitem(last=False)
        self._pinned.move_to_end((model, number))
        return self._pinned[model, number]

    async def _everywhere(self, model: str, number: int) -> None:
        """Wait until all running web processes of this service answer with that version, for a limited time."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self._follow_s):
                while await asyncio.to_thread(self._followers.versions, model) != {number}:  # noqa: ASYNC110
                    await asyncio.sleep(_LOOK_S)

    async def _run(self) -> None:
        while True:
            await asyncio.sleep(_POLL_S)
            try:
                await self.follow()
            except Exception:  # one of the three edges: batch, job, rollout
                log.exception("rollout failed, it is tried again")

    def _prepare(self) -> None:
        self._store.migrate()
        with contextlib.suppress(OSError):  # a full or read-only disk: at the next start
            Storage(self._store.folder).remove_abandoned(time.time())
        broken = register_shipped(self._store, self._specs, self._pretrained, self._engine.load)
        for model in broken:
            self._metrics.load_failures.labels(model).inc()
        self.faults.update(broken)
        self._prepared = True

    async def _bring_up(self, model: str, number: int) -> None:
        loaded = self._engine.loaded(model)
        if loaded is not None and loaded.version == number:
            return
        if time.monotonic() < self._retry_at.get((model, number), 0):
            return
        try:
            version = await asyncio.to_thread(self._registry.version, model, number)
            self._swap(await self._load(version))
        except CheckpointError as err:
            self._retry_at[model, number] = time.monotonic() + _RETRY_S
            self._metrics.load_failures.labels(model).inc()
            if self.faults.get(model) != str(err):
                log.error("version not loaded", extra={"model": model, "version": number, "reason": str(err)})  # noqa: TRY400
            self.faults[model] = str(err)

    async def _verified(self, model: str, number: int) -> Loaded:
        """Load and warm up a version. Raises NotFound, and Conflict if its checkpoint is broken."""
        version = await asyncio.to_thread(self._registry.version, model, number)
        try:
            return await self._load(version)
        except CheckpointError as err:
            self._metrics.load_failures.labels(model).inc()
            raise Conflict(f"version {number} of {model} cannot be loaded, nothing was changed: {err}") from err

    async def _load(self, version: Version) -> Loaded:
        path, record = self._registry.path(version), Record(**version.record)
        return await asyncio.to_thread(self._engine.load, version.model, version.version, path, record)

    def _swap(self, loaded: Loaded) -> None:
        before = self._engine.loaded(loaded.model)
        self._engine.swap(loaded)
        self.live[loaded.model] = loaded.version
        self.faults.pop(loaded.model, None)
        self._followers.write(loaded.model, loaded.version)
        self._metrics.loaded(loaded.model, loaded.version, loaded.network.backend)
        fields = {"model": loaded.model, "version": loaded.version, "before": before.version if before else None}
        log.info("version live", extra=fields)
