"""Write predictions as response bodies, for the fast path and the ASGI route."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from io import BytesIO
from typing import Any

import numpy as np
import orjson
from numpy.typing import NDArray

from models.errors import InvalidInput
from models.spec import ModelSpec
from service.inference.batcher import Answer
from service.inference.decoding import Samples
from service.inference.pipeline import Stopwatch
from service.media_types import JSON, NPY
from service.telemetry.metrics import STAGES, Metrics
from service.web import problems
from service.web.answers import NO_STORE
from service.web.exchange import Reply, reply_of

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
_JSON_TYPE, _NPY_TYPE = JSON.encode(), NPY.encode()


@dataclass(slots=True, eq=False)
class PredictionRequest:
    """One request for predictions: model, wanted format, and the times of its stages."""

    model: str
    spec: ModelSpec
    npy: bool
    watch: Stopwatch = field(default_factory=Stopwatch)

    def answer(self, samples: Samples, answer: Answer, metrics: Metrics) -> Reply:
        """Return the reply with predictions, and count it. Raises InvalidInput."""
        write = _npy if self.npy else _json
        content, media_type = write(self.model, self.spec, samples, answer)
        spent_s = self.watch.stages(answer)
        metrics.stages(self.model, spent_s)
        headers = [
            (b"content-type", media_type),
            (b"content-length", b"%d" % len(content)),
            (b"x-model-version", b"%d" % answer.version),
            (b"server-timing", _TIMING % tuple(seconds * 1000 for seconds in spent_s)),
            NO_STORE,
        ]
        metrics.request(self.model, 200)
        return 200, headers, content

    def refuse(self, err: Exception, metrics: Metrics) -> Reply:
        """Return the reply to an error, and count it."""
        response = problems.of(err)
        metrics.request(self.model, response.status_code)
        return reply_of(response)


def wants_npy(accept: bytes) -> bool:
    """Return whether the Accept header asks for a .npy file, and prefers it to JSON or is indifferent."""
    if _NPY_TYPE not in accept:
        return False
    weights = {}
    for offer in accept.decode("latin-1").split(","):
        media_type, *parameters = (part.strip().lower() for part in offer.split(";"))
        weights[media_type] = next((_weight(part) for part in parameters if part.startswith("q=")), 1.0)
    return weights.get(NPY, 0) > 0 and weights[NPY] >= weights.get(JSON, 0)


def _weight(parameter: str) -> float:
    """Parse `q=0.5`. Returns 1 if it is not a number."""
    try:
        return float(parameter.removeprefix("q="))
    except ValueError:
        return 1.0


def _json(name: str, spec: ModelSpec, samples: Samples, answer: Answer) -> tuple[bytes, bytes]:
    """Return predictions in the order of the body's samples, as JSON; a failed sample has its error in its place."""
    finite = None if answer.finite else np.all(np.isfinite(answer.values), axis=1)
    predictions = in_order(spec.describe(answer.values), samples.errors, finite)
    body = {"model": name, "version": answer.version, "predictions": predictions}
    return orjson.dumps(body, option=orjson.OPT_SERIALIZE_NUMPY), _JSON_TYPE


def _npy(_: str, __: ModelSpec, samples: Samples, answer: Answer) -> tuple[bytes, bytes]:
    """Return values (N, k) as a float32 .npy file. An array cannot hold errors, so one bad sample fails the request."""
    if samples.errors:
        position = min(samples.errors)
        error = samples.errors[position]
        raise InvalidInput(error.title, f"sample {position}: {error.detail}. Ask for JSON to get the others' answers")
    if not (answer.finite or np.isfinite(answer.values).all()):
        raise NOT_FINITE
    file = BytesIO()
    np.save(file, np.ascontiguousarray(answer.values), allow_pickle=False)
    return file.getvalue(), _NPY_TYPE
