"""SIGINT, SIGTERM and SIGHUP in the command-line client. It imports nothing of models/, so not models/signals.py."""

import faulthandler
import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager

INTERRUPTED = 130  # exit status
_SIGNALS = (signal.SIGINT, signal.SIGTERM)
_LAST_RESORT_S = 5.0  # from the first signal
_STDERR = 2


def _handled() -> tuple[signal.Signals, ...]:
    """Return SIGINT, SIGTERM, and SIGHUP (a terminal was closed) unless it is ignored, as by nohup."""
    hangup = getattr(signal, "SIGHUP", None)  # not on Windows
    return _SIGNALS if hangup is None or signal.getsignal(hangup) is signal.SIG_IGN else (*_SIGNALS, hangup)


class Interrupted(KeyboardInterrupt):
    """A KeyboardInterrupt that was handled. Python ends by SIGINT if the class itself once passed through an exec()."""


def exit_at_signals() -> None:
    """Have the signals end the process at once, without a traceback: while modules are imported."""
    for number in _handled():
        signal.signal(number, lambda *_: os._exit(INTERRUPTED))


def ignore_signals() -> None:
    """Ignore the signals, for a command that is about to end."""
    for number in _handled():
        signal.signal(number, signal.SIG_IGN)


@contextmanager
def interrupted_once(limit_s: float = _LAST_RESORT_S) -> Iterator[None]:
    """Raise KeyboardInterrupt at the first of the signals; later ones are ignored, also after the context.

    Last resort: a process that still runs `limit_s` later ends with status 1. Does nothing outside the main thread.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    interrupted = False

    def interrupt(*_: object) -> None:
        nonlocal interrupted
        if not interrupted:
            interrupted = True
            faulthandler.dump_traceback_later(limit_s, exit=True, file=_STDERR)
            raise Interrupted

    before = {number: signal.signal(number, interrupt) for number in _handled()}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, signal.SIG_IGN if interrupted else handler or signal.SIG_DFL)
