"""Cancel the work for a request when its client disconnects."""

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

from starlette.requests import ClientDisconnect
from starlette.types import Receive

T = TypeVar("T")
_AFTER_S = 0.05  # work that is done earlier is not watched


async def unless_gone(receive: Receive, work: Coroutine[Any, Any, T], after_s: float = _AFTER_S) -> T:
    """Return the result of `work`, which is cancelled if the client disconnects. The body must have been read.

    Raises ClientDisconnect, or what `work` raises.
    """
    working = asyncio.ensure_future(work)
    try:
        await asyncio.wait({working}, timeout=after_s)
        if not working.done():
            await _first_of(working, asyncio.ensure_future(_gone(receive)))
        if not working.done():
            raise ClientDisconnect
        return working.result()
    finally:
        working.cancel()
        del working  # the traceback of its error refers to this frame: a cycle, which would keep the body


async def _first_of(working: "asyncio.Future[Any]", watching: "asyncio.Future[None]") -> None:
    try:
        await asyncio.wait({working, watching}, return_when=asyncio.FIRST_COMPLETED)
    finally:
        watching.cancel()


async def _gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
