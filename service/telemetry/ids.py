"""Ids of predictions: time, process, counter and version, so that an id alone says which version answered.

`0199d2c4f1a-5f3a9c1d-2b-4` was begun 0x0199d2c4f1a ms after 1970 (UTC) by process 5f3a9c1d, as its 0x2b-th request, and
version 4 answered. The part before the version is known before any version is chosen: it is the request's stem.
"""

import math
import os
import re
import secrets
import time
from collections.abc import Callable
from itertools import count

_ID = re.compile(r"[0-9a-f]{11}-[0-9a-f]{8}-[0-9a-f]{1,12}-([1-9][0-9]{0,9})")


class Stems:
    """Stems of the requests of one process. `now` returns nanoseconds since 1970."""

    def __init__(self, now: Callable[[], int] = time.time_ns) -> None:
        self._now = now
        self.renew()

    def renew(self) -> None:
        """Take another process part: for a process that was forked from this one."""
        self._process = secrets.token_hex(4)
        self._counter = count(1)

    def next(self) -> str:
        """Return a new stem."""
        return f"{self._now() // 1_000_000:011x}-{self._process}-{next(self._counter):x}"


_STEMS = Stems()
os.register_at_fork(after_in_child=_STEMS.renew)
next_stem = _STEMS.next


def prediction_id(stem: str, version: int) -> str:
    """Return the id of a prediction that `version` computed."""
    return f"{stem}-{version}"


def version_of(prediction: str) -> int | None:
    """Return the version in the id of a prediction; None if it is no such id."""
    found = _ID.fullmatch(prediction)
    return int(found[1]) if found else None


def stem_of(prediction: str) -> str:
    """Return the stem in the id of a prediction."""
    return prediction.rpartition("-")[0]


def begun_at(prediction: str) -> float:
    """Return when the request of a prediction began, in seconds since 1970. The id must be a valid one."""
    return int(prediction[:11], 16) / 1000


def least_from(at: float) -> str:
    """Return the text above the ids of all predictions that began before a time, and below those of the others."""
    return f"{math.ceil(at * 1000):011x}"
