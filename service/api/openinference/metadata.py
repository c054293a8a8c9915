"""GET routes of the Open Inference Protocol: server and model metadata, readiness, statistics."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from models.coding import example_samples
from models.samples import Columns
from service.api.openinference import signature
from service.api.openinference.repository import Offered, answer
from service.api.openinference.statistics import model_stats
from service.delivery.registry import Registry
from service.delivery.rollout import Rollout
from service.errors import NotFound, ServiceError
from service.inference.engine import Engine, Loaded
from service.telemetry.metrics import Metrics
from service.web.auth import Access

ACCESS: Mapping[str, Access] = {
    "GET /v2": Access("predict"),
    "GET /v2/": Access("predict"),
    "GET /v2/models/stats": Access("predict"),
    "GET /v2/models/{model}": Access("predict"),
    "GET /v2/models/{model}/ready": Access("predict"),
    "GET /v2/models/{model}/config": Access("predict"),
    "GET /v2/models/{model}/stats": Access("predict"),
    "GET /v2/models/{model}/versions/{version}": Access("predict"),
    "GET /v2/models/{model}/versions/{version}/ready": Access("predict"),
    "GET /v2/models/{model}/versions/{version}/config": Access("predict"),
    "GET /v2/models/{model}/versions/{version}/stats": Access("predict"),
    "GET /v2/health/live": Access(None),
    "GET /v2/health/ready": Access(None),
}

EXTENSIONS = [
    "binary_tensor_data",
    "classification",
    "model_configuration",
    "model_repository",
    "model_repository(unload_dependents)",
    "statistics",
]
_MODEL = "/v2/models/{model}"
_VERSION = "/v2/models/{model}/versions/{version}"
Endpoint = Callable[[Request], Awaitable[Response]]


class Descriptions:
    """The endpoints that describe models."""

    def __init__(self, offered: Offered, engine: Engine, registry: Registry, metrics: Metrics, max_batch: int) -> None:
        self._offered = offered
        self._engine = engine
        self._registry = registry
        self._metrics = metrics
        self._max_batch = max_batch
        self._widths: dict[tuple[str, int], int] = {}

    async def metadata(self, request: Request) -> Response:
        """The model's tensors and versions."""
        name, loaded = await self._loaded(request)
        versions = [version.version for version in await asyncio.to_thread(self._registry.versions, name)]
        return answer(signature.metadata(name, self._offered.specs[name], versions, await self._width(loaded)))

    async def configuration(self, request: Request) -> Response:
        """The model's tensors in the form of a Triton configuration."""
        name, loaded = await self._loaded(request)
        width = await self._width(loaded)
        return answer(signature.configuration(name, self._offered.specs[name], width, self._max_batch))

    async def ready(self, request: Request) -> Response:
        """Whether infer has a network to run."""
        name = self._offered.known(request)
        try:
            if await self._offered.pinned(request) is None:
                self._offered.require_live(name)
        except NotFound:
            raise
        except ServiceError as err:
            return answer({"name": name, "ready": False, "error": err.detail}, 503)
        return answer({"name": name, "ready": True})

    async def statistics(self, request: Request) -> Response:
        """Statistics of one model, summed over its versions; the version shown is the live one."""
        name = self._offered.known(request)
        asked, version = request.path_params.get("version"), self._offered.version(name)
        if asked not in {None, version}:
            raise NotFound(f"statistics are kept by model; of {name} version {version or 'none'} answers here")
        return answer({"model_stats": [model_stats(self._metrics, name, version)]})

    async def all_statistics(self, _: Request) -> Response:
        """Statistics of all models."""
        stats = [model_stats(self._metrics, name, self._offered.version(name)) for name in self._offered.specs]
        return answer({"model_stats": stats})

    async def _loaded(self, request: Request) -> tuple[str, Loaded | None]:
        name = self._offered.known(request)
        return name, await self._offered.pinned(request) or self._engine.loaded(name)

    async def _width(self, loaded: Loaded | None) -> int:
        """Return k of the values (N, k), computed from the spec's example once per version.

        -1 if no version is loaded, or the outputs are named: the spec has their shapes.
        """
        if loaded is None or loaded.spec.outputs:
            return -1
        key = (loaded.model, loaded.version)
        if key not in self._widths:
            values = await self._engine.compute(loaded, example_samples(loaded.spec, loaded.coder))
            assert not isinstance(values, Columns)
            self._widths[key] = values.shape[1]
        return self._widths[key]


def routes(
    server_version: str,
    offered: Offered,
    engine: Engine,
    rollout: Rollout,
    registry: Registry,
    metrics: Metrics,
    max_batch: int,
) -> list[Route]:
    """Return the routes."""
    described = Descriptions(offered, engine, registry, metrics, max_batch)

    async def server(_: Request) -> Response:
        return answer({"name": "torchloop", "version": server_version, "extensions": EXTENSIONS})

    async def live(_: Request) -> Response:
        return answer({"live": True})

    async def ready(_: Request) -> Response:
        if reasons := rollout.not_ready:
            error = "; ".join(f"{name}: {reason}" for name, reason in reasons.items())
            return answer({"ready": False, "error": error}, 503)
        return answer({"ready": True})

    return [
        _get("/v2", server),
        _get("/v2/", server),
        _get("/v2/health/live", live),
        _get("/v2/health/ready", ready),
        _get("/v2/models/stats", described.all_statistics),
        *_both("", described.metadata),
        *_both("/ready", described.ready),
        *_both("/config", described.configuration),
        *_both("/stats", described.statistics),
    ]


def _both(path: str, endpoint: Endpoint) -> list[Route]:
    """Return the route of a model and that of one of its versions."""
    return [_get(_MODEL + path, endpoint), _get(_VERSION + path, endpoint)]


def _get(path: str, endpoint: Endpoint) -> Route:
    return Route(path, endpoint, methods=["GET"])
