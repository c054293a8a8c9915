"""Fast path of POST /predict/{model}: small requests go from the protocol to the batcher and back without a task.

An ASGI request costs a task, a dozen nested calls, two writes and one more turn of the event loop: together half as
much as the forward pass. Rare or large requests fall through to the ASGI route; both give the same replies.
"""

import logging
import time
from collections.abc import Mapping

from starlette.responses import Response

from models.errors import InvalidInput
from models.spec import ModelSpec
from service.api.predict import PREFIX
from service.api.predictions import PredictionRequest, wanted
from service.errors import QueueFull, ServiceError
from service.inference.batcher import Answer
from service.inference.decoding import Samples
from service.inference.pipeline import Lane, Pipeline
from service.media_types import plain
from service.web import problems
from service.web.auth import Keyring
from service.web.exchange import Headers, Reply, Respond

log = logging.getLogger(__name__)
_FULL = problems.of(QueueFull())


class FastPath:
    """Decides from a request's headers how it is answered. See `service.web.protocol`."""

    def __init__(
        self,
        specs: Mapping[str, ModelSpec],
        pipeline: Pipeline,
        keys: Keyring,
        max_bytes: int,
        *,
        root_path: str = "",
        cross_origin: bool = False,
    ) -> None:
        """`root_path` is the prefix of paths that a proxy did not remove; with `cross_origin`, CORS headers are due."""
        self._pipeline = pipeline
        self._unloaded = pipeline.networks.unloaded
        self._keys = keys
        self._max_bytes = max_bytes
        self._cross_origin = cross_origin
        self._known = {
            f"{prefix}{PREFIX}{name}".encode(): (Lane(name, None), spec)
            for prefix in {"", root_path}
            for name, spec in specs.items()
            if spec.is_plain
        }

    def at_head(self, method: bytes, target: bytes, headers: Headers) -> "Response | Exchange | None":
        """Return a 429 response if the queue is full, an Exchange for a small request, or None to fall through to ASGI.

        Requests without a valid key always fall through: they get 401 and take no place in the queue.
        """
        path, _, query = target.partition(b"?")
        known = self._known.get(path)
        if known is None or method != b"POST":
            return None
        lane, spec = known
        found = dict(headers)
        if (self._cross_origin and b"origin" in found) or (self._keys and not self._is_allowed(lane.model, found)):
            return None
        if self._pipeline.admission.full():
            self._pipeline.metrics.request(lane.model, QueueFull.status)
            return _FULL
        if not (self._keys or self._is_allowed(lane.model, found)):  # after the queue: a flood gets 429, not 403 or 421
            return None
        media_type = plain(found.get(b"content-type", b"").decode("latin-1"))
        falls_through = query or len(found) < len(headers) or lane.model in self._unloaded
        size = None if falls_through else _size(found)
        if size is None or size > self._max_bytes or not self._pipeline.decoder.decodes_inline(media_type, spec, size):
            self._pipeline.admission.announce()
            return None
        request = PredictionRequest(lane.model, spec, wanted(found.get(b"accept", b""), spec))
        return Exchange(self._pipeline, lane, media_type, request)

    def _is_allowed(self, model: str, headers: Mapping[bytes, bytes]) -> bool:
        try:
            self._keys.check({"method": "POST", "path": PREFIX + model}, headers)
        except ServiceError:
            return False
        return True


class Exchange:
    """One small request: the protocol begins it with the body, the batcher ends it with an answer or an error."""

    __slots__ = ("_lane", "_media_type", "_pipeline", "_request", "_respond", "_samples")

    def __init__(self, pipeline: Pipeline, lane: Lane, media_type: str, request: PredictionRequest) -> None:
        self._pipeline = pipeline
        self._lane = lane
        self._media_type = media_type
        self._request = request
        self._respond: Respond | None = None  # set while the request is queued
        self._samples: Samples

    def begin(self, body: bytes, respond: Respond) -> bool:
        """Decode and queue the request; `respond` is called now or later. Returns False to fall through to ASGI."""
        pipeline, request = self._pipeline, self._request
        try:
            samples = pipeline.decoder.decode_inline(self._media_type, request.spec, body)
            if samples is None:
                return False
            request.watch.decoded = time.perf_counter()
            pipeline.start(self._lane, samples, self)
        except (InvalidInput, ServiceError) as err:
            respond(request.refuse(err, pipeline.metrics))
            return True
        except Exception:  # noqa: BLE001 - it fails again on the ASGI route, which logs it and answers 500
            return False
        self._samples, self._respond = samples, respond
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
        self._leave(answered=True)(self._reply(self._samples, result))

    def set_exception(self, exception: Exception, /) -> None:
        """See Receiver."""
        self._leave(answered=not isinstance(exception, QueueFull))(self._refusal(exception))

    def _leave(self, *, answered: bool) -> Respond:
        respond, self._respond = self._respond, None
        assert respond
        self._pipeline.finish(answered=answered)
        return respond

    def _reply(self, samples: Samples, answer: Answer) -> Reply:
        try:
            return self._request.answer(samples, answer, self._pipeline.metrics)
        except Exception as err:  # noqa: BLE001 - the edge: `describe` is a model author's code
            return self._refusal(err)

    def _refusal(self, err: Exception) -> Reply:
        if not isinstance(err, InvalidInput | ServiceError):
            log.error("a prediction failed", exc_info=err, extra={"model": self._request.model})
        return self._request.refuse(err, self._pipeline.metrics)


def _size(headers: Mapping[bytes, bytes]) -> int | None:
    """Return the declared length of the body; None if it is chunked, compressed, missing or unusual."""
    length = headers.get(b"content-length", b"")
    plain_number = length.isdigit() and len(length) < 9 and b"host" in headers
    is_coded = b"transfer-encoding" in headers or b"content-encoding" in headers
    return int(length) if plain_number and not is_coded else None
