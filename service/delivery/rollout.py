"""Rollout: load the promoted versions in every web process."""

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from models.errors import CheckpointError
from models.spec import ModelSpec
from service.delivery.bootstrap import register_shipped
from service.delivery.changes import Changes
from service.delivery.live import LiveVersions
from service.delivery.loader import Loader
from service.delivery.pinned import Pinned
from service.delivery.presence import Presence
from service.delivery.registry import Registry, Version
from service.errors import NothingLive, ObjectsAway, ServiceError, StoreUnavailable
from service.execution.threads import in_own_thread
from service.inference.engine import Engine, Loaded
from service.inference.working_set import WorkingSet
from service.store.database import Store
from service.telemetry.metrics import Metrics

log = logging.getLogger(__name__)
_POLL_S = 0.5
_FOLLOW_S = 2.0  # how long a promotion waits for the other web processes and nodes
RETRY_S = 5.0  # after a version could not be loaded, or the store not be written
_LOADS = 4  # at a time, if the number of loaded networks is limited
_NONE = 0  # stands for the number of a version, if there is none


@dataclass(frozen=True, slots=True)
class Change:
    """A promotion or rollback. `waiting_for`: addresses of the live nodes that had not followed in time."""

    live: int
    previous: int | None
    waiting_for: Sequence[str]


class Rollout:
    """Keep the loaded versions equal to the live versions of the registry while entered, and say why if they differ.

    Each model is loaded and warmed up by itself, off the request path, so a slow or broken one holds up no other. A
    version that cannot be loaded leaves the old one answering, and is tried again. While the database is away, loaded
    versions go on answering. If the number of loaded networks is limited, a start loads the first models by name, and
    the others are unloaded: they follow promotions without being loaded, and are loaded on demand.
    """

    def __init__(
        self,
        specs: Mapping[str, ModelSpec],
        store: Store,
        pretrained: Sequence[Path],
        engine: Engine,
        metrics: Metrics,
        presence: Presence,
        networks: WorkingSet | None = None,
        follow_s: float = _FOLLOW_S,
        load_wait_s: float | None = None,
    ) -> None:
        """Entering waits for the models to be loaded, at most `load_wait_s` seconds, or until each is or has failed."""
        self._specs = specs
        self._store = store
        self._registry = Registry(store)
        self._changes = Changes(store, self._registry)
        self._versions = LiveVersions(self._registry)
        self._pretrained = pretrained
        self._engine = engine
        self._metrics = metrics
        self._presence = presence
        self._networks = networks or WorkingSet(engine)
        self._networks.load = self._on_demand
        at_once = len(specs) if self._networks.limit is None else min(self._networks.limit, _LOADS)
        self._at_once = asyncio.Semaphore(max(1, at_once))
        self._everywhere = partial(presence.everywhere, timeout_s=follow_s)
        self._load_wait_s = load_wait_s
        self._turns = {model: asyncio.Lock() for model in specs}  # one change of a model at a time, in this process
        self._loads: dict[str, asyncio.Task[None]] = {}
        self._offered: set[str] = set()  # models whose shipped checkpoint was looked for
        self._swaps = 0
        self._prepared = False
        self._retry_at: dict[tuple[str, int], float] = {}
        self._try_again_at = 0.0
        self._trial: asyncio.Task[None] | None = None
        self.loader = Loader(self._registry, engine, metrics)
        self._pinned = Pinned(self.loader.verified)
        self.live: dict[str, int] = {}
        self.faults = engine.faults
        self.store_fault: str | None = None

    @property
    def loading(self) -> list[str]:
        """Return the models of which a version is being loaded."""
        return list(self._loads)

    @property
    def not_ready(self) -> dict[str, str]:
        """Return, by model, why the service is not ready: a version of it is being loaded, or could not be."""
        if not self._prepared:
            return {"store": self.store_fault or "the store is being prepared"}
        absent = [model for model in self._specs if self._engine.loaded(model) is None]
        reasons = {model: f"{model} is being loaded" for model in absent if model in self._engine.loading}
        return reasons | {model: self.faults[model] for model in absent if model in self.faults}

    async def __aenter__(self) -> None:
        await self._look()
        self._following = asyncio.create_task(self._run())
        await self.settled(self._load_wait_s)

    async def __aexit__(self, *_: object) -> None:
        ours = [self._following, *self._loads.values(), *filter(None, [self._trial])]
        for one in ours:
            one.cancel()
        await asyncio.gather(*ours, self._networks.close(), return_exceptions=True)

    async def settled(self, timeout_s: float | None = None) -> None:
        """Wait until the loads in progress have ended, at most `timeout_s` seconds."""
        if self._loads:
            await asyncio.wait(self._loads.values(), timeout=timeout_s)

    async def follow(self) -> None:
        """Load the live versions that are not loaded yet, once."""
        await self._look()
        await self.settled()

    async def catch_up(self) -> None:
        """Follow what was promoted while the process started, before it answers: keys that other processes answer with
        a candidate that went live would go back. Waits for the loads that begin here, as entering does.
        """
        before = set(self._loads)
        await self._look()
        if begun := [task for model, task in self._loads.items() if model not in before]:
            await asyncio.wait(begun, timeout=self._load_wait_s)

    async def _look(self) -> None:
        """Read which versions are live, and begin to load those that are not loaded yet."""
        try:
            if not self._prepared:
                await asyncio.to_thread(self._prepare)
            await self._read_live()
        except StoreUnavailable as err:
            self.store_fault = err.detail
            return
        self.store_fault = None
        unloaded = []
        for model in self._specs:
            if model in self._loads:
                continue
            if not self._is_due(model):
                self._engine.loading.discard(model)
            elif self._lacks_room(model, len(self._loads)):
                self._engine.loading.discard(model)
                unloaded.append(model)
            else:
                self._engine.loading.add(model)
                self._loads[model] = asyncio.create_task(self._bring_up(model))
        self._leave_unloaded(unloaded)
        await self._try_again()

    async def _read_live(self) -> None:
        """Read which versions are live; again if one was changed here meanwhile: the answer may be older."""
        swaps = None
        while swaps != self._swaps:
            swaps = self._swaps
            live = await asyncio.to_thread(self._versions.read)
        self.live = {model: version for model, version in live.items() if model in self._specs}

    def _is_due(self, model: str) -> bool:
        """Return whether the live version of a model is to be loaded, or its shipped checkpoint to be looked for."""
        number, loaded = self.live.get(model), self._engine.loaded(model)
        if number is None:
            return model not in self._offered and time.monotonic() >= self._retry_at.get((model, _NONE), 0)
        if model in self._networks.unloaded or (loaded is not None and loaded.version == number):
            return False
        return time.monotonic() >= self._retry_at.get((model, number), 0)

    def _lacks_room(self, model: str, coming: int = 0) -> bool:
        """Return whether there is no room for a model's first network beside the loaded ones and `coming`.

        A fault is tried again whether requests come or not, since readiness names it.
        """
        is_new = self.live.get(model) is not None and self._engine.loaded(model) is None and model not in self.faults
        return is_new and not self._networks.has_room(coming)

    def _leave_unloaded(self, models: Sequence[str]) -> None:
        """Have models loaded on demand only."""
        if models:
            self._networks.unloaded.update(models)
            self._presence.unloaded(models)

    async def _try_again(self) -> None:
        """Find out now and then whether a store that failed to be written works again."""
        if self._store.faults and time.monotonic() >= self._try_again_at:
            self._try_again_at = time.monotonic() + RETRY_S
            if "objects" in self._store.faults and (self._trial is None or self._trial.done()):
                self._trial = asyncio.create_task(self._try_objects_again())  # nothing waits for a silent one
            with contextlib.suppress(StoreUnavailable):
                await asyncio.to_thread(self._store.try_again)

    async def _try_objects_again(self) -> None:
        with contextlib.suppress(StoreUnavailable):
            await in_own_thread(self._store.try_objects_again)

    async def promote(self, model: str, number: int, by: str, expected: int | None = None) -> Change:
        """Load and warm up a version, then make it live, and wait for the other nodes. Raises NotFound, Conflict.

        Raises PreconditionFailed if another version than `expected` is live.
        """
        return await self.promote_by(
            model, number, partial(self._changes.promote, model, number, by=by, expected=expected)
        )

    async def promote_by(self, model: str, number: int, commit: Callable[[], int | None]) -> Change:
        """Load and warm up a version, then have `commit` make it live, in a thread, and wait for the other nodes.

        `commit` returns the previous live version. Raises NotFound, Conflict, and what `commit` raises.
        """
        began = time.monotonic()
        async with self._turns[model]:
            loaded = await self.loader.verified(model, number)
            previous = await asyncio.to_thread(commit)
            self._swap(loaded)
        return Change(number, previous, await self._everywhere(model, number, began))

    async def rollback(self, model: str, by: str, expected: int | None = None, key: str | None = None) -> Change:
        """Make the version before the live one live, and wait for the other nodes. Raises Conflict.

        A repeat with the same idempotency key returns the same and changes nothing.
        Raises PreconditionFailed if another version than `expected` is live, and Invalid if the key is another model's.
        """
        began = time.monotonic()
        async with self._turns[model]:
            if (first := await asyncio.to_thread(self._changes.rolled_back, model, key)) is not None:
                is_live = await asyncio.to_thread(self._registry.live_version, model) == first[0]
                return Change(*first, await self._everywhere(model, first[0], began) if is_live else [])
            target = await asyncio.to_thread(self._registry.rollback_target, model)
            loaded = await self.loader.verified(model, target)
            commit = partial(self._changes.roll_back, model, target, by=by, expected=expected, key=key)
            done = await asyncio.to_thread(commit)
            if done.is_new:
                self._swap(loaded)
        waiting_for = await self._everywhere(model, target, began) if done.is_new else []
        return Change(done.live, done.previous, waiting_for)

    async def reload(self, model: str) -> None:
        """Load the live version again. Raises NothingLive, or Conflict: then the loaded version goes on answering."""
        async with self._turns[model]:
            live = await asyncio.to_thread(self._registry.live)
            if model not in live:
                raise NothingLive(f"{model} has no live version that could be loaded: promote one")
            self._swap(await self.loader.verified(model, live[model]))

    async def pinned(self, model: str, number: int) -> Loaded:
        """Return a version by its number: live, a candidate or another; of those the last few stay loaded.

        Raises NotFound, Conflict.
        """
        return self.ready(model, number) or await self._pinned.version(model, number)

    def ready(self, model: str, number: int) -> Loaded | None:
        """Return a version by its number if it is loaded: live, a candidate or another."""
        live = self._engine.loaded(model)
        if live is not None and live.version == number:
            self._networks.used(model)
            return live
        return self.loader.candidates.get((model, number)) or self._pinned.ready(model, number)

    async def _run(self) -> None:
        while True:
            await asyncio.sleep(_POLL_S)
            try:
                await self._look()
            except Exception:  # one of the three edges: batch, job, rollout
                log.exception("rollout failed, it is tried again")

    def _prepare(self) -> None:
        self._store.migrate()
        with contextlib.suppress(OSError):  # a full or read-only disk: at the next start
            self._store.storage.remove_abandoned(time.time())
        self._presence.join()
        self._prepared = True

    async def _bring_up(self, model: str) -> None:
        """Load the live version of a model, or the shipped checkpoint of a model without versions."""
        try:
            async with self._at_once, self._turns[model]:
                if self.live.get(model) is None:
                    await self._offer(model)
                if self.live.get(model) is None or not self._is_due(model):
                    return
                if self._lacks_room(model):
                    self._leave_unloaded([model])
                else:
                    version = await asyncio.to_thread(self._registry.version, model, self.live[model])
                    self._swap(await self.loader.load(version))
        except ObjectsAway as err:
            self._failed(model, err)
            self._offered.discard(model)
        except StoreUnavailable as err:
            self.store_fault = err.detail
            self._offered.discard(model)
        except Exception as err:  # noqa: BLE001 - one of the three edges: batch, job, rollout
            self._failed(model, err)
        finally:
            del self._loads[model]
            self._engine.loading.discard(model)

    async def _offer(self, model: str) -> None:
        """Register the shipped checkpoint of a model, if the model has no version."""
        self._offered.add(model)
        register = partial(register_shipped, self._store, model, self._pretrained, self._engine.load)
        loaded = await in_own_thread(register)
        if loaded is None:
            await self._read_live()  # another web process may have registered it
        elif self._networks.has_room():
            self._swap(loaded)
        else:
            self._swaps += 1
            self.live[model] = loaded.version
            self._leave_unloaded([model])

    async def _on_demand(self, model: str) -> Loaded:
        """Load the live version of an unloaded model. Raises NothingLive, StoreUnavailable."""
        began = time.monotonic()
        try:
            async with self._at_once, self._turns[model]:
                if (loaded := self._engine.loaded(model)) is None:
                    loaded = await self.loader.load(await self._announced(model))
                    self._swap(loaded)
                    self._metrics.cold_start(time.monotonic() - began)
                return loaded
        except ServiceError:
            self._presence.unloaded([model])
            raise
        except Exception as err:  # one of the three edges: batch, job, rollout
            self._failed(model, err)
            raise self._engine.absence(model) from err

    async def _announced(self, model: str) -> Version:
        """Return the live version, once this process is known to load it: promotions from then on wait for it."""
        announced = _NONE
        while (number := await asyncio.to_thread(self._registry.live_version, model) or _NONE) != announced:
            await self._presence.announce(model, number)
            announced = number
        if number == _NONE:
            raise self._engine.absence(model)
        self.live[model] = number
        return await asyncio.to_thread(self._registry.version, model, number)

    def _failed(self, model: str, err: Exception) -> None:
        """Note why the live version of a model, or its shipped checkpoint, cannot be loaded."""
        is_broken = isinstance(err, CheckpointError | StoreUnavailable)
        reason = str(err) if is_broken else f"loading {model} raised {type(err).__name__}, see the service's log"
        number = self.live.get(model, _NONE)
        self._retry_at[model, number] = time.monotonic() + RETRY_S
        self._metrics.load_failures.labels(model).inc()
        if self.faults.get(model) != reason:
            fields, trace = {"model": model, "reason": reason}, None if is_broken else err
            if number == _NONE:
                log.error("shipped checkpoint not registered", extra=fields, exc_info=trace)
            else:
                log.error("version not loaded", extra={**fields, "version": number}, exc_info=trace)
        self.faults[model] = reason
        if model in self._networks.unloaded:
            self._networks.unloaded.discard(model)
            self._presence.unloaded([model])

    def _swap(self, loaded: Loaded) -> None:
        before = self._engine.loaded(loaded.model)
        self._engine.swap(loaded)
        self._networks.unloaded.discard(loaded.model)
        self._networks.used(loaded.model)
        self._swaps += 1
        self.live[loaded.model] = loaded.version
        self.faults.pop(loaded.model, None)
        self._presence.changed(loaded.model, loaded.version)
        self._metrics.loaded(loaded.model, loaded.version, loaded.network.backend)
        fields = {"model": loaded.model, "version": loaded.version, "before": before.version if before else None}
        log.info("version live", extra=fields)
        if surplus := self._networks.unload_surplus():
            self._presence.unloaded(surplus)
        for model in surplus:
            self._metrics.unloaded(model)
            log.info("network unloaded", extra={"model": model})
