"""SIGINT, SIGTERM and SIGHUP for the commands of training, and of all commands while they import their modules."""

import faulthandler
import os
import signal
import threading
from types import FrameType

INTERRUPTED = 130  # exit status after any of them, as shells use it for SIGINT
_STDERR = 2
_SIGNALS = (signal.SIGINT, signal.SIGTERM)


def handled() -> tuple[signal.Signals, ...]:
    """Return SIGINT, SIGTERM, and SIGHUP (a terminal was closed) unless it is ignored, as by nohup."""
    return _SIGNALS if signal.getsignal(signal.SIGHUP) is signal.SIG_IGN else (*_SIGNALS, signal.SIGHUP)


def exit_at_signals(status: int = INTERRUPTED) -> None:
    """Have the signals end the process at once, without a traceback.

    For the first lines of a command: until its own handlers are installed there is nothing to clean up.
    """
    for number in handled():
        signal.signal(number, lambda *_: os._exit(status))


def ignore_signals() -> None:
    """Ignore the signals, for a command that is about to end: Python resets other handlers before it exits."""
    for number in handled():
        signal.signal(number, signal.SIG_IGN)


class Interrupted(KeyboardInterrupt):
    """A KeyboardInterrupt that was handled. Python ends by SIGINT if the class itself once passed through an exec()."""


class Interruption:
    """Context in which the first of the signals raises KeyboardInterrupt. Later ones are ignored, also afterwards.

    So nothing interrupts the cleanup. Last resort: if the process still runs `limit_s` after the first signal, it ends
    with status 1 and the tracebacks of its threads. Does nothing outside the main thread.
    """

    def __init__(self, limit_s: float) -> None:
        self._limit_s = limit_s
        self._interrupted = False
        self._before = {number: signal.getsignal(number) for number in handled()}

    def __enter__(self) -> "Interruption":
        if threading.current_thread() is threading.main_thread():
            for number in handled():
                signal.signal(number, self._interrupt)
        return self

    def __exit__(self, *_: object) -> None:
        if threading.current_thread() is not threading.main_thread():
            return
        if self._interrupted:
            ignore_signals()
        else:
            for number, handler in self._before.items():
                signal.signal(number, handler or signal.SIG_DFL)  # None: not set by Python

    def check(self) -> None:
        """Raise KeyboardInterrupt if there was a signal: one that is raised in a destructor is lost."""
        if self._interrupted:
            raise Interrupted

    def _interrupt(self, _number: int, _frame: FrameType | None) -> None:
        if not self._interrupted:
            self._interrupted = True
            faulthandler.dump_traceback_later(self._limit_s, exit=True, file=_STDERR)
            raise Interrupted
