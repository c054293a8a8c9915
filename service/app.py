"""Composition root of the web process."""

import asyncio
import os
import time
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple
from uuid import uuid4

from fastapi import FastAPI
from fastapi_offline import FastAPIOffline
from starlette.routing import BaseRoute
from starlette.types import Lifespan

from models.spec import ModelSpec
from service.api import (
    access,
    dataset_uploads,
    documentation,
    explain,
    openapi,
    page,
    preview,
    replay,
    retrain,
    versions,
)
from service.api import captures as capture_routes
from service.api import changes as change_routes
from service.api import datasets as dataset_routes
from service.api import drift as drift_routes
from service.api import feedback as feedback_routes
from service.api import health as ops_routes
from service.api import jobs as job_routes
from service.api import models as model_routes
from service.api import nodes as node_routes
from service.api import thumbnails as thumbnail_routes
from service.api import trials as trial_routes
from service.api.captured import picture_files
from service.api.fast_predict import FastPath, predict_ways
from service.api.openinference import metadata, repository
from service.api.openinference.infer import InferRoute
from service.api.openinference.small import infer_ways
from service.api.predict import PredictRoute
from service.api.truth_forms import TruthForms
from service.data.capture import Capture, CaptureWriter
from service.data.captures import Captures
from service.data.datasets import Datasets
from service.data.drift import Drift
from service.data.drift_counter import DriftCounter
from service.data.drift_rows import DriftRows
from service.data.drift_states import DriftStates
from service.data.erasure import Erasure
from service.data.feedback import Feedback
from service.data.sampled import Waiting
from service.data.uploads import Uploads
from service.delivery.presence import Presence
from service.delivery.trial_control import TrialControl
from service.delivery.trial_leader import Leader
from service.delivery.trial_tally import Tallies
from service.delivery.trial_truths import TrialTruths
from service.delivery.trials import TrialEvent, Trials
from service.delivery.uploads import Importer
from service.execution.process import StartChild
from service.execution.recipes import ReadRecipes
from service.inference.explainer import Explainer
from service.inference.pipeline import Pipeline
from service.jobs.feed import Feed
from service.jobs.feed_retention import FeedRetention
from service.jobs.ingests import Ingests
from service.jobs.learning import Learning
from service.jobs.queue import Event
from service.jobs.retrain_rows import RetrainRows
from service.jobs.retrainer import Retrainer
from service.jobs.webhooks import Webhooks
from service.parts import SOFTWARE, VERSION, Parts, parts_of, with_defaults
from service.settings import Settings
from service.store.feed import Changes
from service.store.leadership import Leadership
from service.telemetry.metrics import Metrics
from service.telemetry.served import Served
from service.telemetry.tracing import tracing_of
from service.web import problems
from service.web.answers import Answers
from service.web.auth import Guard, Keyring
from service.web.cors import allow_origins, refusal_headers
from service.web.exchange import AT_HEAD, AT_REFUSAL, LEAVING, LOADS, REFUSED
from service.web.prefix import Prefix
from service.web.queries import check_queries
from service.web.started import Running, Started


def create_app(
    settings: Settings,
    specs: Mapping[str, ModelSpec] | None = None,
    pretrained: Path | None = None,
    read: ReadRecipes | None = None,
    start_child: StartChild | None = None,
    shared: Path | None = None,
    load_wait_s: float | None = None,
    address: str = "",
    now: Callable[[], float] = time.time,
) -> FastAPI:
    """Return the application with all models and the shipped checkpoints, unless others are given.

    `start_child` starts the torch subprocess. `shared` is a folder in which the web processes of one service share
    metrics and what they have loaded. The start waits `load_wait_s` seconds for the models, by default until each is
    loaded or has failed. `address` is where other machines reach the service, by default that of the settings. `now` is
    the clock by which drift is counted. Raises ValueError if the device is not available, ProjectError.
    """
    specs, shipped, read, start_child = with_defaults(settings, specs, pretrained, read, start_child)
    parts = parts_of(settings, specs, shipped, read, start_child, shared, load_wait_s, address)
    keys = Keyring(settings.api_keys, access.TABLE, settings.cors_origins)
    feed = Feed(parts.jobs, settings.max_event_streams)
    explainer, running = Explainer(settings.request_timeout_s, start_child), Running()
    observing = _observing(parts.specs, parts.pipeline)
    drift, offered = _drift(settings, parts, now), _offered(parts, shared)
    hooks = _hooks(settings, parts, offered, keys)
    presence, rollout = parts.presence, parts.rollout
    trials, capture = _trials(settings, parts), _capture(parts)
    changes = Feed(Changes(parts.store), settings.max_event_streams)
    webhooks = Webhooks(parts.store, settings.webhooks, uuid4().hex)
    learning, retrainer = _learning(settings, parts)
    retention = FeedRetention(Changes(parts.store), settings.keep_events_days)
    following: list[AbstractAsyncContextManager[object]] = [
        *(presence, rollout, parts.follower, trials.leader, feed, trials.feed, changes, webhooks, retrainer, retention),
    ]

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[dict[str, object]]:
        serving = _entered([parts.metrics.published(), parts.recipes, *following, *observing, capture, drift])
        async with serving, running.marked():
            await rollout.catch_up()
            yield {**hooks, LOADS: rollout, LEAVING: partial(_leave, presence, (feed, trials.feed, changes))}
            await parts.pipeline.batcher.drain()
            await asyncio.sleep(0)  # the last requests are shown to observers
        for part in (parts.engine, parts.exports, explainer, parts.threads, parts.store):
            part.close()

    app = _bare(lifespan)
    _add_middleware(app, settings, keys, parts.metrics)
    app.add_middleware(Started, running=running)
    _add_predictions(app, settings, parts, explainer, offered)
    importer = Importer(parts.store, settings.data, parts.recipes, start_child, judge_forms=settings.form != "fp32")
    _add_versions(app, parts, trials, importer, keys)
    _add_jobs(app, settings, parts, feed, learning, keys)
    _mount(app, drift_routes.router(parts.specs, parts.registry, drift.rows, drift.now).routes)
    _mount(app, change_routes.router(Changes(parts.store), changes).routes)
    _add_captures(app, parts, capture)
    problems.install(app)
    openapi.describe(app, parts.specs, access.TABLE, locked=bool(settings.api_keys))
    return app


def _observing(specs: Mapping[str, ModelSpec], pipeline: Pipeline) -> Sequence[AbstractAsyncContextManager[object]]:
    """Return the parts that see predictions after their answers, to be entered while the service runs."""
    tracing = tracing_of(os.environ, SOFTWARE)
    if tracing is None:
        return []
    for model in specs:
        pipeline.observers.add(model, tracing)
    return [tracing]


def _drift(settings: Settings, parts: Parts, now: Callable[[], float]) -> DriftCounter:
    """Wire the counts of what versions answer, and the metrics of drift."""

    def live(model: str) -> int | None:
        loaded = parts.engine.loaded(model)
        return None if loaded is None else loaded.version

    def show(model: str, found: Drift | None) -> None:
        findings = () if found is None else found.findings
        figures = {one.distribution.title: (one.psi, one.limit) for one in findings if one.window.any()}
        parts.metrics.drift(model, figures, alarm=found is not None and found.state == "drift")

    rows, states, keep_days = DriftRows(parts.store), DriftStates(parts.store), settings.keep_drift_days
    observers = parts.pipeline.observers
    return DriftCounter(parts.specs, observers, rows, states, live=live, show=show, keep_days=keep_days, now=now)


@asynccontextmanager
async def _entered(parts: Sequence[AbstractAsyncContextManager[object]]) -> AsyncIterator[None]:
    """Enter parts one after the other, and leave them in the other order."""
    async with AsyncExitStack() as stack:
        for part in parts:
            await stack.enter_async_context(part)
        yield


def _add_predictions(
    app: FastAPI, settings: Settings, parts: Parts, explainer: Explainer, offered: repository.Offered
) -> None:
    """Add the page, its documentation, and the routes of predictions, of the models and of the service's state."""
    specs, bodies, pipeline, rollout, threads = (
        parts.specs,
        parts.bodies,
        parts.pipeline,
        parts.rollout,
        parts.threads,
    )
    engine, metrics, registry = parts.engine, parts.metrics, parts.registry
    _mount(
        app,
        page.routes(),
        documentation.routes(app),
        PredictRoute(specs, bodies, pipeline, threads, rollout.pinned).routes(),
        InferRoute(offered, bodies, pipeline, threads).routes(),
        metadata.routes(VERSION, offered, engine, rollout, registry, metrics, settings.max_batch),
        repository.routes(offered, bodies, rollout),
        preview.router(specs, bodies, pipeline.live).routes,
        explain.router(specs, bodies, rollout, pipeline, registry, explainer, metrics).routes,
        model_routes.router(specs, engine, pipeline.networks, rollout, parts.recipes, parts.device).routes,
        ops_routes.router(specs, rollout, metrics, parts.store).routes,
        node_routes.router(parts.presence).routes,
    )


class _Trials(NamedTuple):
    """The parts of trials."""

    trials: Trials
    tallies: Tallies
    control: TrialControl
    leader: Leader
    feed: Feed[TrialEvent]


def _trials(settings: Settings, parts: Parts) -> _Trials:
    """Wire the trials of candidates."""
    trials, tallies = Trials(parts.store), Tallies(parts.store)
    leadership, rollout = Leadership(parts.store, "trials", uuid4().hex), parts.rollout
    return _Trials(
        trials,
        tallies,
        TrialControl(trials, rollout, parts.follower.everywhere),
        Leader(
            trials,
            tallies,
            leadership,
            rollout.promote_by,
            parts.metrics.trials,
            note_truths=TrialTruths(parts.store, trials, parts.specs).note,
        ),
        Feed(trials, settings.max_event_streams, address="/trials"),
    )


def _add_versions(app: FastAPI, parts: Parts, trials: _Trials, importer: Importer, keys: Keyring) -> None:
    """Add the routes of versions, promotions and trials."""
    specs, registry = parts.specs, parts.registry
    _mount(
        app,
        versions.versions_router(specs, registry, importer, parts.bodies).routes,
        versions.promotions_router(specs, registry, parts.rollout, trials.trials).routes,
        trial_routes.router(specs, trials.trials, trials.tallies, trials.control, trials.feed, keys).routes,
    )


def _leave(presence: Presence, feeds: Iterable[Feed[Any]]) -> None:
    """Tell the other nodes that this one stops, and end all streams."""
    presence.leaving()
    for feed in feeds:
        feed.leave()


def _learning(settings: Settings, parts: Parts) -> tuple[Learning, Retrainer]:
    """Wire the training on feedback."""
    uploads, most = Uploads(parts.store, settings.max_dataset_bytes), settings.max_queued_jobs
    learning = Learning(parts.specs, parts.store, parts.jobs, uploads)
    return learning, Retrainer(parts.store, learning, parts.recipes, uuid4().hex, most)


def _add_jobs(
    app: FastAPI, settings: Settings, parts: Parts, feed: Feed[Event], learning: Learning, keys: Keyring
) -> None:
    """Add the routes of jobs, and of the datasets that jobs make and train on."""
    specs, jobs, recipes, storage = parts.specs, parts.jobs, parts.recipes, parts.store.storage
    datasets, ingests = Datasets(parts.store), Ingests(parts.store, jobs)
    uploads, most = Uploads(parts.store, settings.max_dataset_bytes), settings.max_queued_jobs
    bound = settings.max_resources
    _mount(
        app,
        job_routes.router(specs, jobs, datasets, learning, feed, storage, recipes, keys, most, bound).routes,
        dataset_routes.router(specs, datasets, uploads, ingests, storage, recipes, parts.bodies, keys, most).routes,
        thumbnail_routes.router(specs, datasets, jobs, storage).routes,
        dataset_uploads.router(specs, uploads, ingests, recipes, keys, most).routes,
        retrain.router(specs, RetrainRows(parts.store), datasets, recipes, keys).routes,
    )


def _capture(parts: Parts) -> Capture:
    """Wire the capture of answered samples."""

    def backend(model: str, version: int) -> str | None:
        loaded = parts.engine.loaded(model)
        return loaded.network.backend if loaded is not None and loaded.version == version else None

    def form_of(served: Served) -> str | None:
        loaded = parts.engine.loaded(served.model)
        if loaded is None or loaded.version != served.version:
            return served.form
        return served.form or loaded.network.form_of(served.batch_size, served.arrived)

    waiting, files, count = Waiting(), partial(picture_files, specs=parts.specs), parts.metrics.captures
    writer = CaptureWriter(parts.specs, Captures(parts.store), waiting, count, backend, files)
    return Capture(parts.pipeline.observers, parts.store, writer, waiting, count, form_of)


def _add_captures(app: FastAPI, parts: Parts, capture: Capture) -> None:
    """Add the routes of captures, feedback and replay."""
    specs, store, registry = parts.specs, parts.store, parts.registry
    captures, feedback = Captures(store), Feedback(store)
    _mount(
        app,
        capture_routes.router(specs, captures, feedback, Erasure(store), capture.follow).routes,
        feedback_routes.router(specs, TruthForms(parts.engine), feedback, registry, store).routes,
        replay.router(specs, captures, feedback, registry, parts.pipeline, parts.rollout.pinned).routes,
    )


def _mount(app: FastAPI, *groups: Sequence[BaseRoute]) -> None:
    """Add routes as they are; include_router would build each of them twice."""
    for routes in groups:
        check_queries(routes)
        app.router.routes.extend(routes)


def _offered(parts: Parts, shared: Path | None) -> repository.Offered:
    return repository.Offered(parts.specs, parts.engine, parts.rollout, parts.pipeline, shared)


def _hooks(settings: Settings, parts: Parts, offered: repository.Offered, keys: Keyring) -> dict[str, object]:
    """Return the callbacks that the server calls before, or instead of, the application: see `service.web.exchange`."""
    pipeline, ready = parts.pipeline, parts.rollout.ready
    ways = {**predict_ways(parts.specs, pipeline, parts.bodies, ready), **infer_ways(offered, pipeline, ready)}
    origins = settings.cors_origins
    fast = FastPath(ways, pipeline, keys, root_path=settings.root_path, cross_origin=bool(origins))
    refusal = partial(refusal_headers, origins)
    return {AT_HEAD: fast.at_head, AT_REFUSAL: refusal, REFUSED: pipeline.admission.refused}


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
