"""POST /v2/models/{model}/infer: predictions in the Open Inference Protocol."""

import base64
import binascii
from collections.abc import Mapping
from functools import partial

from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route

from models.entries import Entries, checked, from_array
from models.errors import InvalidInput, MalformedInput, TooManySamples
from models.samples import Columns
from models.spec import Array, ModelSpec
from service.api.bodies import RequestBodies
from service.api.openinference import codec
from service.api.openinference.codec import Inference, Tensor, Wanted
from service.api.openinference.repository import Offered, post
from service.api.openinference.rows import rows
from service.api.openinference.signature import INPUT, accepted, outputs
from service.api.openinference.tensors import BYTES, classes
from service.errors import Malformed, ServiceError
from service.execution.threads import Threads
from service.inference.batcher import Answer
from service.inference.decoding import Samples, require_all
from service.inference.pipeline import Lane, Pipeline, Stopwatch
from service.media_types import JSON, OCTETS
from service.web import compression, problems
from service.web.auth import Access
from service.web.disconnect import unless_gone
from service.web.multipart import MAX_FILES
from service.web.prefix import route_path

ACCESS: Mapping[str, Access] = {
    "POST /v2/models/{model}/infer": Access("predict"),
    "POST /v2/models/{model}/versions/{version}/infer": Access("predict"),
}

_HEADER_LENGTH = "Inference-Header-Content-Length"
_STANDARD = bytes.maketrans(b"-_", b"+/")
_COMPRESSED_FROM = 1024  # bytes; a smaller answer fits in one packet uncompressed


class InferRoute:
    """The endpoint."""

    def __init__(self, offered: Offered, bodies: RequestBodies, pipeline: Pipeline, threads: Threads) -> None:
        self._offered = offered
        self._bodies = bodies
        self._pipeline = pipeline
        self._threads = threads

    def routes(self) -> list[Route]:
        """Return the routes to mount."""
        paths = ("/v2/models/{model}/infer", "/v2/models/{model}/versions/{version}/infer")
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
        watch = Stopwatch()
        lane = await self._offered.lane(request, watch)
        body = await self._bodies.read(request.scope, request.receive)
        known = {kind.name: kind for kind in outputs(spec)}
        read = partial(codec.parse, body, request.headers.get(_HEADER_LENGTH), accepted(spec), known)
        asked = await self._threads.run_if_large(len(body), read)
        for wanted in asked.outputs:
            if wanted.classification and len(known[wanted.name].shape) != 2:
                raise Malformed(f"output {wanted.name!r} is {known[wanted.name]}: it has no classes")
        timeout_s = min(self._pipeline.timeout_s, asked.timeout_s or self._pipeline.timeout_s)
        decode = partial(self._decoded, lane, spec, asked.inputs, len(body))
        predicted = self._pipeline.predict(lane, decode, watch, timeout_s)
        _, answer = await unless_gone(request.receive, predicted)
        write = partial(_response, name, spec, asked, answer, request.headers.get("accept-encoding", ""))
        response = await self._threads.run_if_large(answer.values.nbytes, write)
        self._pipeline.metrics.stages(name, watch.stages(answer))
        return response

    async def _decoded(self, lane: Lane, spec: ModelSpec, inputs: Mapping[str, Tensor], size: int) -> Samples:
        """Decode the tensors of a body of `size` bytes into samples, for the version that the lane pins."""
        if lane.pinned is None:
            return await self._samples(inputs[INPUT], spec)
        if lane.pinned.coder is None:
            return await self._samples(inputs[INPUT], lane.pinned.spec)
        return await self._pipeline.decoder.rows(size, partial(rows, inputs, spec.inputs), lane.pinned.coder)

    async def _samples(self, tensor: Tensor, spec: ModelSpec) -> Samples:
        """Decode the tensor into samples. One bad sample fails the request: a tensor cannot hold errors."""
        entries = await self._entries(tensor, spec)
        require_all(entries.errors)
        return Samples(spec.preprocess(entries.good), {}, len(entries.good))

    async def _entries(self, tensor: Tensor, spec: ModelSpec) -> Entries:
        if tensor.type.datatype != BYTES or spec.picture is None:
            return await self._threads.run_if_large(
                tensor.data.nbytes,
                lambda: checked(from_array(tensor.data, spec.tensor), spec.check),
            )
        contents: list[bytes] = tensor.data.tolist()
        if not contents:
            raise InvalidInput("No picture", f"send 1 to {MAX_FILES} pictures")
        if len(contents) > MAX_FILES:
            raise TooManySamples(len(contents), MAX_FILES)
        if not tensor.binary:
            contents = [_from_base64(text, position) for position, text in enumerate(contents)]
        return await self._pipeline.decoder.pictures(contents, spec)


def _response(name: str, spec: ModelSpec, asked: Inference, answer: Answer, accept_encoding: str) -> Response:
    """Write the answer, compressed if the client accepts it. The JSON length in the header is the uncompressed one."""
    found = [(wanted, _output(wanted, spec, answer)) for wanted in asked.outputs]
    content, json_size = codec.encode(name, str(answer.version), asked.id, found)
    headers = {} if json_size is None else {_HEADER_LENGTH: str(json_size)}
    coding = compression.accepted(accept_encoding)
    if coding and len(content) >= _COMPRESSED_FROM:
        content = compression.deflate(content, coding)
        headers |= {"Content-Encoding": coding, "Vary": "Accept-Encoding"}
    return Response(content, 200, headers, JSON if json_size is None else OCTETS)


def _output(wanted: Wanted, spec: ModelSpec, answer: Answer) -> Array:
    """Return the values of an output, or its greatest classes. Raises InvalidInput."""
    values = answer.values.arrays[wanted.name] if isinstance(answer.values, Columns) else answer.values
    if isinstance(values, list):
        detail = f"the samples' {wanted.name} have different lengths, a tensor cannot hold them: send one at a time"
        raise InvalidInput("Unequal lengths", detail)
    if not wanted.classification:
        return values
    return classes(values, wanted.classification, spec.outputs[wanted.name].labels if spec.outputs else ())


def _from_base64(text: bytes, position: int) -> bytes:
    """Decode base64 of either alphabet (RFC 4648, sections 4 and 5), with line breaks or without padding."""
    if text.startswith(b"data:"):
        text = text.partition(b",")[2]
    digits = text.translate(_STANDARD, b" \t\r\n").rstrip(b"=")
    try:
        return base64.b64decode(digits + b"=" * (-len(digits) % 4), validate=True)
    except binascii.Error as err:
        raise MalformedInput("No base64", f"sample {position}: a picture in JSON must be base64") from err
