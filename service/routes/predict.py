"""POST /predict/{model}. Reads the raw request and writes bytes: typed machinery would cost more than all the rest."""

import time
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from io import BytesIO

import numpy as np
import orjson
from starlette.datastructures import QueryParams
from starlette.requests import ClientDisconnect
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from models.spec import InvalidInput, ModelSpec
from service.admission import Admission
from service.batcher import Answer, Batcher
from service.bodies import JSON, NPY, BodyReader, Samples, header
from service.engine import Loaded
from service.errors import Invalid, NotFound, QueueFull, ServiceError, require_model
from service.keys import Keyring
from service.metrics import Metrics
from service.problems import NOT_FINITE, in_order, of_invalid_input, of_service_error

PREFIX = "/predict/"
_FULL = of_service_error(QueueFull())
_Answer = tuple[int, list[tuple[bytes, bytes]], bytes]  # status, headers, body


@dataclass(frozen=True, slots=True)
class Lane:
    """Whose queue a request waits in: the live version's, or that of one version asked for by number."""

    model: str
    pinned: Loaded | None


class PredictRoute:
    """The endpoint, with what it needs: an ASGI application."""

    def __init__(
        self,
        specs: Mapping[str, ModelSpec],
        bodies: BodyReader,
        admission: Admission,
        batcher: Batcher,
        pinned: Callable[[str, int], Awaitable[Loaded]],
        metrics: Metrics,
        timeout_s: float,
        keys: Keyring,
    ) -> None:
        self._specs = specs
        self._bodies = bodies
        self._admission = admission
        self._batcher = batcher
        self._pinned = pinned
        self._metrics = metrics
        self._timeout_s = timeout_s
        self._keys = keys
        self._live = {name: Lane(name, None) for name in specs}
        self._targets = {f"{PREFIX}{name}".encode(): name for name in specs}

    def routes(self) -> list[Route]:
        """What to mount."""
        return [Route(f"{PREFIX}{{model}}", self, methods=["POST"], name="predict")]

    def turn_away(self, method: bytes, target: bytes, headers: Sequence[tuple[bytes, bytes]]) -> Response | None:
        """The refusal of a request of which only the head has come, where too many wait.

        Who has no key is not among them, however often he asks: that takes no place, and is answered with 401.
        """
        name = self._targets.get(target.partition(b"?")[0])
        if name is None or method != b"POST":
            return None
        if self._keys and self._keys.scope(dict(headers).get(b"authorization", b"")) is None:
            return None
        if self._admission.announce():
            return None
        self._metrics.request(name, QueueFull.status)
        return _FULL

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """The whole life of one request; every outcome of a known model is counted."""
        name = scope["path"].removeprefix(PREFIX)
        try:
            require_model(name, self._specs)
        except ServiceError as err:
            await of_service_error(err)(scope, receive, send)
            return
        try:
            status, headers, content = await self._predict(scope, receive, name, self._specs[name])
        except ClientDisconnect:
            return
        except (ServiceError, InvalidInput) as err:
            response = of_service_error(err) if isinstance(err, ServiceError) else of_invalid_input(err)
            status, headers, content = response.status_code, response.raw_headers, bytes(response.body)
        self._metrics.request(name, status)
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": content})

    async def _predict(self, scope: Scope, receive: Receive, name: str, spec: ModelSpec) -> _Answer:
        arrived = time.perf_counter()
        lane = await self._lane(name, scope["query_string"])
        decode = self._bodies.samples_of(scope, spec)
        body = await self._bodies.read(scope, receive)
        with self._admission:
            samples = await decode(body)
            decoded = time.perf_counter()
            answer = await self._batcher.submit(lane, samples.good, self._timeout_s)
        write = _npy if NPY.encode() in header(scope, b"accept") else _json
        content, media_type = write(name, spec, samples, answer)
        decode_s, total_s = decoded - arrived, time.perf_counter() - arrived
        self._metrics.stages(name, decode_s, answer.queue_s, answer.forward_s, total_s)
        timing = (
            f"decode;dur={decode_s * 1000:.3f}, queue;dur={answer.queue_s * 1000:.3f}, "
            f"forward;dur={answer.forward_s * 1000:.3f}, total;dur={total_s * 1000:.3f}"
        )
        headers = [
            (b"content-type", media_type.encode()),
            (b"content-length", b"%d" % len(content)),
            (b"x-model-version", b"%d" % answer.version),
            (b"server-timing", timing.encode()),
        ]
        return 200, headers, content

    async def _lane(self, name: str, query: bytes) -> Lane:
        """The live version's lane, or that of the one in `?version=`."""
        if not query:
            return self._live[name]
        asked = _version(name, QueryParams(query).get("version"))
        return self._live[name] if asked is None else Lane(name, await self._pinned(name, asked))


class ShortCut:
    """ASGI middleware: a prediction goes past the router and FastAPI, which would cost as much as a forward."""

    def __init__(self, app: ASGIApp, predict: PredictRoute, models: Iterable[str]) -> None:
        self._app = app
        self._predict = predict
        self._paths = {f"{PREFIX}{name}" for name in models}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer, or pass on."""
        if scope["type"] == "http" and scope["method"] == "POST" and scope["path"] in self._paths:
            await self._predict(scope, receive, send)
        else:
            await self._app(scope, receive, send)


def _version(model: str, asked: str | None) -> int | None:
    """`?version=` -> a version number, or None for the live one."""
    if asked is None:
        return None
    if not (asked.isascii() and asked.isdecimal()):
        raise Invalid(f"version must be a whole number, not {asked[:40]!r}")
    if len(asked) > 9:
        raise NotFound(f"{model} has no version {asked[:40]}")
    return int(asked)


def _json(name: str, spec: ModelSpec, samples: Samples, answer: Answer) -> tuple[bytes, str]:
    """Predictions in the order of the body's samples; what failed has its error in its place."""
    finite = None if answer.finite else np.all(np.isfinite(answer.values), axis=1)
    predictions = in_order(spec.describe(answer.values), samples.errors, finite)
    body = {"model": name, "version": answer.version, "predictions": predictions}
    return orjson.dumps(body, option=orjson.OPT_SERIALIZE_NUMPY), JSON


def _npy(_: str, __: ModelSpec, samples: Samples, answer: Answer) -> tuple[bytes, str]:
    """Values (N, k) float32. An array has no place for errors, so one bad sample fails the request."""
    if samples.errors:
        position = min(samples.errors)
        error = samples.errors[position]
        raise InvalidInput(error.title, f"sample {position}: {error.detail}. Ask for JSON to get the others' answers")
    if not (answer.finite or np.isfinite(answer.values).all()):
        raise NOT_FINITE
    file = BytesIO()
    np.save(file, np.ascontiguousarray(answer.values), allow_pickle=False)
    return file.getvalue(), NPY
