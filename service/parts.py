"""Objects of the web process that several groups of routes use, wired to each other. See app.py."""

import os
import time
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

from models import catalog, device
from models.checkpoints.verdict import Limits
from models.project import Project
from models.spec import ModelSpec
from service.api.bodies import RequestBodies
from service.delivery.followers import Followers
from service.delivery.presence import Presence, Work
from service.delivery.registry import Registry
from service.delivery.rollout import Rollout
from service.delivery.trial_follower import TrialFollower
from service.execution.process import Child, StartChild
from service.execution.recipes import ReadRecipes, Recipes, ask_training, read_recipes
from service.execution.threads import Threads
from service.inference.admission import Admission
from service.inference.backends import choice
from service.inference.backends.backend import Backend
from service.inference.backends.exports import Exports
from service.inference.backends.forms import Policy
from service.inference.batcher import Batcher
from service.inference.decoding import Decoder
from service.inference.engine import Engine
from service.inference.pipeline import Pipeline, held_by, networks_of
from service.inference.working_set import WorkingSet
from service.jobs.queue import Jobs
from service.settings import Settings
from service.store.database import Store
from service.telemetry.metrics import Metrics

VERSION = "0.1.0"
SOFTWARE = f"torchloop {VERSION}"


class Parts(NamedTuple):
    """Objects that several groups of routes use."""

    specs: Mapping[str, ModelSpec]  # with the checks of the live versions
    device: str
    metrics: Metrics
    store: Store
    exports: Exports
    engine: Engine
    pipeline: Pipeline
    presence: Presence
    rollout: Rollout
    follower: TrialFollower
    threads: Threads
    bodies: RequestBodies
    recipes: Recipes
    registry: Registry
    jobs: Jobs


def parts_of(
    settings: Settings,
    specs: Mapping[str, ModelSpec],
    shipped: Sequence[Path],
    read: ReadRecipes,
    start_child: StartChild,
    shared: Path | None,
    load_wait_s: float | None,
    address: str,
) -> Parts:
    """Wire the networks, the stages of a prediction, and the parts that keep the live versions loaded."""
    metrics, threads = Metrics(shared), Threads()
    store = Store.of(settings, metrics.failed_write)
    exports = Exports(store.storage, start_child, shipped[-1])
    where = device.resolve(settings.device)
    backend = _backend(settings, where, exports)
    engine = Engine(specs, backend, settings.max_batch)
    pipeline = _pipeline(settings, engine, metrics, Decoder(settings.max_pixels, threads, settings.max_body_bytes))
    presence = _presence(settings, store, Followers(shared), list(specs), address, metrics, pipeline.admission)
    rollout = Rollout(specs, store, shipped, engine, metrics, presence, pipeline.networks, load_wait_s=load_wait_s)
    return Parts(
        specs=engine.served(),
        device=where,
        metrics=metrics,
        store=store,
        exports=exports,
        engine=engine,
        pipeline=pipeline,
        presence=presence,
        rollout=rollout,
        follower=TrialFollower(specs, store, engine, pipeline, rollout.loader, presence, load_wait_s),
        threads=threads,
        bodies=RequestBodies(settings.max_body_bytes, settings.max_checkpoint_bytes, pipeline.decoder, threads),
        recipes=Recipes(read),
        registry=Registry(store),
        jobs=Jobs(store),
    )


def with_defaults(
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
        software=SOFTWARE,
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


def _backend(settings: Settings, where: str, exports: Exports) -> Backend:
    """Choose the backend on a device. Raises ValueError if it does not support it."""
    limits = Limits(labels=settings.form_labels, probability=settings.form_probability)
    policy = Policy(wanted=settings.form, limits=limits)
    return choice.choose(settings.backend, where, exports, settings.web_processes, settings.max_batch, forms=policy)
