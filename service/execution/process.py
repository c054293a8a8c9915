"""Parent side of the torch subprocess, `python -m training.process`.

The subprocess executes orders one after the other. Its input stays open while the parent lives; at the end of the input
it ends too. A crash of the subprocess is a regular outcome.
"""

import contextlib
import logging
import os
import queue
import select
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import models
from models.messages import Failed, Message, Order, R, decode_message, encode_order
from service.settings import for_training

log = logging.getLogger(__name__)
_ROOT = Path(models.__file__).parents[1]
_TERM_S = 1.0  # time to stop after SIGTERM, before SIGKILL
_TOGETHER = 65_536  # bytes
_QUIET_S = 0.05
_SHOWN = 100  # bytes of a line that is not a message

StartChild = Callable[[], "Child"]


@dataclass(frozen=True, slots=True)
class Printed:
    """Output of the subprocess: warnings, tracebacks, what recipes print."""

    text: str


class Child:
    """A running torch subprocess. `exit` is None until it has ended and all its messages have been taken."""

    def __init__(self, environ: Mapping[str, str] | None = None) -> None:
        """`environ` is the environment that `for_training` is applied to; by default that of this process."""
        self._process = subprocess.Popen(
            [sys.executable, "-m", "training.process"],
            cwd=_ROOT,
            env=for_training(os.environ if environ is None else environ),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            # Ctrl-C in a terminal goes to the parent only, which stops the subprocess. Not a new session: Linux shares
            # the processor out among sessions first, and the niceness of the subprocess would have no effect.
            process_group=0,
        )
        assert self._process.stdout is not None
        assert self._process.stderr is not None
        self._messages: queue.Queue[Message | Printed | None] = queue.Queue()
        self._listener = threading.Thread(target=self._listen, args=(self._process.stderr,), daemon=True)
        self._listener.start()
        self._reader = threading.Thread(target=self._read, args=(self._process.stdout,), daemon=True)
        self._reader.start()
        self.pid = self._process.pid
        self.exit: int | None = None

    def send(self, order: Order[Any]) -> None:
        """Send an order. If the subprocess is dead, the order is lost; `exit` reports that."""
        assert self._process.stdin is not None
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.write(encode_order(order) + b"\n")
            self._process.stdin.flush()

    def ask(self, order: Order[R], timeout_s: float) -> R | Failed | None:
        """Send an order and return its result; None if there was none in time, or if the subprocess died."""
        self.send(order)
        deadline = time.monotonic() + timeout_s
        while (left := deadline - time.monotonic()) > 0:
            messages = self.messages(left)
            for message in messages:
                answer = None if isinstance(message, Printed) else order.answered_by(message)
                if answer is not None:
                    return answer
            if not messages or self.exit is not None:
                return None
        return None

    def messages(self, timeout_s: float) -> Sequence[Message | Printed]:
        """Take the messages, and the output, since the last call; wait at most `timeout_s` for the first."""
        taken: list[Message | Printed] = []
        with contextlib.suppress(queue.Empty):
            message = self._messages.get(timeout=timeout_s)
            while message is not None:
                taken.append(message)
                message = self._messages.get_nowait()
            self.exit = self._process.wait()
        return taken

    def stop(self) -> None:
        """Stop the subprocess: SIGTERM, then SIGKILL. Files are whole or absent."""
        if self._process.poll() is None:
            self._process.terminate()
            try:
                self._process.wait(_TERM_S)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
        self._reader.join()
        self._listener.join(_TERM_S)  # a process that user code left behind may hold the pipe open
        assert self._process.stdin is not None
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.close()

    def _read(self, stream: IO[bytes]) -> None:
        with stream:
            for message in read_messages(stream):
                self._messages.put(message)
        self._listener.join(_TERM_S)  # the last output says why it ended
        self._messages.put(None)

    def _listen(self, stream: IO[bytes]) -> None:
        log_output(stream, lambda text: self._messages.put(Printed(text)))


def log_output(stream: IO[bytes], tell: Callable[[str], None] = lambda _: None) -> None:
    """Log the subprocess's output: warnings, tracebacks, output of recipes. Lines read together are one record.

    `tell` is called with each.
    """
    with stream:
        while output := os.read(stream.fileno(), _TOGETHER):
            while select.select([stream], [], [], _QUIET_S)[0] and len(output) < _TOGETHER:
                more = os.read(stream.fileno(), _TOGETHER)
                if not more:
                    break
                output += more
            text = output.decode(errors="replace").strip()
            if text:
                log.info("output of the torch subprocess", extra={"output": text})
                tell(text)


def read_messages(lines: Iterable[bytes]) -> Iterator[Message]:
    """Decode the messages among the lines. Others, e.g. output of user code, are logged and ignored."""
    for line in lines:
        if line.isspace():
            continue
        try:
            yield decode_message(line)
        except ValueError:
            log.warning("not a message of the torch subprocess", extra={"line": repr(line[:_SHOWN])})
