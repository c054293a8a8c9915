"""Fast path of POST /v2/models/{model}/infer, for small requests to models of one tensor."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial

from starlette.responses import Response

from models.spec import ModelSpec
from service.api.fast_predict import VERSION, Ready, Taken, Way, choose, is_full
from service.api.openinference.codec import Inference, Tensor
from service.api.openinference.inferring import (
    LENGTH_FIELD,
    ROUTE,
    InferRequest,
    array_entries,
    picture_files,
    samples_of,
)
from service.api.openinference.repository import Offered
from service.api.openinference.signature import INPUT
from service.errors import QueueFull
from service.execution.threads import INLINE_BYTES
from service.inference.callers import Answer
from service.inference.decoding import Decoder, Samples
from service.inference.pipeline import Pipeline
from service.telemetry.metrics import Metrics
from service.web import problems
from service.web.answers import NO_STORE
from service.web.exchange import Refusal, Reply, reply_of

_FULL = problems.of(QueueFull(), "/v2")


@dataclass(slots=True)
class _Seen:
    """Size of the values of one sample in the last answer: large answers are written and compressed in a thread."""

    row_bytes: int = 0


class SmallInfer:
    """See Small."""

    def __init__(self, asking: InferRequest, headers: Mapping[bytes, bytes], most_s: float, seen: _Seen) -> None:
        self.watch, self.stem = asking.watch, asking.stem
        self.headers = headers
        self._seen = seen
        self.timeout_s: float | None = None
        self._asking = asking
        self._asked: Inference
        self._most_s = most_s

    def decode(self, body: bytes, spec: ModelSpec, decoder: Decoder) -> Samples | None:
        """Parse and decode a body, for a version with this spec. Returns None if it needs a thread."""
        asked = self._asked = self._asking.parsed(body)
        self.timeout_s = min(self._most_s, asked.timeout_s or self._most_s)
        samples = _samples(asked.inputs[INPUT], spec, decoder)
        is_large = samples is not None and samples.count * self._seen.row_bytes > INLINE_BYTES
        return None if is_large else samples

    def answer(self, samples: Samples, answer: Answer, metrics: Metrics) -> Reply:
        """See Small."""
        self._seen.row_bytes = answer.values.nbytes // samples.count
        status, headers, body = self._asking.reply(self._asked, answer)
        metrics.stages(self._asking.signature.model, self.watch.stages(answer))
        metrics.request(self._asking.signature.model, status)
        return status, [*headers, NO_STORE], body

    def refuse(self, err: Exception, metrics: Metrics) -> Reply:
        """See Small."""
        response: Response = _FULL if isinstance(err, QueueFull) else problems.of(err, "/v2")
        metrics.request(self._asking.signature.model, response.status_code)
        return reply_of(response)


class InferWay:
    """See Way."""

    def __init__(self, model: str, offered: Offered, pipeline: Pipeline, ready: Ready) -> None:
        self.model = model
        self.refusal = Refusal(_FULL, partial(is_full, pipeline, model))
        self._signature = offered.signatures[model]
        self._is_plain = offered.specs[model].is_plain
        self._seen = _Seen()
        self._offered = offered
        self._pipeline = pipeline
        self._ready = ready

    def take(self, number: int, query: bytes, headers: Mapping[bytes, bytes], size: int) -> Taken | None:
        """See Way."""
        if query or size > INLINE_BYTES or not self._is_plain or self.model in self._offered.closed:
            return None
        length = headers.get(LENGTH_FIELD)
        asking = InferRequest(
            self._signature,
            None if length is None else length.decode("latin-1"),
            headers.get(b"accept-encoding", b"").decode("latin-1"),
        )
        chosen = choose(self._pipeline, self.model, number, self._ready, headers, asking.stem)
        if chosen is None:
            return None
        small = SmallInfer(asking, headers, self._pipeline.timeout_s, self._seen)
        spec = self._signature.spec if chosen.pinned is None else chosen.pinned.spec
        return Taken(ROUTE, small, chosen, partial(small.decode, spec=spec, decoder=self._pipeline.decoder))


def infer_ways(offered: Offered, pipeline: Pipeline, ready: Ready) -> dict[str, Way]:
    """Return the ways of the infer requests by their paths."""
    found: dict[str, Way] = {}
    for name in offered.specs:
        way = InferWay(name, offered, pipeline, ready)
        found |= {f"/v2/models/{name}/infer": way, f"/v2/models/{name}/versions/{VERSION}/infer": way}
    return found


def _samples(tensor: Tensor, spec: ModelSpec, decoder: Decoder) -> Samples | None:
    """Decode a tensor on the event loop; None if it needs a thread. Raises InvalidInput."""
    files = picture_files(tensor, spec)
    if files is not None:
        entries = decoder.pictures_inline(files, spec)
    else:
        entries = array_entries(tensor, spec) if tensor.data.nbytes <= INLINE_BYTES else None
    return None if entries is None else samples_of(entries, spec)
