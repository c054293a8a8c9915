"""POST /predict/{model}. Reads the raw request and writes bytes: typed machinery would cost more than all the rest."""

import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from io import BytesIO
from typing import NamedTuple

import numpy as np
import orjson
from starlette.datastructures import QueryParams
from starlette.requests import ClientDisconnect
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from models.spec import InvalidInput, ModelSpec
from service.admission import Admission
from service.batcher import Answer, Batcher
from service.bodies import JSON, NPY, BodyReader, Samples, header
from service.engine import Loaded
from service.errors import Invalid, NotFound, ServiceError, require_model
from service.metrics import Metrics
from service.problems import NOT_FINITE, in_order, internal_error, of_invalid_input, of_service_error
from service.protocol import Reply, reply_of
from service.stages import STAGES

PREFIX = "/predict/"
_TIMING = ", ".join(f"{stage};dur=%.3f" for stage in STAGES).encode()  # milliseconds
_JSON_TYPE, _NPY_TYPE = JSON.encode(), NPY.encode()


class Lane(NamedTuple):
    """Whose queue a request waits in: the live version's, or that of one version asked for by number."""

    model: str
    pinned: Loaded | None


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Pipeline:
    """What every prediction goes through, whatever route it comes by."""

    bodies: BodyReader
    admission: Admission
    batcher: Batcher
    metrics: Metrics
    timeout_s: float


@dataclass(slots=True, eq=False)
class Asked:
    """One request to a model, and when which part of it was done."""

    model: str
    spec: ModelSpec
    wants_npy: bool
    arrived: float = field(default_factory=time.perf_counter)
    decoded: float = 0.0

    def answer(self, samples: Samples, answer: Answer, metrics: Metrics) -> Reply:
        """The reply, counted. Raises InvalidInput."""
        write = _npy if self.wants_npy else _json
        content, media_type = write(self.model, self.spec, samples, answer)
        decode_s, total_s = self.decoded - self.arrived, time.perf_counter() - self.arrived
        spent_s = (decode_s, answer.queue_s, answer.forward_s, total_s)
        metrics.stages(self.model, spent_s)
        headers = [
            (b"content-type", media_type),
            (b"content-length", b"%d" % len(content)),
            (b"x-model-version", b"%d" % answer.version),
            (b"server-timing", _TIMING % tuple(seconds * 1000 for seconds in spent_s)),
        ]
        metrics.request(self.model, 200)
        return 200, headers, content

    def refuse(self, err: ServiceError | InvalidInput, metrics: Metrics) -> Reply:
        """The reply to what failed so, counted."""
        return self._whole(of_service_error(err) if isinstance(err, ServiceError) else of_invalid_input(err), metrics)

    def fail(self, metrics: Metrics) -> Reply:
        """The reply to what failed as nobody foresaw, counted."""
        return self._whole(internal_error(), metrics)

    def _whole(self, response: Response, metrics: Metrics) -> Reply:
        metrics.request(self.model, response.status_code)
        return reply_of(response)


def wants_npy(accept: bytes) -> bool:
    """By the Accept header."""
    return _NPY_TYPE in accept


class PredictRoute:
    """The endpoint, with what it needs: an ASGI application."""

    def __init__(
        self,
        specs: Mapping[str, ModelSpec],
        pipeline: Pipeline,
        pinned: Callable[[str, int], Awaitable[Loaded]],
    ) -> None:
        self._specs = specs
        self._through = pipeline
        self._pinned = pinned

    def routes(self) -> list[Route]:
        """What to mount."""
        return [Route(f"{PREFIX}{{model}}", self, methods=["POST"], name="predict")]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """The whole life of one request; every outcome of a known model is counted."""
        name = scope["path"].removeprefix(PREFIX)
        try:
            require_model(name, self._specs)
        except ServiceError as err:
            await of_service_error(err)(scope, receive, send)
            return
        asked = Asked(name, self._specs[name], wants_npy(header(scope, b"accept")))
        try:
            status, headers, content = await self._predict(scope, receive, asked)
        except ClientDisconnect:
            return
        except (ServiceError, InvalidInput) as err:
            status, headers, content = asked.refuse(err, self._through.metrics)
        except Exception:
            self._through.metrics.request(name, 500)
            raise
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": content})

    async def _predict(self, scope: Scope, receive: Receive, asked: Asked) -> Reply:
        through = self._through
        lane = await self._lane(asked.model, scope["query_string"])
        decode = through.bodies.samples_of(scope, asked.spec)
        body = await through.bodies.read(scope, receive)
        with through.admission:
            samples = await decode(body)
            asked.decoded = time.perf_counter()
            answer = await through.batcher.submit(lane, samples.good, through.timeout_s)
        return asked.answer(samples, answer, through.metrics)

    async def _lane(self, name: str, query: bytes) -> Lane:
        """The live version's lane, or that of the one in `?version=`."""
        asked = _version(name, QueryParams(query).get("version")) if query else None
        return Lane(name, None if asked is None else await self._pinned(name, asked))


def _version(model: str, asked: str | None) -> int | None:
    """`?version=` -> a version number, or None for the live one."""
    if asked is None:
        return None
    if not (asked.isascii() and asked.isdecimal()):
        raise Invalid(f"version must be a whole number, not {asked[:40]!r}")
    if len(asked) > 9:
        raise NotFound(f"{model} has no version {asked[:40]}")
    return int(asked)


def _json(name: str, spec: ModelSpec, samples: Samples, answer: Answer) -> tuple[bytes, bytes]:
    """Predictions in the order of the body's samples; what failed has its error in its place."""
    finite = None if answer.finite else np.all(np.isfinite(answer.values), axis=1)
    predictions = in_order(spec.describe(answer.values), samples.errors, finite)
    body = {"model": name, "version": answer.version, "predictions": predictions}
    return orjson.dumps(body, option=orjson.OPT_SERIALIZE_NUMPY), _JSON_TYPE


def _npy(_: str, __: ModelSpec, samples: Samples, answer: Answer) -> tuple[bytes, bytes]:
    """Values (N, k) float32. An array has no place for errors, so one bad sample fails the request."""
    if samples.errors:
        position = min(samples.errors)
        error = samples.errors[position]
        raise InvalidInput(error.title, f"sample {position}: {error.detail}. Ask for JSON to get the others' answers")
    if not (answer.finite or np.isfinite(answer.values).all()):
        raise NOT_FINITE
    file = BytesIO()
    np.save(file, np.ascontiguousarray(answer.values), allow_pickle=False)
    return file.getvalue(), _NPY_TYPE
