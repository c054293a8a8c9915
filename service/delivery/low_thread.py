"""A thread of low priority that nothing waits for at the end of the process."""

import os
import queue
import sys
import threading
from collections.abc import Callable
from concurrent.futures import Executor, Future
from typing import Any

from service.execution.threads import settle

_NICENESS = 10  # above that of the process
_Order = tuple["Future[Any]", Callable[[], Any]]


class LowThread(Executor):
    """Runs functions one after the other, in a daemon thread.

    The interpreter joins the threads of a ThreadPoolExecutor when it ends, so a network that hangs would keep the
    process from stopping.
    """

    def __init__(self, name: str) -> None:
        self._orders: queue.SimpleQueue[_Order | None] = queue.SimpleQueue()
        threading.Thread(target=_work, args=(self._orders,), name=name, daemon=True).start()

    def submit(self, function: Callable[..., Any], /, *arguments: Any, **named: Any) -> "Future[Any]":
        """See Executor."""
        future: Future[Any] = Future()
        self._orders.put((future, lambda: function(*arguments, **named)))
        return future

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:  # noqa: ARG002
        """End the thread after what was submitted. Does not wait for it."""
        self._orders.put(None)


def _work(orders: "queue.SimpleQueue[_Order | None]") -> None:
    _lower_priority()
    while (order := orders.get()) is not None:
        settle(*order)
        del order  # a candidate may be gone before the next order


def _lower_priority() -> None:
    """Lower the priority of this thread. Only Linux has priorities of threads."""
    if sys.platform == "linux":
        thread = threading.get_native_id()
        os.setpriority(os.PRIO_PROCESS, thread, os.getpriority(os.PRIO_PROCESS, thread) + _NICENESS)
