"""Versions and promotions: list, register, promote, roll back."""

import asyncio
import hashlib
import json
from collections.abc import Mapping, Sequence
from contextlib import aclosing
from dataclasses import asdict
from datetime import UTC
from pathlib import Path
from typing import Annotated

from fastapi import APIRouter, Header, Query, Request, Response
from fastapi.responses import FileResponse, StreamingResponse
from pydantic import Field

from models.checkpoints import bundle
from models.checkpoints.record import Record
from models.errors import CheckpointError
from models.spec import ModelSpec
from service.api.bodies import RequestBodies
from service.api.openapi import CHECKPOINT_BODY
from service.api.promotion_schemas import History, Promoted, PromoteRequest, PromotionInfo, TrialStep
from service.api.schemas import (
    WRITTEN_PLAINLY,
    IdempotencyKey,
    Moment,
    VersionInfo,
    VersionList,
    WholeNumber,
)
from service.api.written import Form
from service.delivery.registry import Registry, Version
from service.delivery.rollout import Rollout
from service.delivery.trials import TrialEvent, Trials
from service.delivery.uploads import Importer
from service.errors import NotFound, require_model
from service.media_types import OCTETS, TAR
from service.web.answers import is_known
from service.web.auth import Access, caller
from service.web.json_limit import Bounded

ACCESS: Mapping[str, Access] = {
    "GET /models/{model}/versions": Access("predict", 404, 422, 503),
    "GET /models/{model}/versions/{version}": Access("predict", 404, 503),
    "GET /models/{model}/versions/{version}/checkpoint": Access("predict", 404, 422, 503),
    "GET /models/{model}/promotions": Access("predict", 404, 503),
    "POST /models/{model}/versions": Access("admin", 400, 403, 404, 413, 415, 503),
    "POST /models/{model}/promote": Access("admin", 400, 403, 404, 409, 412, 413, 415, 422, 503),
    "POST /models/{model}/rollback": Access("admin", 400, 403, 404, 409, 412, 413, 415, 422, 503),
}

Limit = Annotated[
    Annotated[int, Field(ge=1, le=1000), WRITTEN_PLAINLY] | None, Query(description="versions a page; by default all")
]
Before = Annotated[
    Annotated[int, Field(ge=1, le=2**31 - 1), WRITTEN_PLAINLY] | None,
    Query(description="only versions with a lower number"),
]

Expected = Annotated[
    Annotated[str, Form(r'^("?[0-9]{1,9}"?|\*)$', 'must be the number of a version, as "3", or *')] | None,
    Header(description='the version that must be live, as "3"; if another is: 412'),
]


At = Annotated[
    Moment | None,
    Query(
        description="only promotions until then, for example 2026-11-23T19:00:00Z; a time without an offset is in UTC"
    ),
]


WithArtifacts = Annotated[bool, Query(description="the bundle: state_dict, record and artifacts as a tar archive")]


def versions_router(
    specs: Mapping[str, ModelSpec],
    registry: Registry,
    importer: Importer,
    bodies: RequestBodies,
) -> APIRouter:
    """Return the routes of versions."""
    routes = APIRouter(tags=["versions"])

    async def version_of(model: str, number: int) -> Version:
        return await asyncio.to_thread(registry.version, _known(specs, model), number)

    @routes.get("/models/{model}/versions", summary="Its versions, the oldest first")
    async def list_versions(model: str, limit: Limit = None, before: Before = None) -> VersionList:
        """All of them; with `limit`, the newest ones, or the newest of those before version `before`."""
        most = None if limit is None else limit + 1  # one more shows whether there is another page
        found = await asyncio.to_thread(registry.versions, _known(specs, model), before=before, limit=most)
        return _page(found, limit, (await asyncio.to_thread(registry.live)).get(model))

    @routes.get("/models/{model}/versions/{version}", summary="One version")
    async def get_version(model: str, version: WholeNumber) -> VersionInfo:
        found = await version_of(model, version)
        return _info(found, (await asyncio.to_thread(registry.live)).get(model))

    @routes.get(
        "/models/{model}/versions/{version}/checkpoint",
        summary="Its state_dict file, or its bundle",
        response_class=FileResponse,
        responses={200: {"content": {OCTETS: {}, TAR: {}}}, 304: {"description": "the client has the file already"}},
    )
    async def checkpoint(
        model: str, version: WholeNumber, request: Request, artifacts: WithArtifacts = False
    ) -> Response:
        """Its ETag is its SHA-256: with `If-None-Match`, a client that has the file gets 304.

        With `artifacts=true`, the answer is a bundle: a tar archive of the state_dict file, its record and the files of
        its artifacts, in the form that `POST /models/{model}/versions` takes.
        """
        found = await version_of(model, version)
        return await asyncio.to_thread(_file, found, registry, request, bundled=artifacts)

    @routes.post(
        "/models/{model}/versions",
        status_code=201,
        summary="Register a state_dict",
        openapi_extra=CHECKPOINT_BODY,
    )
    async def add_version(model: str, request: Request, arguments: str = "{}") -> VersionInfo:
        """A state_dict as torch.save or safetensors writes it, or a bundle, which brings its artifacts. It is evaluated
        if the dataset is available, and not promoted.
        """
        require_model(model, specs)  # before the body is read
        async with aclosing(bodies.checkpoint(request.scope, request.receive)) as pieces:
            return _info(await importer.register(model, pieces, arguments), None)

    return routes


def _file(version: Version, registry: Registry, request: Request, *, bundled: bool) -> Response:
    """Return the response with the checkpoint file of a version, or with its bundle.

    Raises NotFound, also for a damaged object of an object store, and StoreUnavailable.
    """
    name = f"{version.model}-{version.version}"
    etag = version.record["sha256"]
    try:
        path = registry.fetched(version)
    except CheckpointError as err:
        raise NotFound(f"version {version.version} of {version.model}: {err}") from err
    parts: Mapping[str, Path | bytes] = {f"{name}.pt": path}
    if bundled:
        etag = hashlib.sha256(json.dumps(version.record, sort_keys=True).encode()).hexdigest()
        parts = bundle.parts_of(name, path, Record(**version.record))
    if missing := next((part for part, file in parts.items() if isinstance(file, Path) and not file.is_file()), None):
        raise NotFound(
            f"{'the checkpoint file' if parts[missing] is path else f'the artifact file {missing}'} of version "
            f"{version.version} of {version.model} is missing in the store"
        )
    headers = {"ETag": f'"{etag}"', "Cache-Control": "private, no-cache"}
    if is_known(headers["ETag"], request.headers.get("if-none-match", "")):
        return Response(status_code=304, headers=headers)
    if not bundled:
        return FileResponse(path, headers=headers, media_type=OCTETS, filename=f"{name}.pt")
    headers |= {
        "Content-Disposition": f'attachment; filename="{name}.tar"',
        "Content-Length": str(bundle.size_of(parts)),
    }
    return StreamingResponse(bundle.written(parts), headers=headers, media_type=TAR)


def _page(found: Sequence[Version], limit: int | None, live: int | None) -> VersionList:
    """Return the last `limit` versions (None: all); `before` is set if there are older ones."""
    page = found if limit is None else found[-limit:]
    before = page[0].version if len(page) < len(found) else None
    return VersionList(versions=[_info(version, live) for version in page], before=before)


def promotions_router(
    specs: Mapping[str, ModelSpec], registry: Registry, rollout: Rollout, trials: Trials
) -> APIRouter:
    """Return the routes of promotions."""
    routes = APIRouter(tags=["promotions"], route_class=Bounded)

    @routes.post("/models/{model}/promote", summary="Make a version live")
    async def promote(model: str, body: PromoteRequest, request: Request, if_match: Expected = None) -> Promoted:
        """The version is loaded and warmed up before anything changes. A broken checkpoint is a 409.

        The answer comes when all live nodes use the version, or after two seconds: then `waiting_for` names the others.
        """
        expected = _version_in(if_match)
        done = await rollout.promote(_known(specs, model), body.version, caller(request.scope), expected)
        return Promoted(model=model, **asdict(done))

    @routes.post("/models/{model}/rollback", summary="Make the version before live again")
    async def rollback(
        model: str, request: Request, if_match: Expected = None, idempotency_key: IdempotencyKey = None
    ) -> Promoted:
        """Each call goes one version further back. A repeat with the same Idempotency-Key returns the first answer and
        changes nothing; with If-Match, a repeat is a 412. It waits for the other nodes as a promotion does.
        """
        by, expected = caller(request.scope), _version_in(if_match)
        done = await rollout.rollback(_known(specs, model), by, expected, idempotency_key)
        return Promoted(model=model, **asdict(done))

    @routes.get("/models/{model}/promotions", summary="History of promotions")
    async def promotions(model: str, at: At = None) -> History:
        """Promotions, rollbacks, and the steps of trials."""
        moment = None if at is None else (at if at.tzinfo else at.replace(tzinfo=UTC)).timestamp()
        rows = await asyncio.to_thread(registry.history, _known(specs, model), moment)
        steps = await asyncio.to_thread(trials.states, model, moment)
        infos = [PromotionInfo.model_validate(row, from_attributes=True) for row in rows]
        both: list[PromotionInfo | TrialStep] = [
            *map(_step, steps),
            *infos,
        ]  # a trial ends before its promotion, at the same time
        both.sort(key=lambda info: info.at)
        return History(model=model, live=rows[-1].version if rows else None, promotions=both)

    return routes


def _step(event: TrialEvent) -> TrialStep:
    fields = {name: event.data[name] for name in ("version", "by", "reason", "state")}
    return TrialStep(action="trial", at=event.at, trial=event.trial, **fields)


def _version_in(if_match: str | None) -> int | None:
    """Return the version in an If-Match header; None if any will do."""
    return None if if_match in {None, "*"} else int(str(if_match).strip('"'))


def _known(specs: Mapping[str, ModelSpec], model: str) -> str:
    """Return the model's name. Raises NotFound."""
    require_model(model, specs)
    return model


def _info(version: Version, live: int | None) -> VersionInfo:
    return VersionInfo(
        version=version.version,
        created_at=version.created_at,
        job=version.job,
        live=version.version == live,
        notes=version.record.get("notes", []),
        reference=version.record.get("reference", {}),
        dataset_sha256=version.record.get("dataset_sha256") or None,
        artifacts=sorted(version.record.get("artifacts", {})),
        **{
            key: version.record[key]
            for key in ("metrics", "config", "arguments", "sha256", "dataset", "torch", "command")
        },
    )
