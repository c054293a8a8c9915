"""Predictions -> response bodies, shared by the fast path and the ASGI route."""

import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from io import BytesIO
from typing import Any

import numpy as np
import orjson
from numpy.typing import NDArray
from starlette.responses import Response

from models.errors import InvalidInput
from models.spec import ModelSpec
from service.errors import ServiceError
from service.inference.batcher import Answer
from service.inference.decoding import Samples
from service.media_types import JSON, NPY
from service.telemetry.collectors import STAGES
from service.telemetry.metrics import Metrics
from service.web.problems import internal_error, of_invalid_input, of_service_error
from service.web.protocol import Reply, reply_of

NOT_FINITE = InvalidInput("No finite answer", "the network's answer is not a finite number: the input is out of range")


def in_order(
    entries: Iterable[Any],
    errors: Mapping[int, InvalidInput],
    finite: NDArray[np.bool_] | None = None,
) -> list[Any]:
    """One entry a sample, as an answer to several has them: of each sample that failed, its error in its place.

    `entries` are those of the good samples, `errors` those of the others by position; `finite` says of which entries
    the numbers are finite, None: of all. Raises NOT_FINITE where they are of none.
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


_JSON_TYPE, _NPY_TYPE = JSON.encode(), NPY.encode()


@dataclass(slots=True, eq=False)
class Asked:
    """One request to a model, and when which part of it was done."""

    model: str
    spec: ModelSpec
    wants_npy: bool
    arrived: float = field(default_factory=time.perf_counter)
    decoded: float = 0.0

    def answer(self, samples: Samples, answer: Answer, metrics: Metrics) -> Reply:
        """The reply, counted. Raises InvalidInput."""
        write = _npy if self.wants_npy else _json
        content, media_type = write(self.model, self.spec, samples, answer)
        decode_s, total_s = self.decoded - self.arrived, time.perf_counter() - self.arrived
        spent_s = (decode_s, answer.queue_s, answer.forward_s, total_s)
        metrics.stages(self.model, spent_s)
        headers = [
            (b"content-type", media_type),
            (b"content-length", b"%d" % len(content)),
            (b"x-model-version", b"%d" % answer.version),
            (b"server-timing", _TIMING % tuple(seconds * 1000 for seconds in spent_s)),
        ]
        metrics.request(self.model, 200)
        return 200, headers, content

    def refuse(self, err: ServiceError | InvalidInput, metrics: Metrics) -> Reply:
        """The reply to what failed so, counted."""
        return self._whole(of_service_error(err) if isinstance(err, ServiceError) else of_invalid_input(err), metrics)

    def fail(self, metrics: Metrics) -> Reply:
        """The reply to what failed as nobody foresaw, counted."""
        return self._whole(internal_error(), metrics)

    def _whole(self, response: Response, metrics: Metrics) -> Reply:
        metrics.request(self.model, response.status_code)
        return reply_of(response)


def wants_npy(accept: bytes) -> bool:
    """By the Accept header."""
    return _NPY_TYPE in accept


def _json(name: str, spec: ModelSpec, samples: Samples, answer: Answer) -> tuple[bytes, bytes]:
    """Predictions in the order of the body's samples; what failed has its error in its place."""
    finite = None if answer.finite else np.all(np.isfinite(answer.values), axis=1)
    predictions = in_order(spec.describe(answer.values), samples.errors, finite)
    body = {"model": name, "version": answer.version, "predictions": predictions}
    return orjson.dumps(body, option=orjson.OPT_SERIALIZE_NUMPY), _JSON_TYPE


def _npy(_: str, __: ModelSpec, samples: Samples, answer: Answer) -> tuple[bytes, bytes]:
    """Values (N, k) float32. An array has no place for errors, so one bad sample fails the request."""
    if samples.errors:
        position = min(samples.errors)
        error = samples.errors[position]
        raise InvalidInput(error.title, f"sample {position}: {error.detail}. Ask for JSON to get the others' answers")
    if not (answer.finite or np.isfinite(answer.values).all()):
        raise NOT_FINITE
    file = BytesIO()
    np.save(file, np.ascontiguousarray(answer.values), allow_pickle=False)
    return file.getvalue(), _NPY_TYPE
