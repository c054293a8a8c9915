"""A process kept running beside this one: started, started again when it dies, ended with this one."""

import contextlib
import logging
import subprocess
import sys
import threading
from collections.abc import Callable, Sequence

log = logging.getLogger(__name__)
BROKEN = 3  # exit status of a process that could not even start: another try would end the same way


class Kept:
    """`python -m MODULE` as a child, watched by a thread. It sees the same environment.

    The child's input is a pipe that ends with this process, however that ends: no child is ever left behind. One that
    ends as BROKEN is not started again; `on_broken` is then called.
    """

    def __init__(self, words: Sequence[str], on_broken: Callable[[], None], restart_s: float = 1.0) -> None:
        self._words = words
        self._on_broken = on_broken
        self._restart_s = restart_s
        self._stopping = threading.Event()
        self._process: subprocess.Popen[bytes] | None = None
        self._thread = threading.Thread(target=self._keep, name=f"keeps {words[0]}", daemon=True)

    def start(self) -> None:
        """Start it, and keep it running."""
        self._thread.start()

    def ask_to_stop(self) -> None:
        """Have it end in good order."""
        self._stopping.set()
        self._close_input()

    def wait(self, timeout_s: float) -> None:
        """Until it has ended, if it was started; killed where that takes too long."""
        if not self._thread.ident:
            return
        self._thread.join(timeout_s)
        if self._thread.is_alive() and self._process is not None:
            log.error("killed: it did not stop", extra={"child": self._words[0]})
            self._process.kill()
            self._thread.join()

    def _close_input(self) -> None:
        if self._process is not None and self._process.stdin is not None:
            with contextlib.suppress(BrokenPipeError):
                self._process.stdin.close()

    def _keep(self) -> None:
        while not self._stopping.is_set():
            command = [sys.executable, "-m", *self._words]  # in a group of its own for the reason in child.py
            process = self._process = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                process_group=0,
            )  # as in child.py
            if self._stopping.is_set():  # since the line above the last
                self.ask_to_stop()
            status = process.wait()
            self._close_input()
            if status == BROKEN:
                self._on_broken()
                return
            if not self._stopping.is_set():
                log.error("ended, it is started again", extra={"child": self._words[0], "exit": status})
                self._stopping.wait(self._restart_s)
