"""Count of the calls that an event loop makes in one turn: a bound on the time for which it stands still.

Unlike that time it does not depend on the machine or its load.
"""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any


class Turns:
    """Calls, of Python and C functions, between two waits for input of a thread that runs an event loop."""

    def __init__(self) -> None:
        self._now: dict[int, int] = {}  # by thread: calls since it last waited
        self._loops: set[int] = set()  # threads that have waited: the others run no event loop
        self._most = 0

    def profile(self, _: FrameType, event: str, called: Any) -> None:
        """For threading.setprofile."""
        thread = threading.get_ident()
        if event == "c_call" and getattr(called, "__name__", "") in {"poll", "select"}:
            self._most = max(self._most, self._now.get(thread, 0))
            self._loops.add(thread)
            self._now[thread] = 0
        elif event in {"call", "c_call"}:
            self._now[thread] = self._now.get(thread, 0) + 1

    def taken(self) -> int:
        """Return the most calls in one turn since the last call of this method, turns that have not ended included."""
        most, self._most = max(self._most, *(self._now[loop] for loop in self._loops), 0), 0
        return most


@contextmanager
def counting() -> Iterator[Turns]:
    """Count in the threads that are started meanwhile."""
    turns = Turns()
    threading.setprofile(turns.profile)
    try:
        yield turns
    finally:
        threading.setprofile(None)
