"""Write predictions as response bodies, for the fast path and the ASGI route."""

import time
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from io import BytesIO
from typing import Any

import numpy as np
import orjson
from numpy.typing import NDArray
from PIL import Image

from models.errors import InvalidInput
from models.samples import Columns, all_finite, finite_rows
from models.spec import ModelSpec
from service.errors import QueueFull
from service.inference.callers import Answer
from service.inference.decoding import Samples, require_all
from service.inference.engine import Loaded
from service.inference.npz import write_npz
from service.inference.pipeline import Canary, Lane, Pipeline, Show, Stopwatch
from service.media_types import JSON, NPY, NPZ, PNG, plain
from service.telemetry.ids import next_stem, prediction_id
from service.telemetry.metrics import STAGES, Metrics
from service.telemetry.served import Observer, Observers, Served
from service.web import problems
from service.web.answers import NO_STORE
from service.web.exchange import Reply, reply_of

FULL = problems.of(QueueFull())  # made once: a queue that is cut refuses hundreds of requests at once
NOT_FINITE = InvalidInput("No finite answer", "the network's answer is not a finite number: the input is out of range")


def in_order(
    entries: Iterable[Any],
    errors: Mapping[int, InvalidInput],
    finite: NDArray[np.bool_] | None = None,
) -> list[Any]:
    """Return one entry per sample, in the order of the body: each failed sample has its error in its place.

    `entries` belong to the good samples; `errors` maps positions of the others to their errors; `finite` marks the
    entries whose numbers are finite (None: all). Raises NOT_FINITE if there is no finite entry.
    """
    found = list(entries)
    if finite is not None:
        if not finite.any():
            raise NOT_FINITE
        found = [entry if good else _failed(NOT_FINITE) for entry, good in zip(found, finite, strict=True)]
    for position in sorted(errors):
        found.insert(position, _failed(errors[position]))
    return found


def _failed(err: InvalidInput) -> dict[str, Any]:
    return {"error": {"title": err.title, "detail": err.detail}}


_TIMING = ", ".join(f"{stage};dur=%.3f" for stage in STAGES).encode()  # milliseconds
_JSON_TYPE, _PNG_TYPE = JSON.encode(), PNG.encode()
_NP = b"application/x-np"  # begin of .npy's and .npz's media types
Describe = Callable[[Any], Iterable[Any]]
DecodedFor = Callable[[Loaded], Awaitable[Samples]]  # decodes the body of a request for another version


@dataclass(slots=True, eq=False)
class PredictionRequest:
    """One request for predictions: model, wanted media type, and the times of its stages.

    `headers` are by lower-case name. `describe` is that of the version that answers, for models that are not plain; see
    `ModelSpec.is_plain`.
    """

    model: str
    spec: ModelSpec
    wanted: str
    headers: Mapping[bytes, bytes]
    watch: Stopwatch = field(default_factory=Stopwatch)
    stem: str = field(default_factory=next_stem)
    describe: Describe | None = None
    timeout_s: float | None = None  # None: that of the service

    def answer(self, samples: Samples, answer: Answer, metrics: Metrics) -> Reply:
        """Return the reply with predictions, and count it. Raises InvalidInput."""
        prediction = prediction_id(self.stem, answer.version)
        if self.wanted == JSON:
            describe = self.describe or self.spec.describe
            assert describe
            content, media_type = self._json(describe, samples, answer, prediction), _JSON_TYPE
        else:
            content, media_type = _binary(self.wanted, self.spec, samples, answer), self.wanted.encode()
        spent_s = decode_s, queue_s, forward_s, total_s = self.watch.stages(answer)
        metrics.stages(self.model, spent_s)
        headers = [
            (b"content-type", media_type),
            (b"content-length", b"%d" % len(content)),
            (b"x-model-version", b"%d" % answer.version),
            (b"x-prediction-id", prediction.encode()),
            (b"server-timing", _TIMING % (decode_s * 1000, queue_s * 1000, forward_s * 1000, total_s * 1000)),
            NO_STORE,
        ]
        metrics.request(self.model, 200)
        return 200, headers, content

    def _json(self, describe: Describe, samples: Samples, answer: Answer, prediction: str) -> bytes:
        """Return predictions in the order of the body's samples; a failed sample has its error in its place."""
        finite = None if answer.finite else finite_rows(answer.values)
        predictions = in_order(describe(answer.values), samples.errors, finite)
        if samples.places:
            predictions = [{**one, "box": place} for one, place in zip(predictions, samples.places, strict=True)]
        identity = {"model": self.model, "version": answer.version, "id": prediction}
        return orjson.dumps({**identity, "predictions": predictions}, option=orjson.OPT_SERIALIZE_NUMPY)

    def refuse(self, err: Exception, metrics: Metrics) -> Reply:
        """Return the reply to an error, and count it."""
        response = FULL if isinstance(err, QueueFull) else problems.of(err)
        metrics.request(self.model, response.status_code)
        return reply_of(response)


@dataclass(slots=True, eq=False)
class _Showing:
    """Shows a request to the observers of its model: called with its samples, and the answer or error, when it ends.

    `canary` counts it, unless the request names its version.
    """

    observers: Observers
    interested: Sequence[Observer]
    canary: Canary | None
    route: str
    stem: str
    lane: Lane
    headers: Mapping[bytes, bytes]
    watch: Stopwatch
    body: bytes
    decoded_for: DecodedFor | None

    def __call__(self, samples: Samples, outcome: Answer | Exception) -> None:
        """See the class."""
        if self.canary is not None:
            self.canary.ended(self.lane.pinned, self.headers, self.stem, samples, outcome)
        if self.interested:
            self.observers.show(self._served(samples, outcome), self.interested)

    def _served(self, samples: Samples, outcome: Answer | Exception) -> Served:
        answer, bad = (outcome if isinstance(outcome, Answer) else None), samples.errors
        pinned = self.lane.pinned
        return Served(
            route=self.route,
            model=self.lane.model,
            stem=self.stem,
            version=answer.version if answer else (pinned.version if pinned else None),
            headers=self.headers,
            media_type=plain(self.headers.get(b"content-type", b"").decode("latin-1")),
            body=self.body,
            samples=samples.good,
            positions=[row for row in range(samples.count) if row not in bad] if bad else range(samples.count),
            values=answer.values if answer else None,
            error=None if isinstance(outcome, Answer) else outcome,
            batch_size=answer.batch_size if answer else 0,
            queue_s=answer.queue_s if answer else 0.0,
            forward_s=answer.forward_s if answer else 0.0,
            total_s=time.perf_counter() - self.watch.arrived,
            entries=samples.entries,
            describe=pinned.describe if pinned else None,
            backend=pinned.network.backend if pinned else None,
            form=pinned.network.form_of(answer.batch_size, self.watch.arrived) if pinned and answer else None,
            arrived=self.watch.arrived,
            by_number=self.lane.by_number,
            decoded_for=self.decoded_for,
        )


def showing(
    pipeline: Pipeline,
    route: str,
    stem: str,
    lane: Lane,
    headers: Mapping[bytes, bytes],
    watch: Stopwatch,
    body: bytes,
    *,
    decoded_for: DecodedFor | None = None,
    counts: bool = True,
    size: int | None = None,
) -> Show | None:
    """Return the function that shows the outcome of a request to the observers that want it, and to the trial of its
    model if it `counts` for it; None if none does. `size` is the number of good samples, if it is known.
    """
    observers = pipeline.observers
    interested = observers.interested(lane.model, headers, stem, None if lane.by_number else size)
    canary = pipeline.canaries.get(lane.model) if counts and not lane.by_number else None
    if canary is None and not interested:
        return None
    return _Showing(observers, interested, canary, route, stem, lane, headers, watch, body, decoded_for)


def wanted(accept: bytes, spec: ModelSpec) -> str:
    """Return the media type of the answer: one that the Accept header prefers to JSON, or is indifferent to; else JSON.

    One array is written as .npy, several as .npz, a picture as PNG.
    """
    if _NP not in accept and _PNG_TYPE not in accept:
        return JSON
    offered = binary_types(spec)
    weights = {}
    for offer in accept.decode("latin-1").split(","):
        media_type, *parameters = (part.strip().lower() for part in offer.split(";"))
        weights[media_type] = next((_weight(part) for part in parameters if part.startswith("q=")), 1.0)
    best = max(offered, key=lambda media_type: weights.get(media_type, 0))
    return best if weights.get(best, 0) > 0 and weights[best] >= weights.get(JSON, 0) else JSON


def binary_types(spec: ModelSpec) -> list[str]:
    """Return the other media types than JSON in which a model answers."""
    if not spec.outputs:
        return [NPY]
    pictures = [PNG] if picture_output(spec) else []
    return [NPZ, *([NPY] if len(spec.outputs) == 1 else []), *pictures]


def picture_output(spec: ModelSpec) -> str | None:
    """Return the output that is a picture, if there is one and only one."""
    pictures = [name for name, output in spec.outputs.items() if output.picture]
    return pictures[0] if len(pictures) == 1 else None


def _weight(parameter: str) -> float:
    """Parse `q=0.5`. Returns 1 if it is not a number."""
    try:
        return float(parameter.removeprefix("q="))
    except ValueError:
        return 1.0


def _binary(media_type: str, spec: ModelSpec, samples: Samples, answer: Answer) -> bytes:
    """Return values as a .npy or .npz file, or a picture: they hold no errors, so one bad sample fails the request."""
    require_all(samples.errors, ". Ask for JSON to get the others' answers")
    if not (answer.finite or all_finite(answer.values)):
        raise NOT_FINITE
    arrays = {"values": answer.values} if not isinstance(answer.values, Columns) else answer.values.arrays
    if media_type == PNG:
        return _png(arrays, spec)
    if ragged := [name for name, array in arrays.items() if isinstance(array, list)]:
        detail = f"the samples' {ragged[0]} have different lengths, an array cannot hold them: ask for JSON"
        raise InvalidInput("Unequal lengths", detail)
    whole = {name: np.ascontiguousarray(array) for name, array in arrays.items()}
    if media_type == NPZ:
        return write_npz(whole)
    (only,) = whole.values()
    file = BytesIO()
    np.save(file, only, allow_pickle=False)
    return file.getvalue()


def _png(arrays: Mapping[str, Any], spec: ModelSpec) -> bytes:
    """Return the picture that the model answers for the one sample."""
    name = picture_output(spec)
    assert name
    if len(arrays[name]) != 1:
        detail = f"a PNG holds the answer of one sample, the body has {len(arrays[name])}: send one, or ask for .npz"
        raise InvalidInput("Several pictures", detail)
    file = BytesIO()
    Image.fromarray(np.ascontiguousarray(arrays[name][0])).save(file, "PNG")
    return file.getvalue()
