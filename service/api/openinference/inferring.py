"""One infer request of the Open Inference Protocol: from its body to samples, from values to its answer.

The ASGI route and the fast path share it.
"""

import base64
import binascii
from collections.abc import Mapping
from dataclasses import dataclass, field

from models.entries import Entries, checked, from_array
from models.errors import InvalidInput, MalformedInput, TooManySamples
from models.samples import Columns
from models.spec import Array, ModelSpec
from service.api.openinference import codec
from service.api.openinference.codec import Accepted, Inference, Tensor, Wanted
from service.api.openinference.signature import accepted, outputs
from service.api.openinference.tensors import BYTES, TensorType, classes
from service.errors import Malformed
from service.inference.callers import Answer
from service.inference.decoding import Samples, require_all
from service.inference.pipeline import Stopwatch
from service.media_types import JSON, OCTETS
from service.telemetry.ids import next_stem, prediction_id
from service.web import compression
from service.web.exchange import Reply
from service.web.multipart import MAX_FILES

ROUTE = "/v2/models/{model}/infer"
HEADER_LENGTH = "Inference-Header-Content-Length"
LENGTH_FIELD = HEADER_LENGTH.lower().encode()
_JSON_TYPE, _OCTETS_TYPE = JSON.encode(), OCTETS.encode()
_STANDARD = bytes.maketrans(b"-_", b"+/")
_COMPRESSED_FROM = 1024  # bytes; a smaller answer fits in one packet uncompressed


@dataclass(frozen=True, slots=True, eq=False)
class Signature:
    """The tensors of a model, as `accepted` and `outputs` derive them from its spec."""

    model: str
    spec: ModelSpec
    inputs: Accepted
    outputs: Mapping[str, TensorType]
    heads: codec.Heads

    @classmethod
    def of(cls, model: str, spec: ModelSpec) -> "Signature":
        """Return the signature of a model."""
        inputs, known = accepted(spec), {kind.name: kind for kind in outputs(spec)}
        return cls(model, spec, inputs, known, codec.Heads(inputs, known))


@dataclass(slots=True, eq=False)
class InferRequest:
    """A request for a model: two of its headers, and the times of its stages."""

    signature: Signature
    header_length: str | None
    accept_encoding: str
    watch: Stopwatch = field(default_factory=Stopwatch)
    stem: str = field(default_factory=next_stem)

    def parsed(self, body: bytes) -> Inference:
        """Parse a body. Raises Malformed, TooManySamples."""
        known = self.signature.outputs
        asked = self.signature.heads.parse(body, self.header_length)
        for wanted in asked.outputs:
            if wanted.classification and len(known[wanted.name].shape) != 2:
                raise Malformed(f"output {wanted.name!r} is {known[wanted.name]}: it has no classes")
        return asked

    def reply(self, asked: Inference, answer: Answer) -> Reply:
        """Return the answer, compressed if the client accepts it. The JSON length in the header is the uncompressed
        one. Raises InvalidInput.
        """
        prediction = prediction_id(self.stem, answer.version)
        found = [(wanted, _output(wanted, self.signature.spec, answer)) for wanted in asked.outputs]
        content, json_size = codec.encode(
            self.signature.model, str(answer.version), asked.id, prediction, found, finite=answer.finite
        )
        headers = [(b"x-prediction-id", prediction.encode())]
        if json_size is not None:
            headers.append((LENGTH_FIELD, b"%d" % json_size))
        coding = compression.accepted(self.accept_encoding) if len(content) >= _COMPRESSED_FROM else None
        if coding:
            content = compression.deflate(content, coding)
            headers += [(b"content-encoding", coding.encode()), (b"vary", b"Accept-Encoding")]
        media_type = _JSON_TYPE if json_size is None else _OCTETS_TYPE
        headers += [(b"content-length", b"%d" % len(content)), (b"content-type", media_type)]
        return 200, headers, content


def picture_files(tensor: Tensor, spec: ModelSpec) -> list[bytes] | None:
    """Return the files of pictures in a tensor; None if it holds an array. Raises InvalidInput."""
    if tensor.type.datatype != BYTES or spec.picture is None:
        return None
    contents: list[bytes] = tensor.data.tolist()
    if not contents:
        raise InvalidInput("No picture", f"send 1 to {MAX_FILES} pictures")
    if len(contents) > MAX_FILES:
        raise TooManySamples(len(contents), MAX_FILES)
    if tensor.binary:
        return contents
    return [_from_base64(text, position) for position, text in enumerate(contents)]


def array_entries(tensor: Tensor, spec: ModelSpec) -> Entries:
    """Return the entries of a tensor that holds an array. Raises InvalidInput."""
    return checked(from_array(tensor.data, spec.tensor), spec.check)


def samples_of(entries: Entries, spec: ModelSpec) -> Samples:
    """Preprocess entries. One bad sample fails the request: a tensor cannot hold errors. Raises InvalidInput."""
    require_all(entries.errors)
    return Samples(spec.preprocess(entries.good), {}, len(entries.good), entries.good)


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
