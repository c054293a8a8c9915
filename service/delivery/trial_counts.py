"""Counters of open trials in one web process: counted in memory, written each second in one transaction.

A row has the counts of one minute, and is written again while they change: what was lost while the database was away,
or may have been, is in the next write.
"""

import asyncio
import logging
import secrets
import threading
import time
from bisect import bisect_left
from collections.abc import Callable
from dataclasses import dataclass

from service.delivery.count_rows import (
    MOST_DIFFERENCES,
    MOST_KEYS,
    Key,
    Minute,
    Place,
    write_counts,
    write_differences,
    write_keys,
)
from service.delivery.trials import Counts, Difference
from service.errors import StoreUnavailable
from service.store.database import Store
from service.telemetry.metrics import SECONDS

log = logging.getLogger(__name__)
_EVERY_S = 1.0
_SETTLED_S = 5.0  # after a row has ended, requests of its minute may still change it
_WAITING = 200  # differences that wait to be written


class Tally:
    """Counters of one arm in one minute. Each of them is changed by one thread only."""

    __slots__ = ("agreed", "differed", "dropped", "errors", "latency", "not_finite", "requests", "samples")

    def __init__(self) -> None:
        """Begin with zero."""
        self.requests = self.samples = self.errors = self.not_finite = 0
        self.dropped = self.agreed = self.differed = 0
        self.latency = [0] * (len(SECONDS) + 1)

    def answered(self, samples: int, seconds: float) -> None:
        """Count a request that was answered."""
        self.requests += 1
        self.samples += samples
        self.latency[bisect_left(SECONDS, seconds)] += 1

    def counts(self) -> Counts:
        """Return the counts until now."""
        return Counts(
            requests=self.requests,
            samples=self.samples,
            errors=self.errors,
            not_finite=self.not_finite,
            dropped=self.dropped,
            agreed=self.agreed,
            differed=self.differed,
            latency=tuple(self.latency),
        )


_NOTHING = Tally().counts()


@dataclass(slots=True, eq=False)
class _Row:
    process: str
    place: Place
    minute: int
    tally: Tally
    written: Counts
    ended_at: float | None = None

    @property
    def is_written(self) -> bool:
        """Whether the database has a row of it."""
        return self.written != _NOTHING


class TrialCounts:
    """Counts of this process for trials. A task writes them.

    While the database is away, requests are counted under the minute that was not written; keys and differences are
    kept up to a limit.
    """

    def __init__(self, store: Store, now: Callable[[], float] = time.time) -> None:
        """`now` returns seconds since 1970."""
        self._process = secrets.token_hex(8)
        self._newest = 0  # minute that was counted
        self._store = store
        self._now = now
        self._one = threading.Lock()  # writes at a time
        self._turn = threading.Lock()  # of the collections below; counting itself takes none
        self._rows: dict[Place, _Row] = {}
        self._ended: list[_Row] = []
        self._keys: dict[tuple[str, int], set[Key]] = {}  # by trial and stage
        self._new_keys: list[Key] = []
        self._differences: list[tuple[str, Difference]] = []
        self._noted: dict[str, int] = {}  # differences, by trial
        self._is_away = False

    def start(self) -> None:
        """Begin to write every second."""
        self._writing = asyncio.create_task(self._run())

    async def stop(self) -> None:
        """Write for the last time."""
        self._writing.cancel()
        await asyncio.gather(self._writing, return_exceptions=True)
        await asyncio.to_thread(self.write)

    def tally(self, place: Place) -> Tally:
        """Return the counters of an arm, to be asked for again after `turn_over`."""
        with self._turn:
            if place not in self._rows:
                minute = self._minute()
                for row in self._ended:  # that of a trial that has just ended
                    if (row.process, row.place, row.minute) == (self._process, place, minute):
                        return row.tally
                self._rows[place] = _Row(self._process, place, minute, Tally(), _NOTHING)
            return self._rows[place].tally

    def turn_over(self) -> bool:
        """End the rows of past minutes that were written. Returns whether there were any."""
        with self._turn:
            minute = self._minute()
            return self._end([row for row in self._rows.values() if row.is_written and row.minute != minute])

    def forget(self, trial: str) -> None:
        """Count no more for a trial that has ended. Earlier counts are still written."""
        with self._turn:
            self._end([row for place, row in self._rows.items() if place.trial == trial])
            self._noted.pop(trial, None)
            for place in [place for place in self._keys if place[0] == trial]:
                del self._keys[place]

    def erred(self, place: Place, key: int) -> None:
        """Note a key that had an error. For any thread."""
        found = Key(place.trial, place.stage, key, place.arm)
        with self._turn:
            known = self._keys.setdefault((place.trial, place.stage), set())
            if found not in known and len(known) < MOST_KEYS:
                known.add(found)
                self._new_keys.append(found)

    def wants_difference(self, trial: str) -> bool:
        """Return whether another difference would be noted."""
        return self._noted.get(trial, 0) < MOST_DIFFERENCES and len(self._differences) < _WAITING

    def differed(self, trial: str, difference: Difference) -> None:
        """Note a sample that was answered differently, unless there are enough. For any thread."""
        with self._turn:
            if self.wants_difference(trial):
                self._noted[trial] = self._noted.get(trial, 0) + 1
                self._differences.append((trial, difference))

    def write(self) -> bool:
        """Write the counts that have changed since the last write. Returns whether the database has it. Blocks."""
        with self._one:
            return self._write()

    def _write(self) -> bool:
        with self._turn:
            rows, keys, differences = [*self._ended, *self._rows.values()], [*self._new_keys], [*self._differences]
        changed = [(row, counts) for row in rows if (counts := row.tally.counts()) not in {row.written, _NOTHING}]
        if changed or keys or differences:
            try:
                with self._store.beat(int(self._process[:15], 16)) as connection:
                    write_counts(connection, [Minute(row.process, row.place, row.minute, to) for row, to in changed])
                    write_keys(connection, keys)
                    write_differences(connection, differences)
            except StoreUnavailable as err:
                if not self._is_away:
                    log.warning("counts of trials kept in memory", extra={"reason": err.detail})
                self._is_away = True
                return False
        self._is_away = False
        with self._turn:
            for row, counts in changed:
                row.written = counts
            del self._new_keys[: len(keys)], self._differences[: len(differences)]
            self._ended = [row for row in self._ended if not self._is_settled(row)]
        return True

    async def _run(self) -> None:
        while True:
            await asyncio.sleep(_EVERY_S)
            try:
                await asyncio.to_thread(self.write)
            except Exception:  # of the edge rollout
                log.exception("counts of trials not written, it is tried again")

    def _minute(self) -> int:
        """Return the minute since 1970. If the clock was set back, count as another process from now on: this one's
        rows of these minutes are written, and would be written over.
        """
        minute = int(self._now() // 60)
        if minute < self._newest:
            self._process = secrets.token_hex(8)
        self._newest = minute
        return minute

    def _end(self, rows: list[_Row]) -> bool:
        """End rows: their counters are not counted in any more, but for requests in progress."""
        for row in rows:
            del self._rows[row.place]
            row.ended_at = self._now()
        self._ended += rows
        return bool(rows)

    def _is_settled(self, row: _Row) -> bool:
        assert row.ended_at is not None
        return row.tally.counts() == row.written and abs(self._now() - row.ended_at) > _SETTLED_S
