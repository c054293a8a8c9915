"""Supervisor of child processes: start a child, restart it when it ends or hangs, stop it with this process."""

import asyncio
import contextlib
import logging
import os
import select
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Collection, Mapping, Sequence

log = logging.getLogger(__name__)
_BEAT_S = 1.0
_START_S = 120.0  # until the first heartbeat: imports, on a busy machine
SILENT_S = 10.0
BROKEN = 3  # exit status of a process that could not even start: another try would end the same way


async def beat(descriptor: int) -> None:
    """Write a heartbeat byte every second. A task of the event loop, so that a hung loop is silent."""
    os.set_blocking(descriptor, False)
    while True:
        with contextlib.suppress(BlockingIOError, BrokenPipeError):  # the parent does not read, or has ended
            os.write(descriptor, b"\0")
        await asyncio.sleep(_BEAT_S)


class Deadline:
    """Time that a child may be silent: `start_s` until its first heartbeat, `silent_s` after each."""

    def __init__(self, start_s: float, silent_s: float, now: Callable[[], float] = time.monotonic) -> None:
        self._now = now
        self._silent_s = silent_s
        self._at = now() + start_s

    def extend(self) -> None:
        """Note a heartbeat."""
        self._at = self._now() + self._silent_s

    def left(self) -> float:
        """Return the seconds until the child counts as hung; 0 if it does."""
        return max(0.0, self._at - self._now())


class Kept:
    """`python -m MODULE` as a child, watched by a thread.

    The child's input is a pipe that ends with this process, however that ends: no child is ever left behind. One that
    ends with a status of `broken` is not started again; `on_broken` is then called.

    With `silent_s` the child gets the descriptor of a pipe as its last argument, and has to write to it (see `beat`).
    If it writes nothing for that long, or for `start_s` at its start, it is killed and started again.
    """

    def __init__(
        self,
        words: Sequence[str],
        on_broken: Callable[[], None],
        silent_s: float | None = None,
        start_s: float = _START_S,
        now: Callable[[], float] = time.monotonic,
        restart_s: float = 1.0,
        environ: Mapping[str, str] | None = None,
        broken: Collection[int] = (BROKEN,),
    ) -> None:
        """`environ` is the child's environment; by default that of this process."""
        self._words = words
        self._on_broken = on_broken
        self._silent_s = silent_s
        self._start_s = start_s
        self._now = now
        self._restart_s = restart_s
        self._environ = environ
        self._broken = broken
        self._stopping = threading.Event()
        self._process: subprocess.Popen[bytes] | None = None
        self._thread = threading.Thread(target=self._keep, name=f"keeps {words[0]}", daemon=True)

    def start(self) -> None:
        """Start the child, and keep it running."""
        self._thread.start()

    def ask_to_stop(self) -> None:
        """Ask the child to stop gracefully, by SIGTERM and by the end of its input."""
        self._stopping.set()
        self._close_input()
        if self._process is not None:
            self._process.terminate()  # it reads its input only after its imports

    def wait(self, timeout_s: float) -> None:
        """Wait until the child has ended, if it was started. It is killed after the timeout."""
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
            status = self._run()
            self._close_input()
            if status in self._broken:
                self._on_broken()
                return
            if not self._stopping.is_set():
                log.error("ended, it is started again", extra={"child": self._words[0], "exit": status})
                self._stopping.wait(self._restart_s)

    def _run(self) -> int:
        """Run the child once. Returns its exit status."""
        reader, writer = os.pipe()
        words = self._words if self._silent_s is None else [*self._words, str(writer)]
        with os.fdopen(reader, "rb", buffering=0), os.fdopen(writer, "wb", buffering=0) as theirs:
            process = self._process = subprocess.Popen(
                [sys.executable, "-m", *words],
                stdin=subprocess.PIPE,
                process_group=0,  # as in execution/process.py: Ctrl-C in a terminal is for the parent alone
                env=self._environ,
                pass_fds=[] if self._silent_s is None else [writer],
            )
            theirs.close()  # the pipe ends with the child
            if self._stopping.is_set():  # requested while it was started
                self.ask_to_stop()
            if self._silent_s is not None and not self._beats(
                reader, Deadline(self._start_s, self._silent_s, self._now)
            ):
                fields = {"child": self._words[0], "pid": process.pid}
                log.error("killed: its event loop does not answer", extra=fields)
                process.kill()
            return process.wait()

    def _beats(self, reader: int, deadline: Deadline) -> bool:
        """Read heartbeats until the child ends or the stop is requested, or return False when it hangs."""
        while True:
            readable, _, _ = select.select([reader], [], [], deadline.left())
            if self._stopping.is_set():  # then `wait` has a timeout
                return True
            if not readable:
                return False
            if not os.read(reader, 4096):
                return True
            deadline.extend()
