"""Captures over HTTP: settings, the list of samples to audit, their pictures, erasure."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import asdict
from datetime import UTC
from typing import Annotated, Literal

from fastapi import APIRouter, Query, Request, Response
from pydantic import Field

from models.pictures import PICTURE_FORMATS
from models.spec import ModelSpec
from service.api.capture_schemas import (
    KEY,
    PREDICTION,
    CaptureInfo,
    CapturePage,
    CaptureRequest,
    ErasedInfo,
    Position,
    PredictionId,
)
from service.api.captured import original_of, png_of, sample_info
from service.api.schemas import WRITTEN_PLAINLY, Moment
from service.api.thumbnails import HEADERS, Png
from service.api.written import Form
from service.data.capture_settings import CaptureSettings, Kept
from service.data.captures import Captures
from service.data.erasure import Erasure, Which
from service.data.feedback import Feedback
from service.errors import Invalid, require_model
from service.web.auth import Access, caller
from service.web.json_limit import Bounded

_PICTURE = "/models/{model}/captures/{prediction}/{index}/picture.png"
_ORIGINAL = "/models/{model}/captures/{prediction}/{index}/original"
ACCESS: Mapping[str, Access] = {
    "GET /models/{model}/capture": Access("predict", 404, 503),
    "PUT /models/{model}/capture": Access("admin", 400, 403, 404, 413, 415, 422, 503),
    "GET /models/{model}/captures": Access("train", 403, 404, 422, 503),
    "DELETE /models/{model}/captures": Access("train", 403, 404, 422, 503),
    f"GET {_PICTURE}": Access("train", 403, 404, 422, 503),
    f"GET {_ORIGINAL}": Access("train", 403, 404, 422, 503),
}
_CURSOR = Form(
    r"^-?[0-9]{1,17}(\.[0-9]{1,20})?(e-[0-9]{1,3})?(_[0-9]{1,17})?$",
    "send the `cursor` of the page before, with the same order",
)

Unlabelled = Annotated[
    bool, Query(description="only samples without an audit and an outcome; corrections do not count as such")
]
Order = Annotated[
    Literal["newest", "random", "uncertain"],
    Query(description="random: always the same order, for audits; uncertain: least probability of the answer first"),
]
OfVersion = Annotated[
    Annotated[int, Field(ge=1, le=2**31 - 1), WRITTEN_PLAINLY] | None, Query(description="answered by that version")
]
PageSize = Annotated[Annotated[int, Field(ge=1, le=200), WRITTEN_PLAINLY], Query(description="samples a page")]
Cursor = Annotated[
    Annotated[str, _CURSOR] | None, Query(description="`cursor` of the previous page, with the same order")
]
OfId = Annotated[Annotated[str, PREDICTION] | None, Query(alias="id", description="samples of that prediction")]
OfKey = Annotated[Annotated[str, KEY] | None, Query(description="samples sent with that X-Prediction-Key")]
OfInput = Annotated[
    str | None, Query(alias="input", max_length=200, description="name of the input, of a sample with several pictures")
]
Before = Annotated[Moment | None, Query(description="samples of requests that began before, as 2026-11-23T19:00:00Z")]


def router(
    specs: Mapping[str, ModelSpec],
    captures: Captures,
    feedback: Feedback,
    erasure: Erasure,
    follow: Callable[[], Awaitable[None]],
) -> APIRouter:
    """Return the routes. `follow` has this process capture by changed settings at once."""
    routes = APIRouter(tags=["captures"])
    for more in (_settings(specs, captures, follow), _pictures(specs, captures)):
        routes.routes.extend(more.routes)

    @routes.get("/models/{model}/captures", summary="Captured samples")
    async def list_captures(
        model: str,
        unlabelled: Unlabelled = False,
        order: Order = "newest",
        version: OfVersion = None,
        limit: PageSize = 50,
        cursor: Cursor = None,
    ) -> CapturePage:
        """With `unlabelled=true&order=random` it is the list of samples to audit: send their labels to POST
        .../feedback with the kind `audit`. Audits in another order say nothing about the accuracy of all answers.
        """
        require_model(model, specs)
        found, following = await asyncio.to_thread(
            captures.page, model, unlabelled=unlabelled, order=order, version=version, limit=limit, after=cursor
        )
        entries = await asyncio.to_thread(feedback.history, [one.id for one in found])
        infos = [sample_info(one, entries.get((one.id, one.position), ())) for one in found]
        return CapturePage(captures=infos, cursor=following)

    @routes.delete("/models/{model}/captures", status_code=202, summary="Erase captured samples for good")
    async def erase(model: str, prediction: OfId = None, key: OfKey = None, before: Before = None) -> ErasedInfo:
        """Give one of `id`, `key` and `before`. Contents, keys and truths are removed; the ids stay, so that GET
        /predictions/{id} can say what happened. Datasets and versions that have learnt from the samples are named, and
        not changed. SQLite's file is rewritten within seconds, so that no copy is left in it.
        """
        require_model(model, specs)
        if sum(given is not None for given in (prediction, key, before)) != 1:
            raise Invalid("give one of id, key and before: captures are erased by one of them")
        until = None if before is None else (before if before.tzinfo else before.replace(tzinfo=UTC)).timestamp()
        which = Which(id=prediction, key=key, until=until)
        return ErasedInfo(**asdict(await asyncio.to_thread(erasure.erase, model, which, time.time())))

    return routes


def _pictures(specs: Mapping[str, ModelSpec], captures: Captures) -> APIRouter:
    routes = APIRouter(tags=["captures"])

    @routes.get(_PICTURE, summary="Picture of a captured sample", response_class=Png)
    async def picture(model: str, prediction: PredictionId, index: Position, name: OfInput = None) -> Response:
        """As the model's reader has made it, in its size."""
        require_model(model, specs)
        found = await asyncio.to_thread(captures.one, model, prediction, index)
        return Png(await asyncio.to_thread(png_of, found, name), headers=HEADERS)

    @routes.get(
        _ORIGINAL,
        summary="Picture file of a captured sample, as it came",
        response_class=Response,
        responses={200: {"content": {media_type: {} for media_type in PICTURE_FORMATS}}},
    )
    async def original(model: str, prediction: PredictionId, index: Position) -> Response:
        """If the settings of the capture keep `originals`: of a body that is one file, and of forms."""
        require_model(model, specs)
        content, media_type = original_of(await asyncio.to_thread(captures.one, model, prediction, index))
        return Response(content, media_type=media_type, headers=HEADERS)

    return routes


def _settings(specs: Mapping[str, ModelSpec], captures: Captures, follow: Callable[[], Awaitable[None]]) -> APIRouter:
    routes = APIRouter(tags=["captures"], route_class=Bounded)

    @routes.get("/models/{model}/capture", summary="Which answers are captured")
    async def get_settings(model: str) -> CaptureInfo:
        require_model(model, specs)
        return _info(model, await asyncio.to_thread(captures.settings_of, model))

    @routes.put("/models/{model}/capture", summary="Set which answers are captured")
    async def put_settings(model: str, body: CaptureRequest, request: Request) -> CaptureInfo:
        """All settings are replaced; those that are left out have their defaults. The processes of all nodes follow
        within two seconds. A request with `X-Capture: no` is never captured.
        """
        require_model(model, specs)
        settings, by = CaptureSettings(**body.model_dump()), caller(request.scope)
        kept = await asyncio.to_thread(captures.set, model, settings, by=by, now=time.time())
        await follow()
        return _info(model, kept)

    return routes


def _info(model: str, kept: Kept) -> CaptureInfo:
    return CaptureInfo(model=model, examples=kept.examples, bytes=kept.bytes, **asdict(kept.settings))
