"""The wiring diagram of the web process."""

import os
from collections.abc import AsyncIterator, Hashable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path

from fastapi import FastAPI
from fastapi_offline import FastAPIOffline
from starlette.types import Lifespan

from models import catalog, device
from models.spec import Array, ModelSpec
from service import backends, docs, problems
from service.batcher import Batcher, Compute
from service.bodies import BodyReader
from service.child import Child, StartChild
from service.config import Settings, configure_logging, from_environment
from service.engine import Engine
from service.explainer import Explainer
from service.exports import Exports
from service.imports import Importer
from service.jobs import Jobs
from service.keys import KeyGuard
from service.metrics import Metrics
from service.recipes import ReadRecipes, Recipes, read_recipes
from service.registry import Registry
from service.rollout import Rollout
from service.routes import explain, versions
from service.routes import jobs as job_routes
from service.routes import models as model_routes
from service.routes import ops as ops_routes
from service.routes.predict import Lane, PredictRoute, ShortCut
from service.store import Store

VERSION = "0.1.0"


def from_settings() -> FastAPI:
    """The application as the environment says: what uvicorn calls in each web process."""
    settings = from_environment(os.environ)
    configure_logging(settings.log_format)
    return create_app(settings)


def create_app(
    settings: Settings,
    specs: Mapping[str, ModelSpec] | None = None,
    pretrained: Path = catalog.PRETRAINED,
    read: ReadRecipes = read_recipes,
    start_child: StartChild = Child,
) -> FastAPI:
    """The application, of every model here and the shipped checkpoints, unless others are given.

    `start_child` starts the process that does what takes torch. Raises ValueError where the device is not to be had.
    """
    specs = catalog.specs() if specs is None else specs
    metrics = Metrics()
    store = Store(settings.store, settings.database_url)
    exports = Exports(settings.store, start_child)
    where = device.resolve(settings.device)
    backend = backends.choose(settings.backend, where, exports, settings.web_processes, settings.max_batch)
    engine = Engine(specs, backend, settings.max_batch)
    rollout = Rollout(specs, store, pretrained, engine, metrics)
    bodies = BodyReader(settings.max_body_bytes, settings.max_pixels)

    batcher = Batcher(
        _compute(engine, metrics),
        max_batch=settings.max_batch,
        max_wait_s=settings.max_wait_ms / 1000,
        queue_limit=settings.queue_limit,
    )
    recipes = Recipes(read)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        async with recipes, rollout:
            yield
            await batcher.drain()
        engine.close()
        exports.close()
        explainer.close()
        bodies.close()
        store.close()

    app = _bare(lifespan)
    predict = PredictRoute(specs, bodies, batcher, rollout.pinned, metrics, settings.request_timeout_s)
    app.add_middleware(ShortCut, predict=predict, models=specs)
    app.add_middleware(KeyGuard, keys=settings.api_keys)
    app.router.routes.extend(predict.routes())
    explainer = Explainer(settings.request_timeout_s, start_child)
    app.include_router(explain.router(specs, bodies, rollout, engine, Registry(store), explainer))
    importer = Importer(store, settings.data, recipes, start_child)
    app.include_router(model_routes.router(specs, engine, rollout, recipes, where))
    app.include_router(versions.versions_router(specs, Registry(store), importer, bodies))
    app.include_router(versions.promotions_router(specs, Registry(store), rollout))
    app.include_router(job_routes.router(specs, Jobs(store), settings.store, recipes))
    app.include_router(ops_routes.router(specs, rollout, batcher, metrics))
    problems.install(app)
    docs.describe(app, specs)
    return app


def _bare(lifespan: Lifespan[FastAPI]) -> FastAPI:
    """The application before it has any route of ours."""
    return FastAPIOffline(
        title="Torchloop",
        summary="Train, evaluate, promote, serve, roll back",
        version=VERSION,
        lifespan=lifespan,
        redoc_url=None,
        telemetry={"tracing": False, "metrics": False, "logs": False},  # asks, at each request, who may be listening
    )


def _compute(engine: Engine, metrics: Metrics) -> Compute:
    """What the batcher does with a batch: the network is taken here, once for all its callers."""

    async def compute(lane: Hashable, samples: Array) -> tuple[int, Array]:
        assert isinstance(lane, Lane)  # the one kind of lane that the predict route makes
        loaded = lane.pinned or engine.live(lane.model)
        metrics.batch_size.labels(lane.model).observe(len(samples))
        return loaded.version, await engine.compute(loaded, samples)

    return compute
