"""Graceful stop at SIGINT, SIGTERM and SIGHUP, with a last resort.

A signal handler may interrupt the main thread anywhere, also inside the lock of a threading.Event or a logger. So the
handler here takes no lock: it sets a flag and writes to a pipe, which wakes the waiting threads (a self-pipe). Python
runs handlers only between two instructions of the main thread, so the interpreter itself writes to the pipe, too: a
signal just before a blocking call would otherwise go unnoticed until the call returns.
"""

import asyncio
import contextlib
import faulthandler
import os
import select
import signal
import threading
from collections.abc import Callable
from typing import Protocol

from models.signals import handled


class Stopping(Protocol):
    """A stop request that can be waited for: Stop, or a threading.Event."""

    def is_set(self) -> bool:
        """Return whether a stop was requested."""

    def wait(self, timeout: float | None = None) -> bool:
        """Wait for the request. Returns whether there was one."""


class Stop:
    """An event that signal handlers may set: set() takes no lock and may interrupt itself."""

    def __init__(self) -> None:
        self._set = False
        self._reader, self._writer = os.pipe()
        os.set_blocking(self._writer, False)

    def is_set(self) -> bool:
        """Return whether a stop was requested."""
        return self._set or bool(select.select([self._reader], [], [], 0)[0])

    def set(self) -> None:
        """Request the stop. Later calls do nothing."""
        if not self._set:
            self._set = True
            with contextlib.suppress(BlockingIOError):  # full of signals
                os.write(self._writer, b"\0")  # stays in the pipe, which is readable from now on

    def wait(self, timeout: float | None = None) -> bool:
        """Wait for the request, in any number of threads. Returns whether there was one."""
        readable, _, _ = select.select([self._reader], [], [], timeout)
        return bool(readable)

    def watched_by(self, loop: asyncio.AbstractEventLoop, action: Callable[[], None]) -> None:
        """Call `action` in an event loop once the stop is requested."""

        def act() -> None:
            loop.remove_reader(self._reader)
            action()

        loop.add_reader(self._reader, act)

    def at_signals(self) -> None:
        """Have SIGINT, SIGTERM and SIGHUP request the stop, from now on. For the main thread.

        The process may have no other signal handlers written in Python: each of their signals would wake `wait`.
        """
        signal.set_wakeup_fd(self._writer, warn_on_full_buffer=False)
        for number in handled():
            signal.signal(number, lambda *_: self.set())

    def exit_after(self, limit_s: float) -> None:
        """Last resort: end the process with status 1 and the threads' traces if it still runs that long after set()."""

        def watch() -> None:
            self.wait()
            faulthandler.dump_traceback_later(limit_s, exit=True)  # a thread that needs no lock of the interpreter

        threading.Thread(target=watch, name="last resort", daemon=True).start()

    def at_end_of_input(self, stream: int = 0) -> None:
        """Request the stop when the parent closes this process's input, or has ended."""

        def watch() -> None:
            while os.read(stream, 4096):
                pass
            self.set()

        threading.Thread(target=watch, name="end of input", daemon=True).start()
