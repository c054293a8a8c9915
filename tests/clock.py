"""Event loop whose clock jumps to the next timer as soon as nothing else is to be done: time-outs without waiting."""

import asyncio
import selectors
from collections.abc import Coroutine
from typing import Any


class Loop(asyncio.SelectorEventLoop):
    """An event loop in virtual seconds, from 0. Threads and sockets are not waited for while a timer is pending."""

    def __init__(self) -> None:
        self._seconds = 0.0
        super().__init__(_Jumping(self))

    def time(self) -> float:
        """Return the virtual seconds since the start."""
        return self._seconds

    def jump(self, seconds: float) -> None:
        """Advance the virtual clock."""
        self._seconds += seconds


class _Jumping(selectors.DefaultSelector):
    """A selector that lets virtual time pass where another one would wait."""

    def __init__(self, loop: Loop) -> None:
        super().__init__()
        self._loop = loop

    def select(self, timeout: float | None = None) -> Any:
        """Return what is ready now; without a time-out, wait for something."""
        if timeout is None:
            return super().select(None)
        ready = super().select(0)
        if not ready:
            self._loop.jump(timeout)
        return ready


def run(main: Coroutine[Any, Any, Any]) -> Any:
    """As asyncio.run, in virtual time."""
    with asyncio.Runner(loop_factory=Loop) as runner:
        return runner.run(main)


def now() -> float:
    """Return the virtual time of the running loop."""
    return asyncio.get_running_loop().time()
