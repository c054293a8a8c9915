"""Small predictions without a task of their own: from the protocol to the batcher and straight back.

By the rules of ASGI each of them takes a task, a dozen calls within each other, two writes and a turn of the event
loop more: together half as much as the forward. What is rare or large goes that way; both ways end in the same reply.
"""

import logging
import time
from collections.abc import Mapping

from starlette.responses import Response

from models.errors import InvalidInput
from models.spec import ModelSpec
from service.api.predict import PREFIX
from service.api.predictions import Asked, wants_npy
from service.errors import QueueFull, ServiceError
from service.inference.batcher import Answer
from service.inference.decoding import Samples
from service.inference.pipeline import Lane, Pipeline
from service.media_types import plain
from service.web.auth import Keyring
from service.web.problems import of_service_error
from service.web.protocol import Headers, Reply, Respond

log = logging.getLogger(__name__)
_FULL = of_service_error(QueueFull())


class Direct:
    """Says of a request, when its head has come, how it is answered. See service.protocol."""

    def __init__(self, specs: Mapping[str, ModelSpec], pipeline: Pipeline, keys: Keyring) -> None:
        self._through = pipeline
        self._keys = keys
        self._known = {f"{PREFIX}{name}".encode(): (Lane(name, None), spec) for name, spec in specs.items()}

    def at_head(self, method: bytes, target: bytes, headers: Headers) -> "Response | Exchange | None":
        """A refusal where too many wait, what answers a small request, or None: it goes the way of all others.

        Who has no key goes there, too, however often he asks: that takes no place, and is answered with 401.
        """
        path, _, query = target.partition(b"?")
        known = self._known.get(path)
        if known is None or method != b"POST":
            return None
        lane, spec = known
        found = dict(headers)
        if self._keys and not self._may_ask(path, found):
            return None
        if self._through.admission.full():
            self._through.metrics.request(lane.model, QueueFull.status)
            return _FULL
        if not (self._keys or self._may_ask(path, found)):  # not asked in a flood: it changes only what is refused with
            return None
        media_type = plain(found.get(b"content-type", b"").decode("latin-1"))
        size = None if query or len(found) < len(headers) else _size(found)
        if size is None or not self._through.bodies.takes_at_once(media_type, spec, size):
            self._through.admission.announce()
            return None
        return Exchange(self._through, lane, media_type, Asked(lane.model, spec, wants_npy(found.get(b"accept", b""))))

    def _may_ask(self, path: bytes, headers: Mapping[bytes, bytes]) -> bool:
        try:
            self._keys.check({"method": "POST", "path": path.decode()}, headers)
        except ServiceError:
            return False
        return True


class Exchange:
    """One small request: what the protocol asks to begin, and the batcher tells of the end."""

    __slots__ = ("_asked", "_lane", "_media_type", "_respond", "_samples", "_through")

    def __init__(self, through: Pipeline, lane: Lane, media_type: str, asked: Asked) -> None:
        self._through = through
        self._lane = lane
        self._media_type = media_type
        self._asked = asked
        self._respond: Respond | None = None  # while it waits for its answer
        self._samples: Samples

    def begin(self, body: bytes, respond: Respond) -> bool:
        """Decode and have computed; `respond` is called now or later. False: this takes another way."""
        through, asked = self._through, self._asked
        try:
            samples = through.bodies.at_once(self._media_type, asked.spec, body)
            if samples is None:
                return False
            asked.decoded = time.perf_counter()
            through.admission.enter()
        except (InvalidInput, ServiceError) as err:
            respond(asked.refuse(err, through.metrics))
            return True
        except Exception:  # noqa: BLE001 - on the way of all others it fails again, and is logged and answered there
            return False
        self._samples, self._respond = samples, respond
        through.batcher.enqueue(self._lane, samples.good, through.timeout_s, self)
        return True

    def abandon(self) -> None:
        """The caller has gone."""
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
        self._through.admission.leave(answered=answered)
        return respond

    def _reply(self, samples: Samples, answer: Answer) -> Reply:
        try:
            return self._asked.answer(samples, answer, self._through.metrics)
        except Exception as err:  # noqa: BLE001 - the job's edge: a recipe may raise anything, and would raise it again
            return self._refusal(err)

    def _refusal(self, err: Exception) -> Reply:
        if isinstance(err, InvalidInput | ServiceError):
            return self._asked.refuse(err, self._through.metrics)
        log.error("a prediction failed", exc_info=err, extra={"model": self._asked.model})
        return self._asked.fail(self._through.metrics)


def _size(headers: Mapping[bytes, bytes]) -> int | None:
    """How long the body is, where the head says so."""
    length = headers.get(b"content-length", b"")
    plain_number = length.isdigit() and len(length) < 9 and b"transfer-encoding" not in headers
    return int(length) if plain_number else None
