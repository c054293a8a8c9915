"""POST /v2/models/{model}/infer: predictions in the Open Inference Protocol."""

from collections.abc import Mapping
from functools import partial

from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route

from models.entries import Entries
from models.errors import InvalidInput
from models.spec import ModelSpec
from service.api.bodies import RequestBodies
from service.api.openinference.codec import Tensor
from service.api.openinference.inferring import (
    HEADER_LENGTH,
    ROUTE,
    InferRequest,
    array_entries,
    picture_files,
    samples_of,
)
from service.api.openinference.repository import Offered, post
from service.api.openinference.rows import rows
from service.api.openinference.signature import INPUT
from service.api.predictions import showing
from service.errors import ServiceError
from service.execution.threads import Threads
from service.inference.decoding import Samples
from service.inference.engine import Loaded
from service.inference.pipeline import Pipeline, reply_then_show
from service.telemetry.served import by_name
from service.web import problems
from service.web.auth import Access
from service.web.disconnect import unless_gone
from service.web.exchange import response_of
from service.web.prefix import route_path

ACCESS: Mapping[str, Access] = {
    "POST /v2/models/{model}/infer": Access("predict"),
    "POST /v2/models/{model}/versions/{version}/infer": Access("predict"),
}


class InferRoute:
    """The endpoint."""

    def __init__(self, offered: Offered, bodies: RequestBodies, pipeline: Pipeline, threads: Threads) -> None:
        self._offered = offered
        self._bodies = bodies
        self._pipeline = pipeline
        self._threads = threads

    def routes(self) -> list[Route]:
        """Return the routes to mount."""
        paths = (ROUTE, "/v2/models/{model}/versions/{version}/infer")
        return [post(path, self.answer) for path in paths]

    async def answer(self, request: Request) -> Response:
        """Answer one request. Every outcome for a known model is counted."""
        name = self._offered.known(request)
        try:
            response = await self._infer(request, name, self._offered.specs[name])
        except (ServiceError, InvalidInput) as err:
            response = problems.of(err, route_path(request.scope))
        except ClientDisconnect:
            raise
        except Exception:
            self._pipeline.metrics.request(name, 500)
            raise
        self._pipeline.metrics.request(name, response.status_code)
        return response

    async def _infer(self, request: Request, name: str, spec: ModelSpec) -> Response:
        given = request.headers
        asking = InferRequest(
            self._offered.signatures[name], given.get(HEADER_LENGTH), given.get("accept-encoding", "")
        )
        watch, stem, headers = asking.watch, asking.stem, by_name(request.scope["headers"])
        lane = await self._offered.lane(request, watch, stem, headers)
        body = await self._bodies.read(request.scope, request.receive)
        asked = await self._threads.run_if_large(len(body), partial(asking.parsed, body))
        timeout_s = min(self._pipeline.timeout_s, asked.timeout_s or self._pipeline.timeout_s)
        decode = partial(self._decoded, spec, asked.inputs, len(body), lane.pinned)
        again = partial(self._decoded, spec, asked.inputs, len(body))
        show = showing(self._pipeline, ROUTE, stem, lane, headers, watch, body, decoded_for=again)
        predicted = self._pipeline.predict(lane, decode, watch, timeout_s, show)
        samples, answer = await unless_gone(request.receive, predicted)
        reply = self._threads.run_if_large(answer.values.nbytes, partial(asking.reply, asked, answer))
        response = response_of(await reply_then_show(show, samples, answer, reply))
        self._pipeline.metrics.stages(name, watch.stages(answer))
        return response

    async def _decoded(
        self, spec: ModelSpec, inputs: Mapping[str, Tensor], size: int, version: Loaded | None
    ) -> Samples:
        """Decode the tensors of a body of `size` bytes into samples, for one version, or the live one."""
        if version is not None and version.coder is not None:
            return await self._pipeline.decoder.rows(size, partial(rows, inputs, spec.inputs), version.coder)
        if version is not None:
            spec = version.spec
        return samples_of(await self._entries(inputs[INPUT], spec), spec)

    async def _entries(self, tensor: Tensor, spec: ModelSpec) -> Entries:
        files = picture_files(tensor, spec)
        if files is not None:
            return await self._pipeline.decoder.pictures(files, spec)
        return await self._threads.run_if_large(tensor.data.nbytes, partial(array_entries, tensor, spec))
