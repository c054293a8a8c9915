"""Count what versions answer, for drift, after the answer: an observer, and a thread that counts, writes and tells.

It wants at most one request of a model in ten milliseconds, and is no observer of the model in between, so that the
others cost nothing. The thread counts what has come once a second, and adds it to the database once a minute. Then it
looks whether the live versions have begun to drift, and whether those that drift still do.
"""

import asyncio
import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from models.drift.reference import DriftCounts, DriftReference, counted
from models.samples import Batch, joined
from models.spec import ModelSpec
from service.data.drift import Drift, drift_from
from service.data.drift_rows import DAY, HOUR, MINUTE_S, DriftRows, Place
from service.data.drift_states import DriftStates, Key
from service.errors import NotFound, StoreUnavailable
from service.telemetry.served import Observers, Served

PAUSE_S = 0.01  # between two requests of a model that are counted
WINDOW_S = 3600.0  # of the metrics, and of the feed
_IDLE_PAUSE_S = 1.0  # if the version that answers has no reference
EVERY_S = 1.0  # the thread counts
_MOST_BYTES = 16 * 2**20  # of samples that wait for the thread
_MOST_OF_ONE = _MOST_BYTES // 4
_MOST_PLACES = 1440  # of counts that wait for the database
log = logging.getLogger(__name__)
Live = Callable[[str], int | None]
Show = Callable[[str, Drift | None], None]


@dataclass(frozen=True, slots=True)
class _Batch:
    place: Place
    samples: Batch
    values: Batch


class _Watch:
    """Observer of one model. `pause_s` is the time until it wants another request."""

    def __init__(self, model: str, observers: Observers, take: Callable[[Served], None]) -> None:
        self._model = model
        self._observers = observers
        self._take = take
        self._over = False
        self.pause_s = PAUSE_S

    def begin(self) -> None:
        """Want the next request."""
        if not self._over:
            self._observers.add(self._model, self)

    def end(self) -> None:
        """Want no more."""
        self._over = True
        self._observers.remove(self._model, self)

    def wants(self, headers: Mapping[bytes, bytes], stem: str, size: int | None) -> bool:  # noqa: ARG002 - see Observer
        """See Observer."""
        self._observers.remove(self._model, self)
        asyncio.get_running_loop().call_later(self.pause_s, self.begin)
        return True

    def ended(self, served: Served) -> None:
        """See Observer."""
        self._take(served)


class DriftCounter:
    """See the module. `live` returns the version of a model that answers in this process, for the metrics that `show`
    sets: None for a model that has none. Enter it on the event loop.
    """

    def __init__(
        self,
        specs: Mapping[str, ModelSpec],
        observers: Observers,
        rows: DriftRows,
        states: DriftStates,
        *,
        live: Live,
        show: Show,
        keep_days: float,
        now: Callable[[], float] = time.time,
    ) -> None:
        self._specs = specs
        self.rows = rows
        self._states = states
        self._live = live
        self._show = show
        self._keep_days = keep_days
        self.now = now
        self._queue: deque[_Batch] = deque()
        self._waiting = 0  # bytes
        self._watches = {model: _Watch(model, observers, self._take) for model in specs}
        self._woken = threading.Event()
        self._ending = threading.Event()
        self._uncounted: set[tuple[str, int]] = set()  # versions without a reference, or whose features fail
        self._references: dict[tuple[str, int], DriftReference] = {}
        self._counts: dict[Place, DriftCounts] = {}
        self._shown: set[str] = set()
        self._drifting = True  # some version may, as the feed says
        self._written = self._tidied = self._minute()
        self._thread = threading.Thread(target=self._run, name="drift", daemon=True)

    async def __aenter__(self) -> None:
        for watch in self._watches.values():
            watch.begin()
        self._thread.start()

    async def __aexit__(self, *_: object) -> None:
        """Write the counts; if the database is away, they are lost."""
        for watch in self._watches.values():
            watch.end()
        self._ending.set()
        self._woken.set()
        await asyncio.to_thread(self._thread.join)

    def _take(self, served: Served) -> None:
        """Queue a request for the thread. For the event loop."""
        if served.values is None or served.version is None:
            return
        model, version = served.model, served.version
        without = (model, version) in self._uncounted
        self._watches[model].pause_s = _IDLE_PAUSE_S if without else PAUSE_S
        if without or self._waiting > _MOST_BYTES:
            return
        samples, values = served.samples, served.values
        if samples.nbytes > _MOST_OF_ONE:
            some = slice(max(1, len(samples) * _MOST_OF_ONE // samples.nbytes))
            samples, values = samples[some], values[some]
        self._waiting += samples.nbytes
        self._queue.append(_Batch(Place(model, version, self._minute()), samples, values))
        if not self._woken.is_set():
            self._woken.set()

    def _minute(self) -> int:
        return int(self.now() // MINUTE_S)

    def _run(self) -> None:
        while not self._ending.is_set():
            if not (self._counts or self._shown or self._drifting):
                self._woken.wait()
            self._ending.wait(EVERY_S)
            self._woken.clear()
            self._insist(self.step)
        self._insist(self.flush)

    def _insist(self, work: Callable[[], None]) -> None:
        try:
            work()
        except Exception:  # the thread goes on
            log.exception("drift not counted")

    def step(self) -> None:
        """Count the queued batches; once a minute, write the counts and set the metrics."""
        self._count()
        minute = self._minute()
        if minute != self._written:
            self._written = minute
            if self._write():
                self._look_after(minute)

    def flush(self) -> None:
        """Count the queued batches, and write the counts."""
        self._count()
        self._write()

    def _count(self) -> None:
        self._waiting = 0
        batches = [self._queue.popleft() for _ in range(len(self._queue))]
        by_place: dict[Place, list[_Batch]] = {}
        for batch in batches:
            by_place.setdefault(batch.place, []).append(batch)
        for place, group in by_place.items():
            key = place.model, place.version
            reference = None if key in self._uncounted else self._reference(key)
            if reference is None:
                continue
            samples, values = joined([one.samples for one in group]), joined([one.values for one in group])
            try:
                found = counted(self._specs[place.model], reference, samples, values)
            except Exception:  # a model author's code
                log.exception("drift not counted: the model's features failed", extra=_fields(key))
                self._uncounted.add(key)
                continue
            before = self._counts.get(place)
            self._counts[place] = found if before is None else before + found

    def _reference(self, key: tuple[str, int]) -> DriftReference | None:
        if key not in self._references:
            try:
                self._references[key] = self.rows.reference(*key)
            except (ValueError, NotFound) as err:
                self._uncounted.add(key)
                log.info("drift not counted: no reference", extra={**_fields(key), "reason": str(err)})
            except StoreUnavailable:
                pass  # these are lost; the next ones look again
        return self._references.get(key)

    def _write(self) -> bool:
        """Add the counts to the database. Returns False if it is away: they wait, the oldest are dropped."""
        try:
            self.rows.add(self._counts)
        except StoreUnavailable:
            oldest = sorted(self._counts, key=lambda place: place.minute)
            for place in oldest[: max(0, len(oldest) - _MOST_PLACES)]:
                del self._counts[place]
            return False
        self._counts = {}
        return True

    def _look_after(self, minute: int) -> None:
        """Set the metrics of the live versions, tell of drift, and tidy the tables once an hour."""
        try:
            models = sorted(self._shown | {model for model, _ in self._references})
            drift = {key for model in models if (key := self._show_live(model)) is not None}
            for key in sorted(drift | self._states.drifting()):
                self._states.settle(key, WINDOW_S, self.now())
            self._drifting = bool(self._states.drifting())
            if minute - self._tidied >= HOUR:
                self._tidied = minute
                self.rows.tidy(minute, self._keep_days)
                self._states.tidy(minute, int(self._keep_days * DAY))
        except StoreUnavailable:
            log.debug("drift not looked at: the store is away")

    def _show_live(self, model: str) -> Key | None:
        """Set the metrics of the live version. Returns it if it drifts."""
        version = self._live(model)
        found = None
        if version is not None and (reference := self._references.get((model, version))) is not None:
            found = drift_from(reference, self.rows, model, version, WINDOW_S, self.now())
        if found is not None and found.counts.samples:
            self._shown.add(model)
            self._show(model, found)
        elif model in self._shown:
            self._shown.discard(model)
            self._show(model, None)
        return None if version is None or found is None or found.state != "drift" else (model, version)


def _fields(key: tuple[str, int]) -> dict[str, object]:
    return {"model": key[0], "version": key[1]}
