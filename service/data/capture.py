"""Capture: answered samples are written to the database, off the path of requests.

The event loop only draws requests and queues them; a thread writes them, at most 200 rows in a transaction, and removes
what retention does not keep. The queue is bounded: while the database is away, what does not fit is dropped and
counted, and no request waits.
"""

import asyncio
import contextlib
import logging
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from models.checkpoints.code import code_digest
from models.spec import ModelSpec
from service.data.capture_retention import MOST_AT_ONCE, CaptureRetention
from service.data.capture_rows import Origin, Row, rows_of
from service.data.capture_settings import CaptureSettings, Kept
from service.data.captures import Captures
from service.data.erasure import Erasure
from service.data.sampled import Count, FormOf, Originals, Sampled, Sampler, Waiting
from service.data.turns import GAP_S
from service.errors import StoreUnavailable
from service.store.database import Store
from service.telemetry.served import Observers

log = logging.getLogger(__name__)
MOST_ROWS = 200  # in one transaction: 1,000 hold the lock of SQLite for 44 ms
TICK_S = 0.5  # between looks at the queue
_FEW_ROWS = 25  # cost as much as the transaction that writes them; they are written at the next look
LATEST_S = 2.0  # for which more rows than that wait for others, until a transaction is full
POLL_S = 1.0  # between looks at the settings
_AT_ONCE = 5  # rows between pauses, which give way to the event loop; of 0 s while more than one transaction waits
_RETENTION_S = 5.0
_RETRY_S = 1.0  # after the database was away
_LAST_S = 2.0  # for which the end waits for the queue


@dataclass(frozen=True, slots=True)
class _Batch:
    """Requests that were taken from the queue, and their rows."""

    taken: Sequence[Sampled]
    rows: Sequence[Row]


class CaptureWriter:
    """Writes the queued samples. For one thread."""

    def __init__(
        self,
        specs: Mapping[str, ModelSpec],
        captures: Captures,
        waiting: Waiting,
        count: Count,
        backend: Callable[[str, int], str | None] = lambda _model, _version: None,
        originals: Originals = lambda _: {},
        pause: Callable[[float], None] = time.sleep,
    ) -> None:
        """`backend` names the one that computes a version; it and `count` are called in the thread.

        `pause` is called with seconds between a few requests: it gives the interpreter's lock back to the event loop.
        """
        self._specs = specs
        self._captures = captures
        self._waiting = waiting
        self._count = count
        self._backend = backend
        self._originals = originals
        self._pause = pause
        self._codes: dict[str, str] = {}
        self._batch: _Batch | None = None  # of a transaction that failed

    @property
    def is_behind(self) -> bool:
        """Whether more samples wait, or are being written, than one transaction takes."""
        return self._waiting.load.rows > MOST_ROWS

    @property
    def may_wait(self) -> bool:
        """Whether the samples that wait are better written together with later ones."""
        return self._batch is None and _FEW_ROWS < self._waiting.load.rows < MOST_ROWS

    def write(self, now: float) -> int:
        """Write queued samples in one transaction. Returns the number of rows that were taken.

        Raises StoreUnavailable; the next call tries the same rows again.
        """
        repeat = self._batch is not None
        if self._batch is None:
            taken = self._waiting.take(MOST_ROWS)
            if not taken:
                return 0
            self._batch = _Batch(taken, self._all_rows(taken))
        batch = self._batch
        try:
            self._captures.insert(batch.rows, now, repeat=repeat)
        except StoreUnavailable:
            raise
        except Exception:  # of the edge batch
            log.exception("captures not written", extra={"rows": len(batch.rows)})
            self._tell("failed", batch.rows)
        else:
            self._tell("captured", batch.rows)
        self._batch = None
        self._waiting.release(batch.taken)
        return sum(map(len, batch.taken))

    def give_up(self) -> None:
        """Count all queued samples as dropped."""
        taken = list(self._batch.taken if self._batch else ())
        while found := self._waiting.take(MOST_ROWS):
            taken += found
        self._batch = None
        self._waiting.release(taken)
        for one in taken:
            self._count(one.model, "dropped", len(one))

    def _all_rows(self, taken: Sequence[Sampled]) -> list[Row]:
        rows: list[Row] = []
        in_a_row = _AT_ONCE
        for one in taken:
            if in_a_row >= _AT_ONCE:
                self._pause(0 if self.is_behind else GAP_S)
                in_a_row = 0
            rows += self._rows(one)
            in_a_row += len(one)
        return rows

    def _rows(self, one: Sampled) -> list[Row]:
        """Return the rows of a request; none if the model's code cannot describe its answers."""
        try:
            origin = Origin(self._code(one.model), one.backend or self._backend(one.model, one.version))
            rows = rows_of(one, self._specs[one.model], origin, self._originals(one) if one.body else {})
        except Exception:  # of the edge batch: a model author's code
            log.exception("an answer was not captured", extra={"model": one.model})
            self._count(one.model, "failed", len(one))
            return []
        if len(rows) < len(one):
            self._count(one.model, "dropped", len(one) - len(rows))
        return rows

    def _code(self, model: str) -> str:
        if model not in self._codes:
            self._codes[model] = code_digest(model, self._specs[model])
        return self._codes[model]

    def _tell(self, outcome: str, rows: Sequence[Row]) -> None:
        for model in dict.fromkeys(row["model"] for row in rows):
            self._count(model, outcome, sum(row["model"] == model for row in rows))


class Capture:
    """Follows the settings, and runs the thread while entered."""

    def __init__(
        self,
        observers: Observers,
        store: Store,
        writer: CaptureWriter,
        waiting: Waiting,
        count: Count,
        form_of: FormOf,
    ) -> None:
        self._observers = observers
        self._captures = Captures(store)
        self._erasure = Erasure(store)
        self._retention = CaptureRetention(store)
        self._writer = writer
        self._waiting = waiting
        self._count = count
        self._form_of = form_of
        self._samplers: dict[str, Sampler] = {}
        self._ending = threading.Event()
        self._thread = threading.Thread(target=self._run, name="capture", daemon=True)

    async def __aenter__(self) -> None:
        await self.follow()
        self._following = asyncio.create_task(self._follow())
        self._thread.start()

    async def __aexit__(self, *_: object) -> None:
        self._following.cancel()
        await asyncio.gather(self._following, return_exceptions=True)
        self._ending.set()
        await asyncio.to_thread(self._thread.join, _LAST_S)

    async def follow(self) -> None:
        """Read the settings, and capture by them from now on; while the database is away, by those read last."""
        with contextlib.suppress(StoreUnavailable):
            self._apply(await asyncio.to_thread(self._captures.settings))

    def _apply(self, found: Mapping[str, Kept]) -> None:
        """Observe the models that are captured, and those alone. For the event loop."""
        settings = {model: kept.settings for model, kept in found.items()}
        for model in settings.keys() | self._samplers.keys():
            wanted = settings.get(model, CaptureSettings())
            sampler = self._samplers.setdefault(model, Sampler(self._waiting, self._count, self._form_of))
            sampler.rate, sampler.originals = wanted.rate, wanted.originals
            if wanted.rate > 0:
                self._observers.add(model, sampler)
            else:
                self._observers.remove(model, sampler)

    async def _follow(self) -> None:
        while True:
            await asyncio.sleep(POLL_S)
            await self.follow()

    def _run(self) -> None:
        """Write until the end, then flush the queue."""
        due_at = written_at = -LATEST_S
        while not self._ending.wait(0 if self._writer.is_behind else TICK_S):
            try:
                if not self._writer.may_wait or time.monotonic() >= written_at + LATEST_S:
                    self._writer.write(time.time())
                    written_at = time.monotonic()
                if time.monotonic() >= due_at:
                    removed, scrubbed = self._retention.step(time.time()), self._erasure.scrub(time.time())
                    more = removed >= MOST_AT_ONCE or not scrubbed
                    due_at = time.monotonic() + (0 if more else _RETENTION_S)
            except StoreUnavailable:
                self._ending.wait(_RETRY_S)
            except Exception:  # of the edge batch
                log.exception("retention of captures failed, it is tried again")
                due_at = time.monotonic() + _RETENTION_S
        with contextlib.suppress(StoreUnavailable):
            while self._writer.write(time.time()):
                pass
        self._writer.give_up()
