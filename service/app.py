"""Composition root of the web process."""

import os
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

from fastapi import FastAPI
from fastapi_offline import FastAPIOffline
from starlette.types import Lifespan

from models import catalog, device
from models.project import Project
from models.spec import ModelSpec
from service.api import access, dataset_uploads, documentation, explain, openapi, page, preview, versions
from service.api import datasets as dataset_routes
from service.api import health as ops_routes
from service.api import jobs as job_routes
from service.api import models as model_routes
from service.api import nodes as node_routes
from service.api import thumbnails as thumbnail_routes
from service.api.bodies import RequestBodies
from service.api.fast_predict import FastPath
from service.api.openinference import metadata, repository
from service.api.openinference.infer import InferRoute
from service.api.predict import PredictRoute
from service.data.datasets import Datasets
from service.data.uploads import Uploads
from service.delivery.followers import Followers
from service.delivery.presence import Presence, Work
from service.delivery.registry import Registry
from service.delivery.rollout import Rollout
from service.delivery.uploads import Importer
from service.execution.process import Child, StartChild
from service.execution.recipes import ReadRecipes, Recipes, ask_training, read_recipes
from service.execution.threads import Threads
from service.inference.admission import Admission
from service.inference.backends import choice
from service.inference.backends.exports import Exports
from service.inference.batcher import Batcher
from service.inference.decoding import Decoder
from service.inference.engine import Engine
from service.inference.explainer import Explainer
from service.inference.pipeline import Pipeline, held_by, networks_of
from service.inference.working_set import WorkingSet
from service.jobs.feed import Feed
from service.jobs.ingests import Ingests
from service.jobs.queue import Jobs
from service.settings import Settings
from service.store.database import Store
from service.telemetry.metrics import Metrics
from service.web import problems
from service.web.answers import Answers
from service.web.auth import Guard, Keyring
from service.web.cors import allow_origins, refusal_headers
from service.web.exchange import AT_HEAD, AT_REFUSAL, LEAVING, LOADS
from service.web.prefix import Prefix
from service.web.started import Running, Started

VERSION = "0.1.0"


def create_app(
    settings: Settings,
    specs: Mapping[str, ModelSpec] | None = None,
    pretrained: Path | None = None,
    read: ReadRecipes | None = None,
    start_child: StartChild | None = None,
    shared: Path | None = None,
    load_wait_s: float | None = None,
    address: str = "",
) -> FastAPI:
    """Return the application with all models and the shipped checkpoints, unless others are given.

    `start_child` starts the torch subprocess. `shared` is a folder in which the web processes of one service share
    metrics and what they have loaded. The start waits `load_wait_s` seconds for the models, by default until each is
    loaded or has failed. `address` is where other machines reach the service, by default that of the settings.
    Raises ValueError if the device is not available, ProjectError.
    """
    specs, shipped, read, start_child = _defaults(settings, specs, pretrained, read, start_child)
    metrics = Metrics(shared)
    store = Store.of(settings, metrics.failed_write)
    exports = Exports(store.storage, start_child, shipped[-1])
    where = device.resolve(settings.device)
    backend = choice.choose(settings.backend, where, exports, settings.web_processes, settings.max_batch)
    engine = Engine(specs, backend, settings.max_batch)
    threads, recipes, registry, jobs = Threads(), Recipes(read), Registry(store), Jobs(store)
    pipeline = _pipeline(settings, engine, metrics, Decoder(settings.max_pixels, threads, settings.max_body_bytes))
    presence = _presence(settings, store, Followers(shared), list(specs), address, metrics, pipeline.admission)
    rollout = Rollout(specs, store, shipped, engine, metrics, presence, pipeline.networks, load_wait_s=load_wait_s)
    specs = engine.served()
    bodies = RequestBodies(settings.max_body_bytes, settings.max_checkpoint_bytes, pipeline.decoder, threads)
    feed, running = Feed(jobs, settings.max_event_streams), Running()
    refusal = partial(refusal_headers, settings.cors_origins)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[dict[str, object]]:
        async with metrics.published(), recipes, presence, rollout, feed, running.marked():
            yield {AT_HEAD: fast.at_head, AT_REFUSAL: refusal, LOADS: rollout, LEAVING: presence.leaving}
            await pipeline.batcher.drain()
        for part in (engine, exports, explainer, threads, store):
            part.close()

    app, keys = _bare(lifespan), Keyring(settings.api_keys, access.TABLE, settings.cors_origins)
    fast = _fast_path(settings, specs, pipeline, keys)
    _add_middleware(app, settings, keys, metrics)
    app.add_middleware(Started, running=running)
    app.router.routes.extend([*page.routes(), *documentation.routes(app)])  # include_router would build each twice
    app.router.routes.extend(PredictRoute(specs, bodies, pipeline, threads, rollout.pinned).routes())
    offered = repository.Offered(specs, engine, rollout, pipeline, shared)
    _add_v2(app, offered, engine, rollout, registry, metrics, bodies, pipeline, threads, settings.max_batch)
    app.router.routes.extend(preview.router(specs, bodies, pipeline.live).routes)
    explainer = Explainer(settings.request_timeout_s, start_child)
    app.router.routes.extend(explain.router(specs, bodies, rollout, pipeline.live, registry, explainer, metrics).routes)
    app.router.routes.extend(model_routes.router(specs, engine, pipeline.networks, rollout, recipes, where).routes)
    _add_versions(app, specs, registry, rollout, Importer(store, settings.data, recipes, start_child), bodies)
    _add_jobs(app, settings, specs, store, jobs, feed, recipes, bodies, keys)
    app.router.routes.extend(ops_routes.router(specs, rollout, metrics, store).routes)
    app.router.routes.extend(node_routes.router(presence).routes)
    problems.install(app)
    openapi.describe(app, specs, access.TABLE, locked=bool(settings.api_keys))
    return app


def _defaults(
    settings: Settings,
    specs: Mapping[str, ModelSpec] | None,
    pretrained: Path | None,
    read: ReadRecipes | None,
    start_child: StartChild | None,
) -> tuple[Mapping[str, ModelSpec], Sequence[Path], ReadRecipes, StartChild]:
    """Complete the arguments of create_app with the models of the settings: built-in ones, and the project folder's."""
    project = Project(settings.project, settings.builtin == "on")
    environ = {**os.environ, **project.variables}
    return (
        catalog.specs(project) if specs is None else specs,
        project.pretrained(catalog.PRETRAINED) if pretrained is None else (pretrained,),
        read or partial(read_recipes, settings.store, partial(ask_training, environ)),
        start_child or partial(Child, environ),
    )


def _presence(
    settings: Settings,
    store: Store,
    followers: Followers,
    models: Sequence[str],
    address: str,
    metrics: Metrics,
    admission: Admission,
) -> Presence:
    """Wire the row of this service in the table of nodes."""
    return Presence(
        store,
        followers,
        models,
        address=address or f"{settings.host}:{settings.port}",
        software=f"torchloop {VERSION}",
        work=lambda: Work(admission.waiting, metrics.answered),
        count=metrics.nodes,
    )


def _pipeline(settings: Settings, engine: Engine, metrics: Metrics, decoder: Decoder) -> Pipeline:
    """Wire the stages of a prediction."""
    take, networks = networks_of(engine, metrics), WorkingSet(engine, settings.max_loaded)
    wait_s = settings.max_wait_ms / 1000
    batcher = Batcher(take, max_batch=settings.max_batch, max_wait_s=wait_s, hold=held_by(networks))
    admission = Admission(batcher, settings.queue_limit, time.monotonic)
    metrics.waiting.set_function(lambda: admission.waiting)
    return Pipeline(
        decoder=decoder,
        admission=admission,
        batcher=batcher,
        metrics=metrics,
        timeout_s=settings.request_timeout_s,
        networks=networks,
    )


def _add_versions(
    app: FastAPI,
    specs: Mapping[str, ModelSpec],
    registry: Registry,
    rollout: Rollout,
    importer: Importer,
    bodies: RequestBodies,
) -> None:
    """Add the routes of versions and promotions."""
    app.router.routes.extend(versions.versions_router(specs, registry, importer, bodies).routes)
    app.router.routes.extend(versions.promotions_router(specs, registry, rollout).routes)


def _add_v2(
    app: FastAPI,
    offered: repository.Offered,
    engine: Engine,
    rollout: Rollout,
    registry: Registry,
    metrics: Metrics,
    bodies: RequestBodies,
    pipeline: Pipeline,
    threads: Threads,
    max_batch: int,
) -> None:
    """Add the routes of the Open Inference Protocol."""
    described = metadata.routes(VERSION, offered, engine, rollout, registry, metrics, max_batch)
    app.router.routes.extend([*InferRoute(offered, bodies, pipeline, threads).routes(), *described])
    app.router.routes.extend(repository.routes(offered, bodies, rollout))


def _add_jobs(
    app: FastAPI,
    settings: Settings,
    specs: Mapping[str, ModelSpec],
    store: Store,
    jobs: Jobs,
    feed: Feed,
    recipes: ReadRecipes,
    bodies: RequestBodies,
    keys: Keyring,
) -> None:
    """Add the routes of jobs, and of the datasets that jobs make and train on."""
    storage, datasets, ingests = store.storage, Datasets(store), Ingests(store, jobs)
    uploads, most = Uploads(store, settings.max_dataset_bytes), settings.max_queued_jobs
    bound = settings.max_resources
    for routes in (
        job_routes.router(specs, jobs, datasets, feed, storage, recipes, keys, most, bound),
        dataset_routes.router(specs, datasets, uploads, ingests, storage, recipes, bodies, keys, most),
        thumbnail_routes.router(specs, datasets, jobs, storage),
        dataset_uploads.router(specs, uploads, ingests, recipes, keys, most),
    ):
        app.router.routes.extend(routes.routes)


def _fast_path(settings: Settings, specs: Mapping[str, ModelSpec], pipeline: Pipeline, keys: Keyring) -> FastPath:
    return FastPath(
        specs,
        pipeline,
        keys,
        settings.max_body_bytes,
        root_path=settings.root_path,
        cross_origin=bool(settings.cors_origins),
    )


def _add_middleware(app: FastAPI, settings: Settings, keys: Keyring, metrics: Metrics) -> None:
    """Wrap the application; the last one added is the outermost."""
    app.add_middleware(Guard, keys=keys, refused=metrics.refused)
    app.add_middleware(Answers)
    if settings.root_path or settings.trusted_proxies:
        app.add_middleware(Prefix, root_path=settings.root_path, trusted=settings.trusted_proxies)
    if settings.cors_origins:
        app.add_middleware(allow_origins, origins=settings.cors_origins)  # a preflight request brings no key


def _bare(lifespan: Lifespan[FastAPI]) -> FastAPI:
    """Return the application without routes."""
    return FastAPIOffline(
        title="Torchloop",
        summary="Train, evaluate, promote, serve, roll back",
        version=VERSION,
        lifespan=lifespan,
        docs_url=None,  # see service.api.documentation
        redoc_url=None,
        redirect_slashes=False,  # the redirect address would come from the Host header
        telemetry={"tracing": False, "metrics": False, "logs": False},  # would look for listeners at each request
    )
