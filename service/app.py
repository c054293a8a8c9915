"""The wiring diagram of the web process."""

import time
from collections.abc import AsyncIterator, Hashable, Mapping
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

from fastapi import FastAPI
from fastapi_offline import FastAPIOffline
from starlette.routing import Route
from starlette.types import Lifespan

from models import catalog, device
from models.spec import Array, ModelSpec
from service import backends, docs, problems
from service.admission import Admission
from service.batcher import Batcher, Compute
from service.bodies import BodyReader
from service.child import Child, StartChild
from service.config import Settings
from service.engine import Engine
from service.explainer import Explainer
from service.exports import Exports
from service.imports import Importer
from service.jobs import Jobs
from service.keys import Guard, Keyring
from service.metrics import Metrics
from service.protocol import AT_HEAD, AtHead
from service.recipes import ReadRecipes, Recipes, read_recipes
from service.registry import Registry
from service.rollout import Rollout
from service.routes import explain, openinference, page, preview, repository, versions
from service.routes import jobs as job_routes
from service.routes import models as model_routes
from service.routes import ops as ops_routes
from service.routes.direct import Direct
from service.routes.infer import InferRoute
from service.routes.predict import Lane, Pipeline, PredictRoute
from service.store import Store

VERSION = "0.1.0"


def create_app(
    settings: Settings,
    specs: Mapping[str, ModelSpec] | None = None,
    pretrained: Path = catalog.PRETRAINED,
    read: ReadRecipes | None = None,
    start_child: StartChild = Child,
    shared: Path | None = None,
) -> FastAPI:
    """The application, of every model here and the shipped checkpoints, unless others are given.

    `start_child` starts the process that does what takes torch. `shared` is a folder through which web processes tell
    each other their metrics. Raises ValueError where the device is not to be had.
    """
    specs = catalog.specs() if specs is None else specs
    metrics = Metrics(shared)
    store = Store(settings.store, settings.database_url)
    exports = Exports(settings.store, start_child)
    where = device.resolve(settings.device)
    backend = backends.choose(settings.backend, where, exports, settings.web_processes, settings.max_batch)
    engine = Engine(specs, backend, settings.max_batch)
    rollout = Rollout(specs, store, pretrained, engine, metrics)
    pipeline = _pipeline(settings, engine, metrics)
    bodies = pipeline.bodies
    recipes = Recipes(read or partial(read_recipes, settings.store))

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[dict[str, AtHead]]:
        async with metrics.published(), recipes, rollout:
            yield {AT_HEAD: Direct(specs, pipeline, keys).at_head}
            await pipeline.batcher.drain()
        for part in (engine, exports, explainer, bodies, store):
            part.close()

    app = _bare(lifespan)
    keys = Keyring(settings.api_keys)
    app.add_middleware(Guard, keys=keys)
    app.router.routes.extend([*page.routes(), *PredictRoute(specs, pipeline, rollout.pinned).routes()])
    offered = repository.Offered(specs, engine, rollout)
    app.router.routes.extend(_v2(settings, offered, pipeline, engine, rollout, store))
    app.include_router(preview.router(specs, bodies))
    explainer = Explainer(settings.request_timeout_s, start_child)
    app.include_router(explain.router(specs, bodies, rollout, engine, Registry(store), explainer))
    importer = Importer(store, settings.data, recipes, start_child)
    app.include_router(model_routes.router(specs, engine, rollout, recipes, where))
    app.include_router(versions.versions_router(specs, Registry(store), importer, bodies))
    app.include_router(versions.promotions_router(specs, Registry(store), rollout))
    app.include_router(job_routes.router(specs, Jobs(store), settings.store, recipes))
    app.include_router(ops_routes.router(specs, rollout, metrics))
    problems.install(app)
    docs.describe(app, specs, locked=bool(settings.api_keys))
    return app


def _pipeline(settings: Settings, engine: Engine, metrics: Metrics) -> Pipeline:
    """What predictions go through, whatever language they speak."""
    compute = _compute(engine, metrics)
    batcher = Batcher(compute, max_batch=settings.max_batch, max_wait_s=settings.max_wait_ms / 1000)
    admission = Admission(batcher, settings.queue_limit, time.monotonic)
    metrics.waiting.set_function(lambda: admission.waiting)
    return Pipeline(
        bodies=BodyReader(settings.max_body_bytes, settings.max_pixels),
        admission=admission,
        batcher=batcher,
        metrics=metrics,
        timeout_s=settings.request_timeout_s,
    )


def _v2(
    settings: Settings,
    offered: repository.Offered,
    pipeline: Pipeline,
    engine: Engine,
    rollout: Rollout,
    store: Store,
) -> list[Route]:
    """The Open Inference Protocol: over the same batcher and engine as /predict."""
    metrics, registry = pipeline.metrics, Registry(store)
    described = openinference.routes(VERSION, offered, engine, rollout, registry, metrics, settings.max_batch)
    loading = repository.routes(offered, pipeline.bodies, rollout)
    return [*InferRoute(offered, pipeline).routes(), *described, *loading]


def _bare(lifespan: Lifespan[FastAPI]) -> FastAPI:
    """The application before it has any route of ours."""
    return FastAPIOffline(
        title="Torchloop",
        summary="Train, evaluate, promote, serve, roll back",
        version=VERSION,
        lifespan=lifespan,
        redoc_url=None,
        redirect_slashes=False,  # the address to go to would be made of the Host header
        telemetry={"tracing": False, "metrics": False, "logs": False},  # asks, at each request, who may be listening
    )


def _compute(engine: Engine, metrics: Metrics) -> Compute:
    """What the batcher does with a batch: the network is taken here, once for all its callers."""

    async def compute(lane: Hashable, samples: Array) -> tuple[int, Array]:
        assert isinstance(lane, Lane)  # the one kind of lane that the predict route makes
        loaded = lane.pinned or engine.live(lane.model)
        metrics.batch(lane.model, len(samples))
        return loaded.version, await engine.compute(loaded, samples)

    return compute
