"""Requests whose samples are to be captured: how they are drawn, and the bounded queue in which they wait.

The draw follows from the id of the request alone, so all processes agree on it and none keeps a state.
"""

import re
import threading
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from zlib import crc32

from numpy.typing import NDArray

from models.coding import Given
from models.samples import Batch, Columns
from models.spec import Prediction
from service.telemetry.ids import begun_at, prediction_id
from service.telemetry.served import Served, may_be_kept

MOST_SAMPLES = 200  # of one request: the first ones
_KEY = re.compile(r"[\x20-\x7e]{1,200}")
_GOLDEN = 0x9E3779B97F4A7C15  # 2**64 divided by the golden ratio
_PER_REQUEST = 2_048  # bytes of the objects of a request besides its samples


def is_drawn(stem: str, rate: float) -> bool:
    """Return whether the request with that stem is captured at a rate of 0 to 1.

    Each request of a captured model is asked for, so the hash is a cheap one: a checksum, spread by the golden ratio
    (Knuth, The Art of Computer Programming, volume 3, section 6.4).
    """
    return (crc32(stem.encode()) * _GOLDEN >> 32 & 0xFFFFFFFF) < rate * 2.0**32


def is_key(key: str) -> bool:
    """Return whether a text may be the key of a prediction: 1 to 200 printable ASCII characters."""
    return _KEY.fullmatch(key) is not None


@dataclass(slots=True, eq=False)
class Sampled:
    """The part of a request that is captured. See Served for its fields."""

    model: str
    id: str
    version: int
    at: float
    key: str | None
    media_type: str
    content_type: str  # with its parameters
    body: bytes  # empty unless originals are kept
    entries: NDArray[Any] | Sequence[Given]
    positions: Sequence[int]
    values: Batch
    describe: Callable[[Any], Sequence[Prediction]] | None
    backend: str | None
    form: str | None
    rate: float
    size: int  # bytes that it holds, about

    def __len__(self) -> int:
        return len(self.positions)


def sampled(
    served: Served, values: Batch, version: int, *, rate: float, originals: bool, form: str | None = None
) -> Sampled:
    """Return the part of a request with an answer that is captured. It holds no memory of other requests."""
    values = _owned(values[:MOST_SAMPLES])
    body = served.body if originals else b""
    key, headers = served.key, served.headers
    return Sampled(
        model=served.model,
        id=prediction_id(served.stem, version),
        version=version,
        at=begun_at(served.stem),
        key=key if key is not None and is_key(key) else None,
        media_type=served.media_type[:100],
        content_type=headers.get(b"content-type", b"").decode("latin-1"),
        body=body,
        entries=served.entries[:MOST_SAMPLES],
        positions=served.positions[:MOST_SAMPLES],
        values=values,
        describe=served.describe,
        backend=served.backend,
        form=form,
        rate=rate,
        size=_PER_REQUEST + len(body) + served.samples.nbytes + values.nbytes,
    )


def _owned(values: Batch) -> Batch:
    """Copy values out of the batch that they were computed in, which may be much larger."""
    if not isinstance(values, Columns):
        return values.copy()
    columns = values.arrays.items()
    return Columns(
        {name: [row.copy() for row in one] if isinstance(one, list) else one.copy() for name, one in columns}
    )


@dataclass(slots=True)
class Load:
    """Size of the queue: samples, and the bytes of their requests."""

    rows: int = 0
    bytes: int = 0


class Waiting:
    """Bounded FIFO between the event loop and the thread that writes. Taken samples count until they are released."""

    def __init__(self, most_rows: int = 10_000, most_bytes: int = 64 * 2**20) -> None:
        self._most = Load(most_rows, most_bytes)
        self._load = Load()
        self._queue: deque[Sampled] = deque()
        self._changing = threading.Lock()

    @property
    def load(self) -> Load:
        """Return the size of the queue, with taken samples that are not released."""
        return self._load

    def put(self, one: Sampled) -> bool:
        """Append a request; False if there is no room for it."""
        with self._changing:
            load = Load(self._load.rows + len(one), self._load.bytes + one.size)
            if load.rows > self._most.rows or load.bytes > self._most.bytes:
                return False
            self._load = load
            self._queue.append(one)
            return True

    def take(self, most_rows: int) -> list[Sampled]:
        """Remove the first requests, of at most that many samples, but at least one request."""
        found: list[Sampled] = []
        rows = 0
        with self._changing:
            while self._queue and (not found or rows + len(self._queue[0]) <= most_rows):
                found.append(self._queue.popleft())
                rows += len(found[-1])
        return found

    def release(self, taken: Sequence[Sampled]) -> None:
        """Free the room of requests that were taken."""
        with self._changing:
            rows, size = sum(map(len, taken)), sum(one.size for one in taken)
            self._load = Load(self._load.rows - rows, self._load.bytes - size)


Count = Callable[[str, str, int], None]  # model, outcome (captured, dropped, failed), samples
FormOf = Callable[[Served], str | None]  # numeric form that computed a request


class Sampler:
    """Observer of one model: draws requests, and puts them into the queue. For the event loop.

    `form_of` is asked for drawn requests only, and at once: a version may change its forms.
    """

    def __init__(self, waiting: Waiting, count: Count, form_of: FormOf = lambda served: served.form) -> None:
        self._waiting = waiting
        self._count = count
        self._form_of = form_of
        self.rate = 0.0
        self.originals = False

    def wants(self, headers: Mapping[bytes, bytes], stem: str, size: int | None) -> bool:  # noqa: ARG002 - see Observer
        """See Observer."""
        return is_drawn(stem, self.rate) and may_be_kept(headers)

    def ended(self, served: Served) -> None:
        """See Observer."""
        values, version = served.values, served.version
        if values is None or version is None:
            return
        form = self._form_of(served)
        one = sampled(served, values, version, rate=self.rate, originals=self.originals, form=form)
        kept = len(one) if self._waiting.put(one) else 0
        if kept < len(values):
            self._count(served.model, "dropped", len(values) - kept)


Originals = Callable[[Sampled], Mapping[int, bytes]]  # the picture files of a body, by the position of their sample
