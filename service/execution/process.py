"""The process that does what takes torch, `python -m training.process`, seen from the process that started it.

Orders go in as JSON lines and are done one after the other; JSON lines come out. The child's input stays open as long
as its parent lives: at its end the child ends too. A crash of the child is an outcome, not an accident.
"""

import contextlib
import queue
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import TextIO

import orjson

import models
from models.messages import Message

_ROOT = Path(models.__file__).parents[1]
_TERM_S = 1.0  # how long a child may take to stop in good order

StartChild = Callable[[], "Child"]


class Child:
    """A running child. `exit` is None until it has ended and its messages have all been taken."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "training.process"],
            cwd=_ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            # Ctrl-C in a terminal is for the parent alone, which stops it in good order. Not a session of its own:
            # Linux shares the processor out among sessions first, and the child's niceness would count for nothing.
            process_group=0,
        )
        assert self._process.stdout is not None
        self._messages: queue.Queue[Message | None] = queue.Queue()
        self._reader = threading.Thread(target=self._read, args=(self._process.stdout,), daemon=True)
        self._reader.start()
        self.exit: int | None = None

    def send(self, order: Message) -> None:
        """Give an order. One that finds the child dead already is lost: its exit says so."""
        assert self._process.stdin is not None
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.write(orjson.dumps(order).decode() + "\n")
            self._process.stdin.flush()

    def ask(self, order: Message, timeout_s: float) -> Message | None:
        """The last word on an order; None where there was none in time, or the child died."""
        self.send(order)
        answers = self.messages(timeout_s)
        return answers[-1] if answers else None

    def messages(self, timeout_s: float) -> list[Message]:
        """What came since the last call, waiting at most `timeout_s` for the first."""
        taken: list[Message] = []
        with contextlib.suppress(queue.Empty):
            message = self._messages.get(timeout=timeout_s)
            while message is not None:
                taken.append(message)
                message = self._messages.get_nowait()
            self.exit = self._process.wait()
        return taken

    def stop(self) -> None:
        """End it: asked first, then killed. What it had written is whole or not there."""
        if self._process.poll() is None:
            self._process.terminate()
            try:
                self._process.wait(_TERM_S)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
        self._reader.join()
        assert self._process.stdin is not None
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.close()

    def _read(self, stream: TextIO) -> None:
        with stream:
            for line in stream:
                self._messages.put(orjson.loads(line))
        self._messages.put(None)
