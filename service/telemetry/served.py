"""Observers of predictions: each request that has ended is shown to them, after its answer was handed to the client.

Capture, drift counts and trials are observers. They are called on the event loop and must return within microseconds:
longer work belongs in a bounded queue.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from numpy.typing import NDArray

from models.coding import Given
from models.samples import Batch
from models.spec import Prediction
from service.telemetry.ids import prediction_id

log = logging.getLogger(__name__)
KEY = b"x-prediction-key"
PARENT = b"traceparent"
_CAPTURE = b"x-capture"
_JOINED = (_CAPTURE, PARENT)


def by_name(raw: Sequence[tuple[bytes, bytes]]) -> dict[bytes, bytes]:
    """Return headers by their names, which are lower-case: of a repeated name the last one, but of X-Capture and
    traceparent all, separated by commas (RFC 9110, section 5.3), since one "no" counts and two parents are invalid.
    """
    found = dict(raw)
    if len(found) < len(raw):
        for name in _JOINED:
            if name in found:
                found[name] = b",".join(value for other, value in raw if other == name)
    return found


def may_be_kept(headers: Mapping[bytes, bytes]) -> bool:
    """Return whether the caller lets the service keep the samples of a request: not with `X-Capture: no`."""
    value = headers.get(_CAPTURE)
    return value is None or b"no" not in (word.strip().lower() for word in value.split(b","))


@dataclass(slots=True, kw_only=True, eq=False)
class Served:
    """A prediction request that has ended after its body was decoded. Not to be changed; frozen costs 2 µs a request.

    `samples` are the k good samples as the network got them, (k, ...) or named columns, and `values` the k answers;
    `positions` are the positions of the good samples in the body. With an `error`, there are no values, and the version
    is that of the lane, None for the live one. `entries` are the good samples as they were checked, before `preprocess`
    or `encode`. `describe`, `backend` and `form` (numeric) are those of a version that the lane pinned: others are
    described by the spec. `arrived` is the time of the request, in seconds of `time.perf_counter`.
    `by_number`: the request named its version. `decoded_for` decodes the body again for another loaded version, whose
    `encode` may give other samples; it is to be run off the event loop.
    """

    route: str  # such as /predict/{model}
    model: str
    stem: str
    version: int | None
    headers: Mapping[bytes, bytes]  # by lower-case name
    media_type: str
    body: bytes  # as it came, without its content coding
    samples: Batch
    positions: range | list[int]
    values: Batch | None
    error: Exception | None
    batch_size: int  # samples that were computed together
    queue_s: float
    forward_s: float
    total_s: float
    entries: NDArray[Any] | Sequence[Given] = ()
    describe: Callable[[Any], Sequence[Prediction]] | None = None
    backend: str | None = None
    form: str | None = None
    arrived: float = 0.0
    by_number: bool = False
    decoded_for: Callable[[Any], Awaitable[Any]] | None = None

    @property
    def id(self) -> str | None:
        """The id of the prediction; None if no version answered."""
        return None if self.version is None else prediction_id(self.stem, self.version)

    @property
    def key(self) -> str | None:
        """The caller's own key of the prediction, from X-Prediction-Key."""
        key = self.headers.get(KEY)
        return None if key is None else key.decode("latin-1")


class Observer(Protocol):
    """See the module."""

    def wants(self, headers: Mapping[bytes, bytes], stem: str, size: int | None) -> bool:
        """Whether to be shown a request, asked before it is computed: a request that none wants costs nothing more.

        `size` is its number of good samples; None if the body is not decoded yet, or the request names its version.
        Raises nothing.
        """
        ...

    def ended(self, served: Served) -> None:
        """Take note of a request. Raises nothing."""
        ...


class Observers:
    """The observers of each model, called in the turn of the event loop after the answer. For the event loop."""

    def __init__(self) -> None:
        self._observers: dict[str, tuple[Observer, ...]] = {}
        self._ended: list[tuple[Served, Sequence[Observer]]] = []

    def __bool__(self) -> bool:
        """Whether any model has an observer."""
        return bool(self._observers)

    def interested(
        self, model: str, headers: Mapping[bytes, bytes], stem: str, size: int | None = None
    ) -> Sequence[Observer]:
        """Return the observers of a model that want to be shown a request, see Observer.wants."""
        found = self._observers.get(model, ())
        return [observer for observer in found if observer.wants(headers, stem, size)] if found else found

    def add(self, model: str, observer: Observer) -> None:
        """Show the requests of a model to an observer from now on; adding it twice is adding it once."""
        if observer not in (found := self._observers.get(model, ())):
            self._observers[model] = (*found, observer)

    def remove(self, model: str, observer: Observer) -> None:
        """Show it no more requests of a model."""
        left = tuple(one for one in self._observers.pop(model, ()) if one is not observer)
        if left:
            self._observers[model] = left

    def show(self, served: Served, observers: Sequence[Observer]) -> None:
        """Show a request to observers, soon."""
        if not self._ended:
            asyncio.get_running_loop().call_soon(self._show)
        self._ended.append((served, observers))

    def _show(self) -> None:
        ended, self._ended = self._ended, []
        for served, observers in ended:
            for observer in observers:
                try:
                    observer.ended(served)
                except Exception:  # no observer may keep the others from seeing a request
                    log.exception("a prediction was not observed", extra={"model": served.model})
