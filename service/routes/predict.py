"""POST /predict/{model}. Reads the raw request and writes bytes: typed machinery would cost more than all the rest."""

import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from io import BytesIO
from typing import Any

import numpy as np
import orjson
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from models.spec import Array, InvalidInput, ModelSpec
from service.batcher import Answer, Batcher
from service.bodies import JSON, NPY, BodyReader, Samples
from service.engine import Loaded
from service.errors import Invalid, NotFound, ServiceError, require_model
from service.metrics import Metrics
from service.problems import of_invalid_input, of_service_error

_NOT_FINITE = InvalidInput("No finite answer", "the network's answer is not a finite number: the input is out of range")


@dataclass(frozen=True, slots=True)
class Lane:
    """Whose queue a request waits in: the live version's, or that of one version asked for by number."""

    model: str
    pinned: Loaded | None


class PredictRoute:
    """The endpoint, with what it needs."""

    def __init__(
        self,
        specs: Mapping[str, ModelSpec],
        bodies: BodyReader,
        batcher: Batcher,
        pinned: Callable[[str, int], Awaitable[Loaded]],
        metrics: Metrics,
        timeout_s: float,
    ) -> None:
        self._specs = specs
        self._bodies = bodies
        self._batcher = batcher
        self._pinned = pinned
        self._metrics = metrics
        self._timeout_s = timeout_s

    def routes(self) -> list[Route]:
        """What to mount."""
        return [Route("/predict/{model}", self.answer, methods=["POST"], name="predict")]

    async def answer(self, request: Request) -> Response:
        """The whole life of one request; every outcome is counted."""
        name = request.path_params["model"]
        require_model(name, self._specs)
        spec = self._specs[name]
        try:
            response = await self._predict(request, name, spec)
        except ServiceError as err:
            response = of_service_error(err)
        except InvalidInput as err:
            response = of_invalid_input(err)
        self._metrics.requests.labels(name, response.status_code).inc()
        return response

    async def _predict(self, request: Request, name: str, spec: ModelSpec) -> Response:
        arrived = time.perf_counter()
        asked = _version(name, request.query_params.get("version"))
        lane = Lane(name, None if asked is None else await self._pinned(name, asked))
        samples = await self._bodies.samples(request, spec)
        decoded = time.perf_counter()
        answer = await self._batcher.submit(lane, samples.good, self._timeout_s)
        write = _npy if NPY in request.headers.get("accept", "") else _json
        content, media_type = write(name, spec, samples, answer)
        stages = {
            "decode": decoded - arrived,
            "queue": answer.queue_s,
            "forward": answer.forward_s,
            "total": time.perf_counter() - arrived,
        }
        for stage, seconds in stages.items():
            self._metrics.stage_seconds.labels(name, stage).observe(seconds)
        timing = ", ".join(f"{stage};dur={seconds * 1000:.3f}" for stage, seconds in stages.items())
        headers = {"X-Model-Version": str(answer.version), "Server-Timing": timing}
        return Response(content, 200, headers, media_type)


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
    predictions: list[Any] = list(spec.describe(answer.values))
    finite = _finite_rows(answer.values)
    if not finite.all():
        predictions = [item if good else _failed(_NOT_FINITE) for item, good in zip(predictions, finite, strict=True)]
    if not finite.any():
        raise _NOT_FINITE
    for position in sorted(samples.errors):
        predictions.insert(position, _failed(samples.errors[position]))
    body = {"model": name, "version": answer.version, "predictions": predictions}
    return orjson.dumps(body, option=orjson.OPT_SERIALIZE_NUMPY), JSON


def _npy(_: str, __: ModelSpec, samples: Samples, answer: Answer) -> tuple[bytes, str]:
    """Values (N, k) float32. An array has no place for errors, so one bad sample fails the request."""
    if samples.errors:
        position = min(samples.errors)
        error = samples.errors[position]
        raise InvalidInput(error.title, f"sample {position}: {error.detail}. Ask for JSON to get the others' answers")
    if not _finite_rows(answer.values).all():
        raise _NOT_FINITE
    file = BytesIO()
    np.save(file, np.ascontiguousarray(answer.values), allow_pickle=False)
    return file.getvalue(), NPY


def _finite_rows(values: Array) -> Array:
    finite: Array = np.all(np.isfinite(values), axis=1)
    return finite


def _failed(err: InvalidInput) -> dict[str, Any]:
    return {"error": {"title": err.title, "detail": err.detail}}
