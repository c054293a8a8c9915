"""A thread that computes for an event loop, and that the end of the process does not wait for."""

import os
import queue
import sys
import threading
from collections.abc import Callable
from concurrent.futures import Executor, Future
from typing import Any

from service.execution.threads import settle

LOW = 10  # niceness of a thread that no caller waits for, above that of the process
_Order = tuple["Future[Any]", Callable[[], Any]]


class DaemonThread(Executor):
    """Runs functions one after the other, in a daemon thread.

    The interpreter joins the threads of a ThreadPoolExecutor when it ends, so a network that hangs would keep the
    process from stopping.
    """

    def __init__(self, name: str, *, niceness: int = 0) -> None:
        """`niceness`: above that of the process. Only Linux has priorities of threads."""
        self._orders: queue.SimpleQueue[_Order | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=_work, args=(self._orders, niceness), name=name, daemon=True)
        self._thread.start()

    def submit(self, function: Callable[..., Any], /, *arguments: Any, **named: Any) -> "Future[Any]":
        """See Executor."""
        future: Future[Any] = Future()
        self._orders.put((future, lambda: function(*arguments, **named)))
        return future

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:  # noqa: ARG002
        """End the thread after the submitted functions. Does not wait for it."""
        self._orders.put(None)

    def join(self, timeout_s: float) -> None:
        """Wait until the thread has ended, at most that many seconds."""
        self._thread.join(timeout_s)


def _work(orders: "queue.SimpleQueue[_Order | None]", niceness: int) -> None:
    if niceness and sys.platform == "linux":
        thread = threading.get_native_id()
        os.setpriority(os.PRIO_PROCESS, thread, os.getpriority(os.PRIO_PROCESS, thread) + niceness)
    while (order := orders.get()) is not None:
        if order[0].set_running_or_notify_cancel():
            settle(*order)
        del order  # a network may be gone before the next order
