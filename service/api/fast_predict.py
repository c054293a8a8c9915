"""Fast path of predictions: small requests go from the protocol to the batcher and back without a task.

An ASGI request costs a task, a dozen nested calls, two writes and one more turn of the event loop: together half as
much as the forward pass. Rare or large requests fall through to the ASGI routes; both give the same replies.
"""

import logging
import re
import time
from collections.abc import Callable, Mapping
from functools import partial
from typing import NamedTuple, Protocol

from models.errors import InvalidInput
from models.spec import ModelSpec
from service.api.bodies import RequestBodies
from service.api.predict import PREFIX, ROUTE
from service.api.predictions import FULL, PredictionRequest, showing, wanted
from service.errors import QueueFull, ServiceError
from service.inference.callers import Answer
from service.inference.decoding import Samples
from service.inference.engine import Loaded
from service.inference.pipeline import Canary, Lane, Pipeline, Show, Stopwatch, outcome_of
from service.telemetry.metrics import Metrics
from service.web.auth import Keyring
from service.web.exchange import Headers, Refusal, Reply, Respond

log = logging.getLogger(__name__)
Ready = Callable[[str, int], Loaded | None]  # model, version -> the version, if it is loaded
VERSION = "{version}"  # stands in a path for the number of a version
_IN_PATH = b"/versions/"
_IN_QUERY = re.compile(rb"version=([1-9][0-9]{0,8})")
_NUMBER = re.compile(rb"[1-9][0-9]{0,8}")


class Small(Protocol):
    """A request that is decoded, answered and refused without waiting for anything but the network."""

    watch: Stopwatch
    stem: str
    headers: Mapping[bytes, bytes]
    timeout_s: float | None

    def answer(self, samples: Samples, answer: Answer, metrics: Metrics) -> Reply:
        """Return the reply with predictions, and count it. Raises InvalidInput."""
        ...

    def refuse(self, err: Exception, metrics: Metrics) -> Reply:
        """Return the reply to an error, and count it."""
        ...


class Chosen(NamedTuple):
    """The version that answers a request if that is not the live one, and the trial that counts it, if there is one.

    A request that names its version is counted by none.
    """

    pinned: Loaded | None
    canary: Canary | None = None
    by_number: bool = False


class Taken(NamedTuple):
    """A small request of a route, the version that answers it, and how its body is decoded.

    `decode` returns None if the body needs a thread, and raises the errors that refuse it.
    """

    route: str
    request: Small
    version: "Chosen"
    decode: Callable[[bytes], Samples | None]


class Way(Protocol):
    """How the requests to one address, for one model, are read and answered."""

    model: str
    refusal: Refusal

    def take(self, number: int, query: bytes, headers: Mapping[bytes, bytes], size: int) -> Taken | None:
        """Take a request whose body has `size` bytes; None if it falls through to ASGI. `number`: of the version in its
        path, 0 if there is none.
        """
        ...


class FastPath:
    """Decides from a request's headers how it is answered. See `service.web.protocol`."""

    def __init__(
        self,
        ways: Mapping[str, Way],
        pipeline: Pipeline,
        keys: Keyring,
        *,
        root_path: str = "",
        cross_origin: bool = False,
    ) -> None:
        """`ways` are by their paths, which may have a VERSION.

        `root_path` is the prefix of paths that a proxy did not remove; with `cross_origin`, CORS headers are due.
        """
        self._pipeline = pipeline
        self._unloaded = pipeline.networks.unloaded
        self._keys = keys
        self._cross_origin = cross_origin
        self._known = {
            f"{prefix}{path}".encode(): (path, way) for prefix in {"", root_path} for path, way in ways.items()
        }

    def at_head(self, method: bytes, target: bytes, headers: Headers) -> "Refusal | Exchange | None":
        """Return a 429 response if the queue is full, an Exchange for a small request, or None to fall through to ASGI.

        Requests without a valid key always fall through: they get 401 and take no place in the queue.
        """
        address, _, query = target.partition(b"?")
        number = 0
        if address not in self._known:
            address, number = _without_number(address)
        known = self._known.get(address)
        if known is None or method != b"POST":
            return None
        path, way = known
        found = dict(headers)
        if (self._cross_origin and b"origin" in found) or (self._keys and not self._is_allowed(path, found)):
            return None
        if is_full(self._pipeline, way.model):
            return way.refusal
        if not (self._keys or self._is_allowed(path, found)):  # after the queue: a flood gets 429, not 403 or 421
            return None
        falls_through = len(found) < len(headers) or way.model in self._unloaded
        size = None if falls_through else _size(found)
        taken = None if size is None else way.take(number, query, found, size)
        if taken is None:
            self._pipeline.admission.announce()
            return None
        return Exchange(self._pipeline, way.model, taken)

    def _is_allowed(self, path: str, headers: Mapping[bytes, bytes]) -> bool:
        try:
            self._keys.check({"method": "POST", "path": path}, headers)
        except ServiceError:
            return False
        return True


def is_full(pipeline: Pipeline, model: str) -> bool:
    """Return whether a request for the model is refused now, and count it if so."""
    if not pipeline.admission.full():
        return False
    pipeline.metrics.request(model, QueueFull.status)
    return True


def choose(
    pipeline: Pipeline, model: str, number: int, ready: Ready, headers: Mapping[bytes, bytes], stem: str
) -> Chosen | None:
    """Return the version that answers a request; None if the one that it names, by `number`, is not loaded."""
    if number:
        pinned = ready(model, number)
        return None if pinned is None else Chosen(pinned, by_number=True)
    canary = pipeline.canaries.get(model)
    return Chosen(None if canary is None else canary.candidate_for(headers, stem), canary)


class PredictWay:
    """POST /predict/{model}."""

    def __init__(self, model: str, spec: ModelSpec, pipeline: Pipeline, bodies: RequestBodies, ready: Ready) -> None:
        self.model = model
        self.refusal = Refusal(FULL, partial(is_full, pipeline, model))
        self._spec = spec
        self._is_plain = spec.is_plain
        self._pipeline = pipeline
        self._bodies = bodies
        self._ready = ready

    def take(self, number: int, query: bytes, headers: Mapping[bytes, bytes], size: int) -> Taken | None:
        """See Way."""
        if query:
            asked = _IN_QUERY.fullmatch(query)
            number = int(asked[1]) if asked else 0
        if not self._is_plain or (query and not number):
            return None
        request = PredictionRequest(self.model, self._spec, wanted(headers.get(b"accept", b""), self._spec), headers)
        chosen = choose(self._pipeline, self.model, number, self._ready, headers, request.stem)
        if chosen is None:
            return None
        if chosen.pinned is not None:
            request.spec, request.describe = chosen.pinned.spec, chosen.pinned.describe
        content_type = headers.get(b"content-type", b"").decode("latin-1")
        decode = self._bodies.inline_decoder_for(content_type, request.spec, size)
        return None if decode is None else Taken(ROUTE, request, chosen, decode)


def predict_ways(
    specs: Mapping[str, ModelSpec], pipeline: Pipeline, bodies: RequestBodies, ready: Ready
) -> dict[str, Way]:
    """Return the ways of POST /predict/{model} by their paths."""
    return {f"{PREFIX}{name}": PredictWay(name, spec, pipeline, bodies, ready) for name, spec in specs.items()}


class Exchange:
    """One small request: the protocol begins it with the body, the batcher ends it with an answer or an error."""

    __slots__ = ("_canary", "_decode", "_lane", "_pipeline", "_request", "_respond", "_route", "_samples", "_show")

    def __init__(self, pipeline: Pipeline, model: str, taken: Taken) -> None:
        self._pipeline = pipeline
        self._route, self._request, (pinned, self._canary, by_number), self._decode = taken
        self._lane = Lane(model, pinned, by_number)
        self._respond: Respond | None = None  # set while the request is queued
        self._samples: Samples
        self._show: Show | None = None

    def begin(self, body: bytes, respond: Respond) -> bool:
        """Decode and queue the request; `respond` is called now or later. Returns False to fall through to ASGI."""
        pipeline, request = self._pipeline, self._request
        try:
            samples = self._decode(body)
            if samples is None:
                return False
            request.watch.decoded = time.perf_counter()
            pipeline.start(self._lane, samples, self, request.timeout_s)
        except (InvalidInput, ServiceError) as err:
            respond(request.refuse(err, pipeline.metrics))
            return True
        except Exception:  # noqa: BLE001 - it fails again on the ASGI route, which logs it and answers 500
            return False
        self._samples, self._respond = samples, respond
        if pipeline.observers:
            size = len(samples.good)
            about = (self._route, request.stem, self._lane, request.headers, request.watch, body)
            self._show = showing(pipeline, *about, counts=False, size=size)
        return True

    def abandon(self) -> None:
        """Drop the request: the client has disconnected."""
        if self._respond is not None:
            self._leave(answered=True)

    def done(self) -> bool:
        """See Receiver."""
        return self._respond is None

    def set_result(self, result: Answer, /) -> None:
        """See Receiver."""
        outcome: Answer | Exception = result
        try:
            reply = self._request.answer(self._samples, result, self._pipeline.metrics)
        except Exception as err:  # noqa: BLE001 - the edge batch: `describe` is a model author's code
            reply, outcome = self._refusal(err), outcome_of(result, err)
        self._leave(answered=True)(reply)
        if self._canary is not None or self._show is not None:
            self._ended(outcome)

    def set_exception(self, exception: Exception, /) -> None:
        """See Receiver."""
        self._leave(answered=not isinstance(exception, QueueFull))(self._refusal(exception))
        if self._canary is not None or self._show is not None:
            self._ended(exception)

    def _ended(self, outcome: Answer | Exception) -> None:
        request = self._request
        if self._canary is not None:
            self._canary.ended(self._lane.pinned, request.headers, request.stem, self._samples, outcome)
        if self._show is not None:
            self._show(self._samples, outcome)

    def _leave(self, *, answered: bool) -> Respond:
        respond, self._respond = self._respond, None
        assert respond
        self._pipeline.finish(answered=answered)
        return respond

    def _refusal(self, err: Exception) -> Reply:
        if not isinstance(err, InvalidInput | ServiceError):
            log.error("a prediction failed", exc_info=err, extra={"model": self._lane.model})
        return self._request.refuse(err, self._pipeline.metrics)


def _without_number(address: bytes) -> tuple[bytes, int]:
    """Return a path with VERSION in the place of a version's number, and that number; 0 if there is none."""
    before, mark, rest = address.partition(_IN_PATH)
    number, _, after = rest.partition(b"/")
    if not _NUMBER.fullmatch(number):
        return address, 0
    return b"".join([before, mark, VERSION.encode(), b"/", after]), int(number)


def _size(headers: Mapping[bytes, bytes]) -> int | None:
    """Return the declared length of the body; None if it is chunked, compressed, missing or unusual."""
    length = headers.get(b"content-length", b"")
    plain_number = length.isdigit() and len(length) < 9 and b"host" in headers
    is_coded = b"transfer-encoding" in headers or b"content-encoding" in headers
    return int(length) if plain_number and not is_coded else None
