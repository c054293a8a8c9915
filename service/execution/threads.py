"""A small thread pool for work that would block the event loop."""

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

T = TypeVar("T")
INLINE_BYTES = 65_536  # data up to this size is processed on the event loop


class Threads:
    """A pool of two threads: decoding a picture at the pixel limit takes over 100 MB, so few run at the same time."""

    def __init__(self) -> None:
        self._pool = ThreadPoolExecutor(2, thread_name_prefix="decode")

    async def run(self, function: Callable[[], T]) -> T:
        """Return the result of `function`, called in a thread."""
        return await asyncio.get_running_loop().run_in_executor(self._pool, function)

    async def run_if_large(self, size: int, function: Callable[[], T]) -> T:
        """Return the result of `function`, called in a thread if it processes more than INLINE_BYTES bytes of data."""
        return function() if size <= INLINE_BYTES else await self.run(function)

    def close(self) -> None:
        """Stop the threads after the calls that they are running."""
        self._pool.shutdown(cancel_futures=True)
