"""POST /v2/models/{model}/infer of the Open Inference Protocol: another language for what /predict does."""

import base64
import binascii
import time
from functools import partial

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from models.errors import InvalidInput, MalformedInput, TooManySamples
from models.spec import Array, ModelSpec
from service.api.openinference import codec
from service.api.openinference.codec import Inference, Tensor
from service.api.openinference.repository import Offered, post
from service.api.openinference.signature import INPUT, OUTPUT, accepted
from service.api.openinference.tensors import BYTES, classes
from service.errors import ServiceError
from service.inference.arrays import Entries, from_array
from service.inference.batcher import Answer
from service.inference.pipeline import Lane, Pipeline
from service.media_types import JSON, OCTETS
from service.web import compression
from service.web.multipart import MAX_FILES
from service.web.problems import of_invalid_input, of_service_error

_HEADER_LENGTH = "Inference-Header-Content-Length"
_COMPRESSED_FROM = 1024  # bytes; a smaller answer fits one packet as it is


class InferRoute:
    """The endpoint, with what it needs."""

    def __init__(self, offered: Offered, pipeline: Pipeline) -> None:
        self._offered = offered
        self._through = pipeline

    def routes(self) -> list[Route]:
        """What to mount."""
        paths = ("/v2/models/{model}/infer", "/v2/models/{model}/versions/{version}/infer")
        return [post(path, self.answer) for path in paths]

    async def answer(self, request: Request) -> Response:
        """The whole life of one request; every outcome is counted."""
        name = self._offered.known(request)
        try:
            response = await self._infer(request, name, self._offered.specs[name])
        except ServiceError as err:
            response = of_service_error(err, request.scope["path"])
        except InvalidInput as err:
            response = of_invalid_input(err, request.scope["path"])
        self._through.metrics.request(name, response.status_code)
        return response

    async def _infer(self, request: Request, name: str, spec: ModelSpec) -> Response:
        arrived = time.perf_counter()
        lane = Lane(name, await self._offered.pinned(request))
        body = await self._through.bodies.inflated(request.scope, request.receive)
        read = partial(codec.parse, body, request.headers.get(_HEADER_LENGTH), accepted(spec), [OUTPUT])
        with self._through.admission:
            asked = await self._through.bodies.off_the_loop(len(body), read)
            samples = await self._samples(asked.inputs[INPUT], spec)
            decoded = time.perf_counter()
            timeout_s = min(self._through.timeout_s, asked.timeout_s or self._through.timeout_s)
            answer = await self._through.batcher.submit(lane, samples, timeout_s)
        response = await self._through.bodies.off_the_loop(
            answer.values.nbytes,
            partial(_response, name, asked, answer, request.headers.get("accept-encoding", "")),
        )
        total_s = time.perf_counter() - arrived
        self._through.metrics.stages(name, (decoded - arrived, answer.queue_s, answer.forward_s, total_s))
        return response

    async def _samples(self, tensor: Tensor, spec: ModelSpec) -> Array:
        """The tensor -> samples. One bad sample fails the request: a tensor has no place for errors."""
        entries = await self._entries(tensor, spec)
        if entries.errors:
            position = min(entries.errors)
            error = entries.errors[position]
            raise InvalidInput(error.title, f"sample {position}: {error.detail}")
        return spec.preprocess(entries.good)

    async def _entries(self, tensor: Tensor, spec: ModelSpec) -> Entries:
        if tensor.type.datatype != BYTES or spec.picture is None:
            return await self._through.bodies.off_the_loop(
                tensor.data.nbytes,
                partial(from_array, tensor.data, spec.entry),
            )
        contents: list[bytes] = tensor.data.tolist()
        if not contents:
            raise InvalidInput("No picture", f"send 1 to {MAX_FILES} pictures")
        if len(contents) > MAX_FILES:
            raise TooManySamples(len(contents), MAX_FILES)
        if not tensor.binary:
            contents = [_from_base64(text, position) for position, text in enumerate(contents)]
        return await self._through.bodies.pictures(((OCTETS, content) for content in contents), spec)


def _response(name: str, asked: Inference, answer: Answer, accept_encoding: str) -> Response:
    """The answer, compressed where that was asked for; the length of its JSON is that of the plain one."""
    outputs = [
        (wanted, classes(answer.values, wanted.classification) if wanted.classification else answer.values)
        for wanted in asked.outputs
    ]
    content, json_size = codec.encode(name, str(answer.version), asked.id, outputs)
    headers = {} if json_size is None else {_HEADER_LENGTH: str(json_size)}
    coding = compression.accepted(accept_encoding)
    if coding and len(content) >= _COMPRESSED_FROM:
        content = compression.deflate(content, coding)
        headers |= {"Content-Encoding": coding, "Vary": "Accept-Encoding"}
    return Response(content, 200, headers, JSON if json_size is None else OCTETS)


def _from_base64(text: bytes, position: int) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except binascii.Error as err:
        raise MalformedInput("No base64", f"sample {position}: a picture in JSON must be base64") from err
