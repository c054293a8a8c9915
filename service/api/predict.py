"""POST /predict/{model}. Reads the raw request and writes bytes: typed machinery would cost more than all the rest."""

import time
from collections.abc import Awaitable, Callable, Mapping

from starlette.datastructures import QueryParams
from starlette.requests import ClientDisconnect
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from models.errors import InvalidInput
from models.spec import ModelSpec
from service.api.predictions import Asked, wants_npy
from service.errors import Invalid, NotFound, ServiceError, require_model
from service.inference.engine import Loaded
from service.inference.pipeline import Lane, Pipeline
from service.web.bodies import header
from service.web.problems import of_service_error
from service.web.protocol import Reply

PREFIX = "/predict/"


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
