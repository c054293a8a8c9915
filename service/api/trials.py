"""Trials over HTTP: open, watch, advance, pause, resume, abort."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, Literal

from fastapi import APIRouter, Request, Response
from fastapi.responses import StreamingResponse

from models.spec import ModelSpec
from service.api.durations import seconds_in
from service.api.event_stream import EventStream, told_of
from service.api.jobs import Authorization, LastEvent
from service.api.trial_info import info
from service.api.trial_schemas import (
    ConditionsRequest,
    ReasonRequest,
    ShadowStage,
    StageRequest,
    TrialInfo,
    TrialRequest,
)
from service.delivery.trial_control import TrialControl, last_of
from service.delivery.trial_tally import Tallies
from service.delivery.trials import (
    DEFAULT_STAGES,
    Accuracy,
    Agreement,
    Conditions,
    Errors,
    Latency,
    Opening,
    Stage,
    Trial,
    TrialEvent,
    Trials,
)
from service.errors import require_model
from service.jobs.feed import Feed
from service.web.auth import Access, Keyring
from service.web.json_limit import Bounded

_CHANGE = Access("admin", 400, 403, 404, 409, 413, 415, 422, 503)
ACCESS: Mapping[str, Access] = {
    "GET /models/{model}/trial": Access("predict", 404, 503),
    "POST /models/{model}/trial": _CHANGE,
    "POST /models/{model}/trial/advance": _CHANGE,
    "POST /models/{model}/trial/pause": _CHANGE,
    "POST /models/{model}/trial/resume": _CHANGE,
    "POST /models/{model}/trial/abort": _CHANGE,
    "GET /trials/{trial_id}": Access("predict", 404, 503),
    "GET /trials/{trial_id}/events": Access("predict", 404, 422, 429, 503),
}
_Move = Callable[[str, str, str], Awaitable[tuple[Trial, Sequence[str]]]]


def router(
    specs: Mapping[str, ModelSpec],
    trials: Trials,
    tallies: Tallies,
    control: TrialControl,
    feed: Feed[TrialEvent],
    keys: Keyring,
) -> APIRouter:
    """Return the routes."""
    routes = APIRouter(tags=["trials"])
    routes.routes.extend(_changes(specs, trials, tallies, control, keys).routes)
    routes.routes.extend(_reports(specs, trials, tallies, feed).routes)
    return routes


def _changes(
    specs: Mapping[str, ModelSpec], trials: Trials, tallies: Tallies, control: TrialControl, keys: Keyring
) -> APIRouter:
    routes = APIRouter(tags=["trials"], route_class=Bounded)

    async def described(done: tuple[Trial, Sequence[str]]) -> TrialInfo:
        return await asyncio.to_thread(info, done[0], trials, tallies, time.time(), waiting_for=done[1])

    @routes.post("/models/{model}/trial", status_code=201, summary="Open a trial")
    async def open_trial(
        model: str, body: TrialRequest, request: Request, response: Response, authorization: Authorization = ""
    ) -> TrialInfo:
        """The version goes through the stages beside the live version, and is promoted at their end.

        It is rolled back as soon as a condition has failed, its network cannot be loaded, or it answers with a number
        that is not finite. A model has one open trial at most; any other promotion or rollback aborts it.
        """
        require_model(model, specs)
        done = await control.open(_opening(model, body), _name(keys, authorization))
        response.headers["Location"] = f"{request.scope.get('root_path', '')}/trials/{done[0].id}"
        return await described(done)

    async def move(do: _Move, model: str, body: ReasonRequest | None, authorization: str) -> TrialInfo:
        require_model(model, specs)
        return await described(await do(model, _name(keys, authorization), "" if body is None else body.reason))

    @routes.post("/models/{model}/trial/advance", summary="Skip the rest of a trial's stage")
    async def advance(model: str, body: ReasonRequest | None = None, authorization: Authorization = "") -> TrialInfo:
        """From the last stage, the candidate is promoted; if it cannot be loaded: 409, and nothing changes."""
        return await move(control.advance, model, body, authorization)

    @routes.post("/models/{model}/trial/pause", summary="Pause a trial")
    async def pause(model: str, body: ReasonRequest | None = None, authorization: Authorization = "") -> TrialInfo:
        """The stage's clock stops, and a shadow too; a canary keeps its share, and may still be rolled back."""
        return await move(control.pause, model, body, authorization)

    @routes.post("/models/{model}/trial/resume", summary="Resume a paused trial")
    async def resume(model: str, body: ReasonRequest | None = None, authorization: Authorization = "") -> TrialInfo:
        """The stage goes on with the time and samples that it had; `max` begins again, and so does the time of a stage
        that was paused as undecided at its end.
        """
        return await move(control.resume, model, body, authorization)

    @routes.post("/models/{model}/trial/abort", summary="Abort a trial")
    async def abort(model: str, body: ReasonRequest | None = None, authorization: Authorization = "") -> TrialInfo:
        """The live version answers all requests again."""
        return await move(control.abort, model, body, authorization)

    return routes


def _reports(specs: Mapping[str, ModelSpec], trials: Trials, tallies: Tallies, feed: Feed[TrialEvent]) -> APIRouter:
    routes = APIRouter(tags=["trials"])

    @routes.get("/models/{model}/trial", summary="Its open trial, or its last one")
    async def of_model(model: str) -> TrialInfo:
        require_model(model, specs)
        trial = await asyncio.to_thread(last_of, trials, model)
        return await asyncio.to_thread(info, trial, trials, tallies, time.time())

    @routes.get("/trials/{trial_id}", summary="One trial")
    async def get(trial_id: str) -> TrialInfo:
        trial = await asyncio.to_thread(trials.get, trial_id)
        return await asyncio.to_thread(info, trial, trials, tallies, time.time())

    @routes.get(
        "/trials/{trial_id}/events",
        summary="Events of a trial (server-sent events)",
        response_class=StreamingResponse,
        responses={
            200: {"content": {"text/event-stream": {}}},
            204: {"description": "the trial has ended, and no event is left: an EventSource does not connect again"},
        },
    )
    async def events(trial_id: str, last_event_id: LastEvent = None) -> Response:
        """Server-sent events `state` and `fault`, from the first one, or after `Last-Event-ID`, to the trial's end.

        A `state` has state, stage, version, by and reason; a `fault` is why the candidate is rolled back at once.
        """
        ended = await asyncio.to_thread(trials.has_ended, trial_id)  # before the events: none follows the end
        after = int(last_event_id or 0)
        if ended and not await asyncio.to_thread(trials.events, trial_id, after):
            return Response(status_code=204)
        return EventStream(feed, trial_id, after, told_of("trial"))

    return routes


def _opening(model: str, body: TrialRequest) -> Opening:
    return Opening(
        model=model,
        version=body.version,
        stages=DEFAULT_STAGES if body.stages is None else tuple(map(_stage, body.stages)),
        key_header=None if body.key_header is None else body.key_header.lower(),
        conditions=_conditions(body.conditions),
        when_undecided=body.when_undecided,
        max_s=None if body.max is None else seconds_in(body.max),
    )


def _stage(stage: StageRequest) -> Stage:
    common: dict[Literal["for_s", "samples"], Any] = {"for_s": seconds_in(stage.duration), "samples": stage.samples}
    return (
        Stage(shadow=stage.shadow, **common) if isinstance(stage, ShadowStage) else Stage(share=stage.share, **common)
    )


def _conditions(asked: ConditionsRequest) -> Conditions:
    return Conditions(
        errors=None if asked.errors is None else Errors(alpha=asked.errors.alpha),
        agreement=None if asked.agreement is None else Agreement(**asked.agreement.model_dump()),
        latency=None if asked.latency is None else Latency(p95_at_most_ms=asked.latency.p95_at_most),
        accuracy=None if asked.accuracy is None else Accuracy(alpha=asked.accuracy.alpha),
    )


def _name(keys: Keyring, authorization: str) -> str:
    return keys.name(authorization.encode("latin-1"))
