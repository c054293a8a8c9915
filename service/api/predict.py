"""POST /predict/{model} through ASGI: any body, any version. Small requests take the fast path instead."""

from collections.abc import Awaitable, Callable, Mapping
from functools import partial

from starlette.datastructures import QueryParams
from starlette.requests import ClientDisconnect
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from models.errors import InvalidInput
from models.samples import Columns
from models.spec import ModelSpec
from service.api.bodies import RequestBodies
from service.api.predictions import PredictionRequest, wanted
from service.api.schemas import is_whole_number
from service.errors import Invalid, NotFound, ServiceError, require_model
from service.execution.threads import Threads
from service.inference.batcher import Answer
from service.inference.engine import Loaded
from service.inference.pipeline import Lane, Pipeline
from service.web import problems
from service.web.auth import Access
from service.web.bodies import header
from service.web.disconnect import unless_gone
from service.web.exchange import Reply
from service.web.prefix import route_path

ACCESS: Mapping[str, Access] = {
    "POST /predict/{model}": Access("predict", 400, 403, 404, 409, 413, 415, 422, 429, 503, 504),
}

PREFIX = "/predict/"


class PredictRoute:
    """The endpoint as an ASGI application: it reads the raw request, since typed parsing costs more than the answer."""

    def __init__(
        self,
        specs: Mapping[str, ModelSpec],
        bodies: RequestBodies,
        pipeline: Pipeline,
        threads: Threads,
        pinned: Callable[[str, int], Awaitable[Loaded]],
    ) -> None:
        self._specs = specs
        self._bodies = bodies
        self._pipeline = pipeline
        self._threads = threads
        self._pinned = pinned

    def routes(self) -> list[Route]:
        """Return the route to mount."""
        return [Route(f"{PREFIX}{{model}}", self, methods=["POST"], name="predict")]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request. Every outcome for a known model is counted."""
        name = route_path(scope).removeprefix(PREFIX)
        try:
            require_model(name, self._specs)
        except ServiceError as err:
            await problems.of(err)(scope, receive, send)
            return
        request = PredictionRequest(name, self._specs[name], wanted(header(scope, b"accept"), self._specs[name]))
        try:
            status, headers, content = await self._predict(scope, receive, request)
        except ClientDisconnect:
            return
        except (ServiceError, InvalidInput) as err:
            status, headers, content = request.refuse(err, self._pipeline.metrics)
        except Exception:
            self._pipeline.metrics.request(name, 500)
            raise
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": content})

    async def _predict(self, scope: Scope, receive: Receive, request: PredictionRequest) -> Reply:
        lane = await self._lane(request, scope["query_string"])
        spec, coder = request.spec, None
        if lane.pinned is not None:
            request.describe, spec, coder = lane.pinned.describe, lane.pinned.spec, lane.pinned.coder
        decode = self._bodies.decoder_for(scope, spec, coder)
        body = await self._bodies.read(scope, receive)
        predicted = self._pipeline.predict(lane, partial(decode, body), request.watch)
        samples, answer = await unless_gone(receive, predicted)
        return await self._threads.run_if_large(
            _size(answer), lambda: request.answer(samples, answer, self._pipeline.metrics)
        )

    async def _lane(self, request: PredictionRequest, query: bytes) -> Lane:
        """Return the lane of the live version, or of the version in `?version=`.

        The version is taken now if samples or predictions depend on its artifacts, so that a promotion does not
        come between encoding, computing and describing. So is one that must be loaded first: it has the check.
        """
        name = request.model
        number = asked_version(name, QueryParams(query)) if query else None
        if number is None:
            is_taken_later = self._specs[name].is_plain and name not in self._pipeline.networks.unloaded
            return Lane(name, None if is_taken_later else await self._pipeline.live(name, request.watch))
        return Lane(name, await self._pinned(name, number))


def _size(answer: Answer) -> int:
    """Return how many bytes of named values are to be written; the others are written at once."""
    return answer.values.nbytes if isinstance(answer.values, Columns) else 0


def asked_version(model: str, query: QueryParams) -> int | None:
    """Return the number in `?version=`; None is the live version. Raises Invalid, NotFound."""
    given = query.getlist("version")
    if not given:
        return None
    if len(given) > 1:
        raise Invalid(f"version is given {len(given)} times; give it once")
    if not is_whole_number(given[0]):
        raise Invalid(f"version must be a whole number such as 3, not {given[0][:40]!r}")
    if len(given[0]) > 9:
        raise NotFound(f"{model} has no version {given[0][:40]}")
    return int(given[0])
