"""Follow the open trials in a web process: load their candidates, route, shadow and count."""

import asyncio
import contextlib
import logging
import math
import time
from collections.abc import Awaitable, Callable, Container, Sequence
from functools import partial
from typing import Literal

from models.errors import InvalidInput
from service.delivery.doubts import Doubts
from service.delivery.loader import Loader
from service.delivery.memory import is_out_of_memory
from service.delivery.presence import Presence
from service.delivery.shadow import Shadow
from service.delivery.shadow_lane import Lane
from service.delivery.trial_canary import Handing, TrialCanary
from service.delivery.trial_counts import TrialCounts
from service.delivery.trials import FaultKind, Trial, Trials
from service.errors import ServiceError, StoreUnavailable
from service.inference.engine import Engine, Loaded
from service.inference.pipeline import Pipeline
from service.store.database import Store

log = logging.getLogger(__name__)
_POLL_S = 0.25
RETRY_S = 2.0  # after a candidate could not be fetched, or a fault not be recorded
_CANARY_WAIT_S = 20.0  # at most, at the start: until then, the other web processes answer
_HANDED_S = 3.0  # within which a promoted candidate goes live
LEAD_S = 0.75  # between a transition and its larger share: longer than a look of every process takes


class _Followed:
    """One open trial in this process."""

    def __init__(self, trial: Trial) -> None:
        self.trial = trial
        self.applied: Trial | None = None  # as it was when its stage was applied
        self.begins: set[asyncio.Task[None]] = set()  # larger shares, at their time
        self.candidate: Loaded | None = None
        self.canary: TrialCanary | None = None
        self.shadow: Shadow | None = None
        self.doubts: Doubts | None = None
        self.loading: asyncio.Task[None] | None = None
        self.retry_at = 0.0
        self.faults: dict[FaultKind, str] = {}  # that are to be recorded
        self.told: set[tuple[int, FaultKind]] = set()  # those that were, by stage
        self.handed_until: float | None = None  # its candidate was promoted, and is to go live until then


class TrialFollower:
    """Follows while entered; a look costs one tiny query. While the database is away, traffic goes on as it is.

    A larger share begins `LEAD_S` after its transition, at one time in all processes of all machines, as far as their
    clocks agree: a key that is new in it does not go back to the live version when another process answers.
    A candidate stays loaded besides TORCHLOOP_MAX_LOADED networks, as long as its trial is open.
    """

    def __init__(
        self,
        models: Container[str],
        store: Store,
        engine: Engine,
        pipeline: Pipeline,
        loader: Loader,
        presence: Presence,
        load_wait_s: float | None = None,
        *,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        """Entering waits for the candidates, until each is loaded or has failed, at most `load_wait_s` seconds; longer
        for those of canaries, whose keys would go back to the live version in a process that starts.
        """
        self._models = models
        self._trials = Trials(store)
        self._engine = engine
        self._pipeline = pipeline
        self._loader = loader
        self._presence = presence
        self._load_wait_s = load_wait_s
        self._sleep = sleep
        self._counts = TrialCounts(store)
        admission, batcher = pipeline.admission, pipeline.batcher
        self._lane = Lane(lambda: admission.waiting == 0 and batcher.computing == 0)
        self._followed: dict[str, _Followed] = {}
        self._stages: dict[str, int] = {}  # that presence has
        self._changed = asyncio.Event()
        self._turn = asyncio.Lock()  # one look at a time

    async def __aenter__(self) -> None:
        self._loop = asyncio.get_running_loop()
        await self.follow()
        await self.settled(self._wait_s())
        await asyncio.gather(*(begins for one in self._followed.values() for begins in one.begins))
        self._announce()
        self._counts.start()
        self._following = asyncio.create_task(self._run())

    async def __aexit__(self, *_: object) -> None:
        followed = self._followed.values()
        ours = [self._following, *(one.loading for one in followed if one.loading)]
        ours += [begins for one in followed for begins in one.begins]
        for one in ours:
            one.cancel()
        await asyncio.gather(*ours, return_exceptions=True)
        for trial in list(self._followed):
            self._leave(self._followed.pop(trial))
        self._lane.close()
        await self._counts.stop()

    async def everywhere(self, trial: str, stage: int | None, timeout_s: float) -> Sequence[str]:
        """Wait until all web processes of all live nodes follow a stage of a trial, None: its end, at most `timeout_s`.

        Returns the addresses of the nodes that do not.
        """
        self._changed.set()
        return await self._presence.everywhere_in(trial, stage, timeout_s)

    async def settled(self, timeout_s: float | None = None) -> None:
        """Wait until the candidates that are being loaded are, or have failed, at most `timeout_s` seconds."""
        if loads := [one.loading for one in self._followed.values() if one.loading]:
            await asyncio.wait(loads, timeout=timeout_s)

    def _wait_s(self) -> float | None:
        """Return how long the start waits for the candidates; None: without limit."""
        if self._load_wait_s is None or not any(one.trial.share for one in self._followed.values()):
            return self._load_wait_s
        return max(self._load_wait_s, _CANARY_WAIT_S)

    async def follow(self) -> None:
        """Look once which trials are open, and follow them."""
        async with self._turn:
            with contextlib.suppress(StoreUnavailable):  # the store says so in the log
                await self._look()
            self._turn_over()
            self._announce()

    async def _look(self) -> None:
        found = await asyncio.to_thread(self._trials.open)
        opened = {trial.id: trial for trial in found}
        for one in [one for one in self._followed.values() if one.trial.id not in opened]:
            await self._finish(one)
        for trial in found:
            followed = self._followed.get(trial.id)
            if followed is None:
                followed = self._followed[trial.id] = _Followed(trial)
            elif followed.trial.attempt != trial.attempt:
                followed.trial = trial
                self._enter(followed)
            self._load(followed)
            await self._record_faults(followed)

    async def _run(self) -> None:
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_POLL_S):
                    await self._changed.wait()
            self._changed.clear()
            try:
                await self.follow()
            except Exception:  # of the edge rollout
                log.exception("trials not followed, it is tried again")

    def _load(self, one: _Followed) -> None:
        """Begin to load the candidate, if this process serves the model and it is not loaded."""
        is_due = one.candidate is None and one.loading is None and time.monotonic() >= one.retry_at
        if is_due and one.trial.model in self._models:
            one.loading = asyncio.create_task(self._bring_up(one))

    async def _bring_up(self, one: _Followed) -> None:
        trial = one.trial
        began = time.monotonic()
        try:
            one.candidate = await self._loader.verified(trial.model, trial.version)
        except StoreUnavailable:
            one.retry_at = time.monotonic() + RETRY_S
        except Exception as err:  # noqa: BLE001 - of the edge rollout
            kind: Literal["memory", "load"] = "memory" if is_out_of_memory(err) else "load"
            self._note_failure(one, kind, err)
        else:
            self._keep()
            fields = {"model": trial.model, "version": trial.version, "trial": trial.id}
            log.info("candidate loaded", extra={**fields, "seconds": round(time.monotonic() - began, 3)})
            self._enter(one)
        finally:
            one.loading = None
        self._changed.set()

    def _note_failure(self, one: _Followed, kind: FaultKind, err: Exception) -> None:
        known = isinstance(err, ServiceError | InvalidInput)
        reason = str(err) if known else f"loading version {one.trial.version} raised {type(err).__name__}"
        fields = {"model": one.trial.model, "version": one.trial.version, "trial": one.trial.id, "reason": reason}
        log.error("candidate not loaded", extra=fields, exc_info=None if known else err)
        one.retry_at = math.inf
        one.faults[kind] = reason

    def _enter(self, one: _Followed) -> None:
        """Apply the trial's stage: a larger share at the time when all processes do, anything else at once."""
        trial = one.trial
        known = 0.0 if one.applied is None else one.applied.share
        wait_s = trial.stage_since + LEAD_S - time.time()
        if trial.share <= known or wait_s <= 0 or self._presence.is_alone:
            self._apply(one, trial)
            return
        begins = asyncio.create_task(self._begin(one, trial, min(wait_s, LEAD_S)))
        one.begins.add(begins)
        begins.add_done_callback(one.begins.discard)

    async def _begin(self, one: _Followed, trial: Trial, wait_s: float) -> None:
        """Apply a stage after some seconds, also if it was paused or the next stage was decided on meanwhile."""
        await self._sleep(wait_s)
        if one.applied is None or one.applied.stage < trial.stage:
            self._apply(one, one.trial if one.trial.stage == trial.stage else trial)
            self._announce()

    def _apply(self, one: _Followed, trial: Trial) -> None:
        """Route, shadow and count as the stage of the trial says."""
        candidate = one.candidate
        if candidate is None:
            return
        one.applied = trial
        self._stop_shadow(one)
        report = partial(self._report, one)
        context = (trial, candidate, self._engine, self._counts, self._lane, report)
        one.doubts = Doubts(*context)
        one.canary = TrialCanary(trial, candidate, self._counts, one.doubts, report)
        self._pipeline.canaries[trial.model] = one.canary
        if trial.shadow:
            one.shadow = Shadow(*context)
            self._pipeline.observers.add(trial.model, one.shadow)
        fields = {"model": trial.model, "trial": trial.id, "stage": trial.stage, "state": trial.state}
        log.info("trial followed", extra={**fields, "version": trial.version})

    def _announce(self) -> None:
        """Have the row of this node say which stages this process follows."""
        stages = {
            one.trial.id: (one.applied or one.trial).stage
            for one in self._followed.values()
            if one.applied is not None or one.trial.model not in self._models
        }
        if stages != self._stages:
            self._stages = stages
            self._presence.follows(stages)

    async def _finish(self, one: _Followed) -> None:
        """Follow a trial no more. If its candidate was promoted, that goes on answering its keys until it is live."""
        if one.handed_until is None and one.canary is not None:
            ended = await asyncio.to_thread(self._trials.get, one.trial.id)
            one.handed_until = time.monotonic() + (_HANDED_S if ended.state == "promoted" else 0)
            _cancel(one)
            self._stop_shadow(one)
            self._pipeline.canaries[one.trial.model] = Handing(one.canary)
        loaded = self._engine.loaded(one.trial.model)
        is_live = loaded is None or loaded.version == one.trial.version
        if one.handed_until is None or is_live or time.monotonic() >= one.handed_until:
            self._leave(self._followed.pop(one.trial.id))

    def _leave(self, one: _Followed) -> None:
        """Drop all references to the candidate."""
        trial = one.trial
        if one.loading is not None:
            one.loading.cancel()
        _cancel(one)
        self._stop_shadow(one)
        if one.doubts is not None:
            self._lane.discard(one.doubts)
        if not any(other.trial.model == trial.model and other.canary for other in self._followed.values()):
            self._pipeline.canaries.pop(trial.model, None)
        one.candidate = one.canary = one.doubts = None  # they refer to each other: freed now, not at a collection
        self._keep()
        self._counts.forget(trial.id)
        if not self._followed:
            self._lane.rest()
        log.info("trial left", extra={"model": trial.model, "trial": trial.id, "version": trial.version})

    def _keep(self) -> None:
        """Have the loader know the candidates that are loaded."""
        self._loader.candidates.clear()
        for one in self._followed.values():
            if one.candidate is not None:
                self._loader.candidates[one.trial.model, one.trial.version] = one.candidate

    def _stop_shadow(self, one: _Followed) -> None:
        if one.shadow is not None:
            self._pipeline.observers.remove(one.trial.model, one.shadow)
            self._lane.discard(one.shadow)
            one.shadow = None

    def _turn_over(self) -> None:
        """Have requests counted in the rows of the current minute."""
        if self._counts.turn_over():
            for one in self._followed.values():
                if one.canary is not None:
                    one.canary.renew()
                if one.shadow is not None:
                    one.shadow.renew()

    def _report(self, one: _Followed, kind: FaultKind, detail: str) -> None:
        """Have a fault recorded, once in a stage. For any thread."""
        if (one.trial.stage, kind) not in one.told and kind not in one.faults:
            one.faults[kind] = detail
            with contextlib.suppress(RuntimeError):  # the event loop has ended
                self._loop.call_soon_threadsafe(self._changed.set)

    async def _record_faults(self, one: _Followed) -> None:
        """Record why the candidate must be rolled back at once. Raises StoreUnavailable: it is tried again."""
        for kind, detail in list(one.faults.items()):
            record = partial(self._trials.note_fault, one.trial, kind, detail, now=time.time())
            await asyncio.to_thread(record)
            one.told.add((one.trial.stage, kind))
            one.faults.pop(kind)


def _cancel(one: _Followed) -> None:
    for begins in one.begins:
        begins.cancel()
