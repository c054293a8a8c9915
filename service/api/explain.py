"""POST /explain/{model}: feature attributions of each answer. Bodies as for /predict."""

import asyncio
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import orjson
from fastapi import APIRouter, Request, Response
from starlette.requests import ClientDisconnect

from models.errors import CheckpointError, InvalidInput, TooManySamples, shown
from models.gradients import without_gradient
from models.samples import Batch, Columns, finite_rows
from models.spec import Method, ModelSpec
from service.api.bodies import RequestBodies
from service.api.predict import asked_version
from service.api.predictions import in_order
from service.delivery.registry import Registry
from service.delivery.rollout import Rollout
from service.errors import Conflict, Invalid, require_model
from service.inference.engine import Loaded
from service.inference.explainer import Explainer
from service.inference.pipeline import Pipeline
from service.media_types import JSON
from service.telemetry.ids import next_stem
from service.telemetry.metrics import Metrics
from service.web import problems
from service.web.auth import Access
from service.web.disconnect import unless_gone
from service.web.queries import require_known

ACCESS: Mapping[str, Access] = {
    "POST /explain/{model}": Access("predict", 400, 403, 404, 409, 413, 415, 422, 429, 503, 504),
}

_PARAMETERS = ("version", "method", "output")
MAX_SAMPLES = 256  # a gradient costs several forward passes, integrated gradients cost hundreds


def router(
    specs: Mapping[str, ModelSpec],
    bodies: RequestBodies,
    rollout: Rollout,
    pipeline: Pipeline,
    registry: Registry,
    explainer: Explainer,
    metrics: Metrics,
) -> APIRouter:
    """Return the route. It is described in openapi.py, as /predict is."""
    routes = APIRouter(include_in_schema=False)

    async def version_of(model: str, request: Request) -> Loaded:
        """Return the version that is asked for, or that answers predictions of the same key: a candidate, or live."""
        if (number := asked_version(model, request.query_params)) is not None:
            return await rollout.pinned(model, number)
        candidate = pipeline.candidate(model, dict(request.scope["headers"]), next_stem())
        return candidate or await pipeline.live(model)

    def checkpoint_of(loaded: Loaded) -> Path:
        try:
            return registry.fetched(registry.version(loaded.model, loaded.version)).resolve()
        except CheckpointError as err:
            raise Conflict(f"{loaded.model} cannot be explained: {err}") from err

    @routes.post("/explain/{model}")
    async def explain(
        model: str,
        request: Request,
        method: Method = "gradient",
        output: str | None = None,
    ) -> Response:
        require_model(model, specs)
        with counted(metrics, model):
            require_known(request.query_params, _PARAMETERS)
            return await answer(model, request, method, output_of(model, specs[model], output))

    async def answer(model: str, request: Request, method: Method, output: str) -> Response:
        loaded = await version_of(model, request)
        spec = loaded.spec
        samples = await bodies.samples(request.scope, request.receive, spec, loaded.coder)
        if samples.count > MAX_SAMPLES:
            raise TooManySamples(samples.count, MAX_SAMPLES)
        path, faults = await asyncio.to_thread(lambda: (checkpoint_of(loaded), faults_of(loaded)))
        inputs = [name for name in spec.inputs if name not in faults]
        computed = explainer.attributions(model, path, loaded.record, samples.good, method, inputs, output)
        outputs, attributions = await unless_gone(request.receive, computed)
        body: dict[str, Any] = {"model": model, "version": loaded.version}
        if output:
            body["output"] = output
        body["explanations"] = explanations(loaded, outputs, attributions, method, samples.errors, output)
        if isinstance(attributions, Columns):
            unused = (name for name in inputs if name not in attributions.arrays)
            body["no_gradient"] = faults | dict.fromkeys(unused, "the answer has no gradient by it")
        content = orjson.dumps(body, option=orjson.OPT_SERIALIZE_NUMPY)
        return Response(content, headers={"X-Model-Version": str(loaded.version)}, media_type=JSON)

    return routes


def output_of(model: str, spec: ModelSpec, asked: str | None) -> str:
    """Return the named output that is explained: the one asked for, or the first; empty if they have no names.

    Raises Invalid.
    """
    if asked is None or asked in spec.outputs:
        return asked or next(iter(spec.outputs), "")
    known = f"it has {', '.join(spec.outputs)}" if spec.outputs else "it has one, without a name: leave output out"
    raise Invalid(f"{model} has no output {shown(asked)!r}; {known}")


def faults_of(loaded: Loaded) -> dict[str, str]:
    """Return why some of a model's named inputs have no gradient. Raises Invalid if none has one."""
    if loaded.coder is None:
        return {}
    faults = without_gradient(loaded.spec, loaded.coder)
    if len(faults) == len(loaded.spec.inputs):
        reasons = "; ".join(f"{name}: {fault}" for name, fault in faults.items())
        raise Invalid(f"{loaded.model} cannot be explained: {reasons}")
    return faults


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


def explanations(
    loaded: Loaded,
    outputs: Batch,
    attributions: Batch,
    method: Method,
    errors: Mapping[int, InvalidInput],
    output: str = "",
) -> list[dict[str, Any]]:
    """Return one explanation per sample, in the order of the body; a failed sample has its error in its place.

    An explanation has a field of the sample's prediction, that of the output or else the first (label or value), and
    the arrays of `spec.explain`; with named inputs, each of these is a mapping by input. Raises InvalidInput if no
    answer is finite.
    """
    values = loaded.postprocess(outputs)
    entries = (
        {field: prediction[field], **arrays}
        for prediction, arrays in zip(
            loaded.describe(values), explained(loaded.spec, attributions, method), strict=True
        )
        for field in [output if output in prediction else next(iter(prediction))]
    )
    return in_order(entries, errors, finite_rows(values) & finite_rows(attributions))


def explained(spec: ModelSpec, attributions: Batch, method: Method) -> list[dict[str, Any]]:
    """Return the arrays of `spec.explain` for each sample; with named inputs each by input."""
    if not isinstance(attributions, Columns):
        named = {name: np.ascontiguousarray(rows) for name, rows in spec.explain(attributions, method).items()}
        return [{name: rows[position] for name, rows in named.items()} for position in range(len(attributions))]
    found: list[dict[str, Any]] = [{} for _ in range(len(attributions))]
    for name, column in attributions.arrays.items():
        for entry, row in zip(found, column, strict=True):
            for field, (array,) in spec.explain(row[None], method).items():
                entry.setdefault(field, {})[name] = np.ascontiguousarray(array) if array.ndim else array
    return found
