"""Training jobs over HTTP: enqueue, watch, cancel."""

import asyncio
import time
from collections.abc import AsyncIterator, Mapping
from dataclasses import asdict
from typing import Annotated, Any, Literal

import orjson
from fastapi import APIRouter, Header, Query, Request, Response
from fastapi.responses import FileResponse, StreamingResponse
from pydantic import Field
from starlette.types import Receive, Scope, Send

from models.checkpoints.storage import Storage
from models.errors import CheckpointError
from models.spec import ModelSpec
from service.api.schemas import (
    WRITTEN_PLAINLY,
    Cancelled,
    IdempotencyKey,
    IfBetter,
    JobHistory,
    JobInfo,
    JobPage,
    NoWorse,
    ResourcesRequest,
    TrainRequest,
)
from service.data.datasets import Datasets, without_rows
from service.delivery.gate import Policy
from service.errors import Invalid, NotFound, require_model
from service.execution.recipes import ReadRecipes, RecipeSchema, complete_config, require_target
from service.jobs.feed import Feed
from service.jobs.queue import FINAL, Event, Job, Jobs, Kind, State
from service.settings import MaxResources
from service.web.auth import Access, Keyring, caller
from service.web.json_limit import Bounded

ACCESS: Mapping[str, Access] = {
    "GET /jobs": Access("predict", 503),
    "GET /jobs/{job_id}": Access("predict", 404, 503),
    "GET /jobs/{job_id}/history": Access("predict", 404, 503),
    "GET /jobs/{job_id}/events": Access("predict", 404, 429, 503),
    "GET /jobs/{job_id}/plot.png": Access("predict", 404, 503),
    "POST /train": Access("train", 400, 403, 404, 413, 415, 422, 429, 503),
    "DELETE /jobs": Access("train", 403, 422, 503),
    "POST /jobs/{job_id}/cancel": Access("train", 400, 403, 404, 409, 413, 415, 503),
}

_NUMBER = r"^[0-9]{0,17}$"  # in the range of both databases; empty means not given
JobsPage = Annotated[Annotated[int, Field(ge=1, le=200), WRITTEN_PLAINLY], Query(description="jobs a page")]
Cursor = Annotated[str | None, Query(pattern=_NUMBER, description="`next` of the previous page")]
LastEvent = Annotated[
    str | None, Header(alias="Last-Event-ID", pattern=_NUMBER, description="send only events after this one")
]
ModelName = Annotated[str | None, Query(pattern=r"^[^\x00]*$", description="jobs of this model only")]


Authorization = Annotated[str, Header(include_in_schema=False)]


def router(
    specs: Mapping[str, ModelSpec],
    jobs: Jobs,
    datasets: Datasets,
    feed: Feed,
    storage: Storage,
    recipes: ReadRecipes,
    keys: Keyring,
    max_queued: int,
    max_resources: MaxResources | None,
) -> APIRouter:
    """Return the routes. Each key may have `max_queued` jobs in the queue, and each job ask for `max_resources`."""
    routes = APIRouter(tags=["jobs"])
    routes.routes.extend(_commands(specs, jobs, datasets, recipes, keys, max_queued, max_resources).routes)
    routes.routes.extend(_cancels(jobs, keys).routes)
    routes.routes.extend(_lists(jobs).routes)
    routes.routes.extend(_reports(jobs, feed, storage).routes)
    return routes


def _commands(
    specs: Mapping[str, ModelSpec],
    jobs: Jobs,
    datasets: Datasets,
    recipes: ReadRecipes,
    keys: Keyring,
    max_queued: int,
    max_resources: MaxResources | None,
) -> APIRouter:
    routes = APIRouter(tags=["jobs"], route_class=Bounded)

    @routes.post("/train", status_code=202, summary="Train a model")
    async def train(
        body: TrainRequest,
        request: Request,
        response: Response,
        idempotency_key: IdempotencyKey = None,
        authorization: Authorization = "",
    ) -> JobInfo:
        """The job is queued until a worker claims it. A repeat with the same Idempotency-Key returns the first job.

        Workers take the jobs of different keys in turn.
        """
        require_model(body.model, specs)
        config, dataset = await _chosen(body, await recipes(), datasets)
        policy, bounds = _policy(body.promote)
        resources = _bounded(body.resources, max_resources or MaxResources())
        job = await asyncio.to_thread(
            jobs.enqueue,
            body.model,
            config,
            policy,
            promote_bounds=bounds,
            tensorboard=body.tensorboard,
            resources=resources,
            dataset=dataset,
            key=idempotency_key,
            submitter=keys.name(authorization.encode("latin-1")),
            most=max_queued,
            now=time.time(),
        )
        return queued(job, request, response)

    return routes


def _cancels(jobs: Jobs, keys: Keyring) -> APIRouter:
    routes = APIRouter(tags=["jobs"], route_class=Bounded)

    @routes.post("/jobs/{job_id}/cancel", status_code=202, summary="Cancel a job")
    async def cancel(job_id: str) -> JobInfo:
        """A queued job ends at once, a running job within two seconds. A finished job is a 409."""
        return info(await asyncio.to_thread(jobs.cancel, job_id, now=time.time()))

    @routes.delete("/jobs", summary="Cancel all queued jobs")
    async def cancel_queued(
        state: Annotated[Literal["queued"], Query(description="running jobs are cancelled one by one")],  # noqa: ARG001
        request: Request,
        model: ModelName = None,
        authorization: Authorization = "",
    ) -> Cancelled:
        """With `model`, those of that model. A key of scope train cancels the jobs that were queued with it; an admin
        key, or anyone if the service has no keys, cancels those of all keys. Running jobs go on.
        """
        submitter = _limited_to(keys, request, authorization)
        return Cancelled(cancelled=await asyncio.to_thread(jobs.cancel_queued, model, submitter, now=time.time()))

    return routes


async def _chosen(
    body: TrainRequest, recipes: Mapping[str, RecipeSchema], datasets: Datasets
) -> tuple[Mapping[str, Any], str | None]:
    """Return the complete config, and the dataset to train on; None for the data of the recipe. Raises Invalid."""
    config = complete_config(body.model, recipes, body.config)
    if body.dataset is None:
        return config, None
    declared = recipes[body.model].built_in
    if name := await asyncio.to_thread(datasets.named_built_in, body.model, body.dataset, declared):
        return _with_built_in(config, recipes[body.model].hyperparameters, name), None
    require_target(body.model, recipes)
    return config, body.dataset


def _bounded(asked: ResourcesRequest | None, most: MaxResources) -> dict[str, float] | None:
    """Return the resources that a job asks for; None for none. Raises Invalid if they are above the bounds."""
    wish = {} if asked is None else asked.model_dump(exclude_none=True)
    for name, number in wish.items():
        if number > getattr(most, name):
            raise Invalid(
                f"resources: {name} is {number:g}, and a job may ask for at most {getattr(most, name):g} here: ask for "
                f"less, or have TORCHLOOP_MAX_RESOURCES raised"
            )
    return wish or None


def _with_built_in(config: Mapping[str, Any], schema: Mapping[str, Any], name: str) -> dict[str, Any]:
    """Return a config that chooses the data `name` of the recipe, if the recipe has a choice."""
    choices = schema["properties"].get("dataset", {}).get("enum", ())
    return {**config, "dataset": name} if name in choices else dict(config)


def _limited_to(keys: Keyring, request: Request, authorization: str) -> str | None:
    """Return the submitter whose jobs the caller may cancel; None if it may cancel all of them."""
    if not keys or caller(request.scope) == "admin":
        return None
    return keys.name(authorization.encode("latin-1"))


def _lists(jobs: Jobs) -> APIRouter:
    routes = APIRouter(tags=["jobs"])

    @routes.get("/jobs", summary="Jobs, the newest first")
    async def page(
        model: ModelName = None,
        state: State | None = None,
        kind: Annotated[Kind | None, Query(description="train, or ingest: the jobs that read datasets")] = None,
        limit: JobsPage = 50,
        cursor: Cursor = None,
    ) -> JobPage:
        found = await asyncio.to_thread(
            jobs.page, model=model, state=state, kind=kind, before=_number(cursor), limit=limit + 1
        )
        more = len(found) > limit
        return JobPage(
            jobs=[info(job, rows=False) for job in found[:limit]],
            cursor=str(found[limit - 1].number) if more else None,
        )

    @routes.get("/jobs/{job_id}", summary="One job")
    async def get(job_id: str) -> JobInfo:
        return info(await asyncio.to_thread(jobs.get, job_id))

    return routes


def _reports(jobs: Jobs, feed: Feed, storage: Storage) -> APIRouter:
    routes = APIRouter(tags=["jobs"])

    @routes.get("/jobs/{job_id}/history", summary="Every reported point")
    async def history(job_id: str) -> JobHistory:
        await asyncio.to_thread(jobs.get, job_id)
        points = await asyncio.to_thread(jobs.events, job_id, kind="progress")
        return JobHistory(job=job_id, points=[dict(point.data) for point in points])

    @routes.get(
        "/jobs/{job_id}/events",
        summary="Events of a job (server-sent events)",
        response_class=StreamingResponse,
        responses={
            200: {"content": {"text/event-stream": {}}},
            204: {"description": "the job has ended, and no event is left: an EventSource does not connect again"},
        },
    )
    async def events(job_id: str, last_event_id: LastEvent = None) -> Response:
        """Server-sent events `progress`, `log` and `state`, from the first one, or after `Last-Event-ID`, to the end of
        the job. A `log` has output of the recipe; an attempt has 64 KiB of it at most.
        """
        job = await asyncio.to_thread(jobs.get, job_id)  # before the events: none follows the final state
        after = _number(last_event_id) or 0
        if job.state in FINAL and not await asyncio.to_thread(jobs.events, job_id, after):
            return Response(status_code=204)
        return _EventStream(feed, job_id, after)

    @routes.get(
        "/jobs/{job_id}/plot.png",
        summary="Loss and metric curves",
        response_class=FileResponse,
        responses={200: {"content": {"image/png": {}}}},
    )
    async def plot(job_id: str) -> FileResponse:
        job = await asyncio.to_thread(jobs.get, job_id)
        try:
            path = await asyncio.to_thread(storage.newest, storage.plot(job.id))
        except CheckpointError as err:
            raise NotFound(f"the plot of job {job.id}: {err}") from err
        if not path.exists():
            raise NotFound(f"job {job.id} has no plot: the first is drawn after two seconds of training, or at its end")
        return FileResponse(path, media_type="image/png", headers={"Cache-Control": "no-cache"})

    return routes


class _EventStream(StreamingResponse):
    """Server-sent events of a job, while the connection is open. Raises LimitReached before anything is sent."""

    def __init__(self, feed: Feed, job: str, after: int) -> None:
        super().__init__((), media_type="text/event-stream", headers={"Cache-Control": "no-store"})
        self._feed = feed
        self._job = job
        self._after = after

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the events."""
        with self._feed.opened(self._job, self._after) as events:
            self.body_iterator = _lines(events)
            await super().__call__(scope, receive, send)


async def _lines(events: AsyncIterator[Event | None]) -> AsyncIterator[bytes]:
    """Yield events as they are sent, and comments that keep the connection open through proxies."""
    async for event in events:
        yield b": still here\n\n" if event is None else _encoded(event)


def _encoded(event: Event) -> bytes:
    data = orjson.dumps({"job": event.job, "attempt": event.attempt, **event.data})
    return b"id: %d\nevent: %s\ndata: %s\n\n" % (event.id, event.kind.encode(), data)


def _number(text: str | None) -> int | None:
    """Parse a cursor or the id of an event, which matches _NUMBER."""
    return int(text) if text else None


def _policy(promote: Policy | IfBetter | NoWorse) -> tuple[Policy, Mapping[str, Any] | None]:
    """Return the policy's word and its bounds."""
    if isinstance(promote, IfBetter):
        return "if_better", promote.if_better.model_dump()
    if isinstance(promote, NoWorse):
        return "no_worse", promote.no_worse.model_dump()
    return promote, None


def queued(job: Job, request: Request, response: Response) -> JobInfo:
    """Return a new job as the 202 that names it by its Location."""
    response.headers["Location"] = f"{request.scope.get('root_path', '')}/jobs/{job.id}"
    return info(job)


def info(job: Job, *, rows: bool = True) -> JobInfo:
    """Return a job as responses describe it; without `rows`, the report of an ingest has no refused rows."""
    fields: dict[str, Any] = asdict(job)
    if job.promote_bounds is not None:
        fields["promote"] = {job.promote: job.promote_bounds}
    if job.report is not None and not rows:
        fields["report"] = without_rows(job.report)
    return JobInfo(**{name: fields[name] for name in JobInfo.model_fields})
