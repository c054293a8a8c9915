"""Threads for work that would block the event loop: a small pool, and a separate thread for each long call."""

import asyncio
import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

T = TypeVar("T")
INLINE_BYTES = 65_536  # data up to this size is processed on the event loop


class Threads:
    """A pool of two threads: decoding a picture at the pixel limit takes over 100 MB, so few run at the same time."""

    def __init__(self) -> None:
        self._pool = ThreadPoolExecutor(2, thread_name_prefix="decode")

    async def run(self, function: Callable[[], T]) -> T:
        """Return the result of `function`, called in a thread; outside an event loop, in the thread of the caller."""
        try:
            loop = asyncio.get_running_loop()
        except RuntimeError:
            return function()
        return await loop.run_in_executor(self._pool, function)

    async def run_if_large(self, size: int, function: Callable[[], T]) -> T:
        """Return the result of `function`, called in a thread if it processes more than INLINE_BYTES bytes of data."""
        return function() if size <= INLINE_BYTES else await self.run(function)

    def close(self) -> None:
        """Stop the threads after the calls that they are running."""
        self._pool.shutdown(cancel_futures=True)


class _Own(threading.Thread):
    """A thread of `in_own_thread`."""


async def in_own_thread(function: Callable[[], T]) -> T:
    """Return the result of `function`, called in a separate daemon thread.

    For calls that may take minutes and cannot be interrupted: they take no thread from other calls, and the end of the
    event loop does not wait for them.
    """
    future: Future[T] = Future()
    future.set_running_or_notify_cancel()
    _Own(target=settle, args=(future, function), name="own", daemon=True).start()
    return await asyncio.wrap_future(future)


def settle(future: Future[T], function: Callable[[], T]) -> None:
    """Call `function`, and give the future its result, or what it raised."""
    try:
        future.set_result(function())
    except BaseException as err:  # noqa: BLE001 - raised again by the future
        future.set_exception(err)
    finally:
        del future, function  # the traceback of an error keeps this frame


def left_running() -> bool:
    """Return whether a call of `in_own_thread` is still running in this process."""
    return any(isinstance(thread, _Own) for thread in threading.enumerate())
