"""Torch subprocess that is started on demand and kept for a while."""

import threading

from models.messages import Failed, Order, R
from service.execution.process import Child, StartChild


class Standby:
    """Start a subprocess for the first order; stop it after `idle_s` without orders, or if it does not answer.

    Callers in several threads take turns.
    """

    def __init__(self, start_child: StartChild, *, answer_s: float, idle_s: float) -> None:
        self._start_child = start_child
        self._answer_s = answer_s
        self._idle_s = idle_s
        self._turn = threading.Lock()
        self._child: Child | None = None
        self._idle: threading.Timer | None = None

    @property
    def warm(self) -> bool:
        """Whether the subprocess is running."""
        return self._child is not None

    def do(self, order: Order[R]) -> R | Failed | None:
        """Return the result of an order; None if there was none in time, or if the subprocess died."""
        with self._turn:
            if self._idle:
                self._idle.cancel()
            self._child = self._child or self._start_child()
            answer = self._child.ask(order, self._answer_s)
            if answer is None:
                self._stop()
                return None
            self._idle = threading.Timer(self._idle_s, self.close)
            self._idle.daemon = True
            self._idle.start()
            return answer

    def close(self) -> None:
        """Stop the subprocess, if there is one."""
        with self._turn:
            self._stop()

    def _stop(self) -> None:
        if self._idle:
            self._idle.cancel()
        if self._child:
            self._child.stop()
        self._child = self._idle = None
