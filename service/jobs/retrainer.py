"""Retraining by settings: of all web processes of all machines, one queues the jobs that are due.

Job, dataset and watermark are one transaction, with the lead as its fence: the number of corrections that is set queues
exactly one job, however many processes look, and whenever one of them ends.
"""

import asyncio
import contextlib
import logging
import time
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any

from sqlalchemy import Connection

from service.data.datasets import Datasets
from service.data.drift import drift_of
from service.data.drift_rows import DriftRows
from service.delivery.gate import Policy
from service.delivery.registry import Registry
from service.errors import NotFound, ServiceError, StoreUnavailable
from service.execution.recipes import ReadRecipes
from service.jobs.learning import Learning
from service.jobs.lessons import lesson_of
from service.jobs.queue import Job
from service.jobs.retrain_rows import Fence, Kept, News, RetrainRows, move
from service.store.database import Store
from service.store.feed import append
from service.store.leadership import Leadership, LeadershipLost

log = logging.getLogger(__name__)
_POLL_S = 2.0
_AGAIN_S = 60.0  # after a fault
_DRIFT_S = 3600.0  # window
DRIFT = "drift of the live version"


class _Overtaken(Exception):
    """Settings or watermark have changed since they were read."""


async def _pause() -> None:
    await asyncio.sleep(_POLL_S)


class Retrainer:
    """Looks every two seconds while entered. `now` returns seconds since 1970."""

    def __init__(
        self,
        store: Store,
        learning: Learning,
        recipes: ReadRecipes,
        holder: str,
        most: int,
        *,
        now: Callable[[], float] = time.time,
        pause: Callable[[], Awaitable[None]] = _pause,
    ) -> None:
        """`most` jobs may be queued by one submitter; `holder` is unique among all processes."""
        self._rows = RetrainRows(store)
        self._drift = DriftRows(store)
        self._registry = Registry(store)
        self._datasets = Datasets(store)
        self._learning = learning
        self._recipes = recipes
        self._leadership = Leadership(store, "retrain", holder)
        self._most = most
        self._now = now
        self._pause = pause
        self._leads = False
        self._not_before: dict[str, float] = {}  # model -> when a failed order is tried again

    async def __aenter__(self) -> None:
        self._running = asyncio.create_task(self._run())

    async def __aexit__(self, *_: object) -> None:
        self._running.cancel()
        await asyncio.gather(self._running, return_exceptions=True)
        if self._leads:
            with contextlib.suppress(StoreUnavailable):
                await asyncio.to_thread(self._leadership.resign)

    async def _run(self) -> None:
        while True:
            await self._pause()
            try:
                await self.look()
            except StoreUnavailable:  # the store logs it
                continue
            except Exception:
                log.exception("retraining was not looked at, it is tried again")

    async def look(self) -> list[Job]:
        """Queue the jobs that are due, if this process leads. Returns them. Raises StoreUnavailable."""
        found = [kept for kept in await asyncio.to_thread(self._rows.all) if kept.settings.is_on]
        attempt = await asyncio.to_thread(self._leadership.lead) if found else None
        self._leads = attempt is not None
        if attempt is None:
            return []
        fence = partial(self._leadership.require, attempt=attempt)
        return [job for kept in found if (job := await self._seen_to(kept, fence)) is not None]

    async def _seen_to(self, kept: Kept, fence: Fence) -> Job | None:
        """Queue the job of a model, if it is due."""
        settled_at = (kept.queued_at or 0.0) + kept.settings.at_most_every_s
        if self._now() < max(settled_at, self._not_before.get(kept.model, 0.0)):
            return None
        current, found = await asyncio.to_thread(self._rows.of, kept.model)
        reason = None if current != kept else await asyncio.to_thread(self._reason, kept, found)
        if reason is None:
            return None
        try:
            return await self._queue(kept, found, reason, fence)
        except (_Overtaken, LeadershipLost):
            log.info("retraining left to another process", extra={"model": kept.model})
        except StoreUnavailable:
            raise
        except ServiceError as err:
            self._not_before[kept.model] = self._now() + _AGAIN_S
            if err.detail != kept.fault:
                log.warning("retraining not queued", extra={"model": kept.model, "reason": err.detail})
                with contextlib.suppress(LeadershipLost):
                    await asyncio.to_thread(self._rows.note_fault, kept, reason, err.detail, self._now(), fence)
        return None

    def _reason(self, kept: Kept, found: News) -> str | None:
        """Return why a job is due now; None if none is. Without new labelled samples there is nothing to learn."""
        settings = kept.settings
        if not found.entries:
            return None
        if settings.corrections is not None and found.corrections >= settings.corrections:
            return f"{found.corrections} new corrections"
        waited = self._now() - (kept.changed_at if kept.queued_at is None else kept.queued_at)
        if settings.every_s is not None and waited >= settings.every_s:
            return f"{found.entries} new labelled samples, and the time since the last job"
        return DRIFT if settings.on_drift and self._drifts(kept.model) else None

    def _drifts(self, model: str) -> bool:
        live = self._registry.live_version(model)
        if live is None:
            return False
        try:
            return drift_of(self._drift, model, live, _DRIFT_S, self._now()).state == "drift"
        except (ValueError, NotFound):  # it has no reference
            return False

    async def _queue(self, kept: Kept, found: News, reason: str, fence: Fence) -> Job:
        """Raises ServiceError, _Overtaken, LeadershipLost."""
        settings = kept.settings
        lesson = await lesson_of(
            kept.model,
            settings.config,
            settings.dataset or "",
            await self._recipes(),
            self._datasets,
            since=0.0,  # what the dataset has already is left out by its content
            weight=settings.weight,
            chosen_as={"reason": reason, "since": None, "weight": settings.weight},
            promote=promotes(settings.promote, reason),
        )
        now = self._now()

        def then(connection: Connection, job: Job) -> None:
            fence(connection)
            if not move(connection, kept, found.last, job=job.id, reason=reason, now=now):
                raise _Overtaken
            told: dict[str, Any] = {"job": job.id, "ingest": job.after, "reason": reason, "promote": job.promote}
            append(connection, "retrain.queued", kept.model, now, told)

        queue = partial(self._learning.queue, lesson, submitter=kept.submitter, most=self._most, now=now, then=then)
        job = await asyncio.to_thread(queue)
        log.info("retraining queued", extra={"model": kept.model, "job": job.id, "reason": reason})
        return job


def promotes(policy: Policy, reason: str) -> Policy:
    """Return the policy of a job: drift alone never promotes, it may open a trial."""
    return policy if reason != DRIFT or policy == "trial" else "never"
