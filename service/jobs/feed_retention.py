"""Retention of the feed of all changes: each web process removes old entries once an hour, in small steps."""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable

from service.errors import StoreUnavailable
from service.store.feed import Changes

_DAY_S = 86_400.0
_HOUR_S = 3600.0
_AT_ONCE = 200  # entries in one writing transaction: the others wait for its end
log = logging.getLogger(__name__)


async def _pause() -> None:
    await asyncio.sleep(_HOUR_S)


class FeedRetention:
    """Removes entries older than `keep_days` while entered. `now` returns seconds since 1970."""

    def __init__(
        self,
        changes: Changes,
        keep_days: float,
        *,
        now: Callable[[], float] = time.time,
        pause: Callable[[], Awaitable[None]] = _pause,
    ) -> None:
        self._changes = changes
        self._keep_s = keep_days * _DAY_S
        self._now = now
        self._pause = pause

    async def __aenter__(self) -> None:
        self._running = asyncio.create_task(self._run())

    async def __aexit__(self, *_: object) -> None:
        self._running.cancel()
        await asyncio.gather(self._running, return_exceptions=True)

    async def _run(self) -> None:
        while True:
            try:
                await self.look()
            except StoreUnavailable:  # the store logs it
                pass
            except Exception:
                log.exception("changes not removed, it is tried again")
            await self._pause()

    async def look(self) -> int:
        """Remove entries that are too old, and return their number. Raises StoreUnavailable."""
        removed, before = 0, self._now() - self._keep_s
        while some := await asyncio.to_thread(self._changes.prune, before, _AT_ONCE):
            removed += some
        if removed:
            log.info("changes removed from the feed", extra={"entries": removed})
        return removed
