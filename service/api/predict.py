"""POST /predict/{model} through ASGI: any body, any version. Small requests take the fast path instead."""

from collections.abc import Awaitable, Callable, Mapping
from functools import partial

from starlette.datastructures import QueryParams
from starlette.requests import ClientDisconnect
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from models.errors import InvalidInput, shown
from models.samples import Columns
from models.spec import ModelSpec
from service.api.bodies import RequestBodies
from service.api.predictions import PredictionRequest, showing, wanted
from service.api.schemas import is_whole_number
from service.errors import Invalid, NotFound, ServiceError, require_model
from service.execution.threads import Threads
from service.inference.callers import Answer
from service.inference.decoding import Samples
from service.inference.engine import Loaded
from service.inference.pipeline import Lane, Pipeline, reply_then_show
from service.telemetry.served import by_name
from service.web import problems
from service.web.auth import Access
from service.web.bodies import header
from service.web.disconnect import unless_gone
from service.web.exchange import Reply
from service.web.prefix import route_path
from service.web.queries import require_known

ACCESS: Mapping[str, Access] = {
    "POST /predict/{model}": Access("predict", 400, 403, 404, 409, 413, 415, 422, 429, 503, 504),
}

PREFIX = "/predict/"
ROUTE = f"{PREFIX}{{model}}"
_PARAMETERS = ("version", "segment")


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
        return [Route(ROUTE, self, methods=["POST"], name="predict")]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request. Every outcome for a known model is counted."""
        name = route_path(scope).removeprefix(PREFIX)
        try:
            require_model(name, self._specs)
        except ServiceError as err:
            await problems.of(err)(scope, receive, send)
            return
        accept = wanted(header(scope, b"accept"), self._specs[name])
        request = PredictionRequest(name, self._specs[name], accept, by_name(scope["headers"]))
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
        query = QueryParams(scope["query_string"])
        require_known(query, _PARAMETERS)
        segment = asks_for_segments(query)
        lane = await self._lane(request, query)
        spec, coder = request.spec, None
        if lane.pinned is not None:
            request.describe, spec, coder = lane.pinned.describe, lane.pinned.spec, lane.pinned.coder
        decode = self._bodies.decoder_for(scope, spec, coder, segment=segment)
        body = await self._bodies.read(scope, receive)
        again = partial(self._decoded_for, scope, body, segment)
        show = showing(
            self._pipeline, ROUTE, request.stem, lane, request.headers, request.watch, body, decoded_for=again
        )
        predicted = self._pipeline.predict(lane, partial(decode, body), request.watch, show=show)
        samples, answer = await unless_gone(receive, predicted)
        reply = self._threads.run_if_large(
            _size(answer), lambda: request.answer(samples, answer, self._pipeline.metrics)
        )
        return await reply_then_show(show, samples, answer, reply)

    async def _decoded_for(self, scope: Scope, body: bytes, segment: bool, version: Loaded) -> Samples:
        """Decode the body of a request for another version."""
        return await self._bodies.decoder_for(scope, version.spec, version.coder, segment=segment)(body)

    async def _lane(self, request: PredictionRequest, query: QueryParams) -> Lane:
        """Return the lane of the live version, of a candidate, or of the version in `?version=`.

        The version is taken now if samples or predictions depend on its artifacts, so that a promotion does not
        come between encoding, computing and describing. So is one that must be loaded first: it has the check.
        """
        name = request.model
        number = asked_version(name, query)
        if number is None:
            if (candidate := self._pipeline.candidate(name, request.headers, request.stem)) is not None:
                return Lane(name, candidate)
            is_taken_later = self._specs[name].is_plain and name not in self._pipeline.networks.unloaded
            return Lane(name, None if is_taken_later else await self._pipeline.live(name, request.watch))
        return Lane(name, await self._pinned(name, number), by_number=True)


def _size(answer: Answer) -> int:
    """Return how many bytes of named values are to be written; the others are written at once."""
    return answer.values.nbytes if isinstance(answer.values, Columns) else 0


def asked_version(model: str, query: QueryParams) -> int | None:
    """Return the number in `?version=`; None is the live version. Raises Invalid, NotFound."""
    given = query.getlist("version")
    if not given:
        return None
    if not is_whole_number(given[0]):
        raise Invalid(f"version must be a whole number such as 3, not {shown(given[0])!r}")
    if len(given[0]) > 9:
        raise NotFound(f"{model} has no version {given[0][:40]}")
    return int(given[0])


def asks_for_segments(query: QueryParams) -> bool:
    """Whether `?segment=true` asks for each sample in one picture. Raises Invalid unless it is true or false."""
    given = query.getlist("segment")
    if given in ([], ["false"]):
        return False
    if given == ["true"]:
        return True
    raise Invalid(f"segment must be true or false, given once, not {shown(', '.join(given))!r}")
