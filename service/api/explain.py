"""POST /explain/{model}: feature attributions of each answer. Bodies as for /predict."""

import asyncio
from collections.abc import Coroutine, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import orjson
from fastapi import APIRouter, Request, Response
from starlette.requests import ClientDisconnect

from models.errors import InvalidInput, TooManySamples
from models.samples import Batch, Columns
from models.spec import Array, Method, ModelSpec
from service.api.bodies import RequestBodies
from service.api.predict import asked_version
from service.api.predictions import in_order
from service.delivery.registry import Registry
from service.delivery.rollout import Rollout
from service.errors import Invalid, require_model
from service.inference.engine import Engine, Loaded
from service.inference.explainer import Explainer
from service.media_types import JSON
from service.telemetry.metrics import Metrics
from service.web import problems
from service.web.auth import Access

ACCESS: Mapping[str, Access] = {
    "POST /explain/{model}": Access("predict", 400, 403, 404, 409, 413, 415, 422, 429, 503, 504),
}

T = TypeVar("T")
MAX_SAMPLES = 256  # a gradient costs several forward passes, integrated gradients cost hundreds


def router(
    specs: Mapping[str, ModelSpec],
    bodies: RequestBodies,
    rollout: Rollout,
    engine: Engine,
    registry: Registry,
    explainer: Explainer,
    metrics: Metrics,
) -> APIRouter:
    """Return the route. It is described in openapi.py, as /predict is."""
    routes = APIRouter(include_in_schema=False)

    async def version_of(model: str, number: int | None) -> Loaded:
        return engine.live(model) if number is None else await rollout.pinned(model, number)

    def checkpoint_of(loaded: Loaded) -> Path:
        return registry.path(registry.version(loaded.model, loaded.version)).resolve()

    @routes.post("/explain/{model}")
    async def explain(
        model: str,
        request: Request,
        method: Method = "gradient",
    ) -> Response:
        require_model(model, specs)
        with counted(metrics, model):
            return await answer(model, request, method)

    async def answer(model: str, request: Request, method: Method) -> Response:
        if specs[model].inputs or specs[model].outputs:
            raise Invalid(f"{model} has named inputs or outputs, which cannot be explained")
        loaded = await version_of(model, asked_version(model, request.query_params))
        spec = loaded.spec
        samples = await bodies.samples(request.scope, request.receive, spec)
        if samples.count > MAX_SAMPLES:
            raise TooManySamples(samples.count, MAX_SAMPLES)
        path = await asyncio.to_thread(checkpoint_of, loaded)
        computed = explainer.attributions(model, path, loaded.record, _array(samples.good), method)
        outputs, attributions = await while_connected(request, computed)
        entries = explanations(loaded, outputs, attributions, method, samples.errors)
        content = orjson.dumps(
            {"model": model, "version": loaded.version, "explanations": entries},
            option=orjson.OPT_SERIALIZE_NUMPY,
        )
        return Response(content, headers={"X-Model-Version": str(loaded.version)}, media_type=JSON)

    return routes


def _array(samples: Batch) -> Array:
    """Return the samples of a one-tensor model."""
    assert not isinstance(samples, Columns)
    return samples


@contextmanager
def counted(metrics: Metrics, model: str) -> Iterator[None]:
    """Count the outcome of the request that is answered while the context is entered."""
    try:
        yield
    except ClientDisconnect:
        raise
    except Exception as err:
        metrics.explanation(model, problems.of(err).status_code)
        raise
    metrics.explanation(model, 200)


async def while_connected(request: Request, answer: Coroutine[Any, Any, T]) -> T:
    """Return the result of `answer`; cancel it when the client disconnects. Raises ClientDisconnect.

    The body of the request must have been read.
    """
    answering = asyncio.ensure_future(answer)
    leaving = asyncio.ensure_future(request.receive())
    try:
        await asyncio.wait({answering, leaving}, return_when=asyncio.FIRST_COMPLETED)
        if not answering.done():
            raise ClientDisconnect
        return answering.result()
    finally:
        answering.cancel()
        leaving.cancel()


def explanations(
    loaded: Loaded,
    outputs: Array,
    attributions: Array,
    method: Method,
    errors: Mapping[int, InvalidInput],
) -> list[dict[str, Any]]:
    """Return one explanation per sample, in the order of the body; a failed sample has its error in its place.

    An explanation has the first field of the sample's prediction (label or value) and the arrays of `spec.explain`.
    Raises InvalidInput if no answer is finite.
    """
    values = loaded.postprocess(outputs)
    named = {name: np.ascontiguousarray(rows) for name, rows in loaded.spec.explain(attributions, method).items()}
    numbers = np.concatenate([values, attributions.reshape(len(values), -1)], axis=1)
    entries = (
        {**dict([next(iter(prediction.items()))]), **{name: rows[position] for name, rows in named.items()}}
        for position, prediction in enumerate(loaded.describe(values))
    )
    return in_order(entries, errors, np.all(np.isfinite(numbers), axis=1))
