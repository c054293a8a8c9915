"""Training jobs over HTTP: enqueue, watch, cancel."""

import asyncio
import time
from collections.abc import Mapping
from dataclasses import asdict, replace
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Header, Query, Request, Response
from fastapi.responses import FileResponse, StreamingResponse
from pydantic import Field

from models.checkpoints.storage import Storage
from models.errors import CheckpointError
from models.spec import ModelSpec
from service.api.event_stream import EventStream, told_of
from service.api.schemas import (
    WRITTEN_PLAINLY,
    Cancelled,
    IdempotencyKey,
    IfBetter,
    JobHistory,
    JobInfo,
    JobPage,
    NoWorse,
)
from service.api.train_schemas import ResourcesRequest, TrainRequest
from service.api.written import WITHOUT_NUL, Form
from service.data.datasets import Datasets, without_rows
from service.delivery.gate import Policy
from service.errors import Invalid, NotFound, require_model
from service.execution.recipes import ReadRecipes, RecipeSchema
from service.jobs.feed import Feed
from service.jobs.learning import Learning, Lesson
from service.jobs.lessons import data_of_recipe, lesson_of, to_train_on
from service.jobs.queue import FINAL, Event, Job, Jobs, Kind, State
from service.jobs.resources import in_words
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
_NEXT = Form(_NUMBER, "send the `cursor` of the page before")
_EVENT = Form(_NUMBER, "must be the id of an event, a whole number")
JobsPage = Annotated[Annotated[int, Field(ge=1, le=200), WRITTEN_PLAINLY], Query(description="jobs a page")]
Cursor = Annotated[Annotated[str, _NEXT] | None, Query(description="`cursor` of the previous page")]
LastEvent = Annotated[
    Annotated[str, _EVENT] | None, Header(alias="Last-Event-ID", description="send only events after this one")
]
ModelName = Annotated[Annotated[str, WITHOUT_NUL] | None, Query(description="jobs of this model only")]


Authorization = Annotated[str, Header(include_in_schema=False)]


def router(
    specs: Mapping[str, ModelSpec],
    jobs: Jobs,
    datasets: Datasets,
    learning: Learning,
    feed: Feed[Event],
    storage: Storage,
    recipes: ReadRecipes,
    keys: Keyring,
    max_queued: int,
    max_resources: MaxResources | None,
) -> APIRouter:
    """Return the routes. Each key may have `max_queued` jobs in the queue, and each job ask for `max_resources`."""
    routes = APIRouter(tags=["jobs"])
    routes.routes.extend(_commands(specs, jobs, datasets, learning, recipes, keys, max_queued, max_resources).routes)
    routes.routes.extend(_cancels(jobs, keys).routes)
    routes.routes.extend(_lists(jobs).routes)
    routes.routes.extend(_reports(jobs, feed, storage).routes)
    return routes


def _commands(
    specs: Mapping[str, ModelSpec],
    jobs: Jobs,
    datasets: Datasets,
    learning: Learning,
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
        known, now = await recipes(), time.time()
        policy, bounds = _policy(body.promote)
        resources = _bounded(body.resources, max_resources or MaxResources())
        place: dict[str, Any] = {
            "key": idempotency_key,
            "submitter": keys.name(authorization.encode("latin-1")),
            "most": max_queued,
            "now": now,
        }
        order: dict[str, Any] = {"promote_bounds": bounds, "tensorboard": body.tensorboard, "resources": resources}
        if body.feedback is not None:
            lesson = await _lesson(body, known, datasets, policy, now)
            job = await asyncio.to_thread(learning.queue, replace(lesson, **order), **place)
            return queued(job, request, response)
        config, dataset = await to_train_on(body.model, body.config, body.dataset, known, datasets)
        job = await asyncio.to_thread(jobs.enqueue, body.model, config, policy, dataset=dataset, **order, **place)
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


async def _lesson(
    body: TrainRequest, recipes: Mapping[str, RecipeSchema], datasets: Datasets, policy: Policy, now: float
) -> Lesson:
    """Return the order to train on feedback. Raises Invalid."""
    assert body.feedback
    return await lesson_of(
        body.model,
        body.config,
        body.dataset or data_of_recipe(body.model, body.config, recipes),
        recipes,
        datasets,
        since=body.feedback.begin(now),
        weight=body.feedback.weight,
        chosen_as=body.feedback.model_dump(mode="json"),
        promote=policy,
    )


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


def _reports(jobs: Jobs, feed: Feed[Event], storage: Storage) -> APIRouter:
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
        return EventStream(feed, job_id, after, told_of("job"))

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
    if job.state == "queued" and job.after:
        fields["waits_for"] = f"job {job.after}, which makes its dataset"
    elif job.state == "queued" and job.resources:
        fields["waits_for"] = in_words(job.resources)
    return JobInfo(**{name: fields[name] for name in JobInfo.model_fields if name in fields})
