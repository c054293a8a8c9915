"""Datasets that arrive in parts: begin, send parts at their offsets, resume, finish."""

import asyncio
import time
from collections.abc import Mapping
from contextlib import aclosing
from functools import partial
from typing import Annotated

from fastapi import APIRouter, Query, Request, Response
from pydantic import Field

from models.spec import ModelSpec
from service.api.dataset_schemas import BeginUpload, DatasetName, FinishUpload, Received, UploadInfo
from service.api.datasets import ingest_config
from service.api.jobs import Authorization, queued
from service.api.openapi import PART_BODY
from service.api.schemas import WRITTEN_PLAINLY, JobInfo
from service.data.uploads import PART_BYTES, Upload, Uploads
from service.errors import UnsupportedMediaType
from service.execution.recipes import ReadRecipes
from service.execution.threads import in_own_thread
from service.jobs.ingests import Ingests
from service.web.auth import Access, Keyring
from service.web.bodies import content_coding, pieces
from service.web.json_limit import Bounded

ACCESS: Mapping[str, Access] = {
    "POST /models/{model}/datasets/{name}/uploads": Access("train", 400, 403, 404, 413, 415, 422, 429, 503),
    "GET /uploads/{upload}": Access("predict", 404, 503),
    "PUT /uploads/{upload}": Access("train", 403, 404, 409, 413, 415, 422, 503),
    "DELETE /uploads/{upload}": Access("train", 403, 404, 409, 503),
    "POST /uploads/{upload}/finish": Access("train", 400, 403, 404, 409, 413, 415, 422, 429, 503),
}
Offset = Annotated[
    Annotated[int, Field(ge=0, le=2**53), WRITTEN_PLAINLY],
    Query(description="position of the part in the file: as much as has arrived"),
]


def router(
    specs: Mapping[str, ModelSpec],
    uploads: Uploads,
    ingests: Ingests,
    recipes: ReadRecipes,
    keys: Keyring,
    max_queued: int,
) -> APIRouter:
    """Return the routes. Each key may have `max_queued` jobs in the queue."""
    routes = APIRouter(tags=["datasets"])
    routes.routes.extend(_ends(specs, uploads, ingests, recipes, keys, max_queued).routes)
    routes.routes.extend(_parts(uploads).routes)
    return routes


def _ends(
    specs: Mapping[str, ModelSpec],
    uploads: Uploads,
    ingests: Ingests,
    recipes: ReadRecipes,
    keys: Keyring,
    max_queued: int,
) -> APIRouter:
    routes = APIRouter(tags=["datasets"], route_class=Bounded)

    @routes.post("/models/{model}/datasets/{name}/uploads", status_code=201, summary="Begin an upload in parts")
    async def begin(
        model: str, name: DatasetName, body: BeginUpload, request: Request, response: Response
    ) -> UploadInfo:
        """Then send the file to PUT /uploads/{upload}?offset=N, and finish with POST /uploads/{upload}/finish."""
        uploads.require_size(body.bytes)
        ingest_config(model, specs, await recipes())  # refuse before the file comes
        upload = await asyncio.to_thread(
            uploads.begin,
            model,
            name,
            body.bytes,
            sha256=body.sha256,
            form=body.format,
            options=body.options.model_dump(),
            now=time.time(),
        )
        response.headers["Location"] = f"{request.scope.get('root_path', '')}/uploads/{upload.id}"
        return await asyncio.to_thread(_info, uploads, upload)

    @routes.post("/uploads/{upload}/finish", status_code=202, summary="Finish an upload")
    async def finish(
        upload: str,
        request: Request,
        response: Response,
        body: FinishUpload | None = None,
        authorization: Authorization = "",
    ) -> JobInfo:
        """The file is queued for a job of kind `ingest`. A repeat returns the first job. If parts are missing: 409."""
        body = body or FinishUpload()
        found = await asyncio.to_thread(uploads.get, upload)
        config = ingest_config(found.model, specs, await recipes())
        job = await in_own_thread(  # it reads the whole file
            partial(
                ingests.finish_upload,
                uploads,
                found,
                config,
                parent=body.parent,
                allow_rejected=body.allow_rejected,
                submitter=keys.name(authorization.encode("latin-1")),
                most=max_queued,
                now=time.time(),
            )
        )
        return queued(job, request, response)

    return routes


def _parts(uploads: Uploads) -> APIRouter:
    routes = APIRouter(tags=["datasets"])

    @routes.get("/uploads/{upload}", summary="How much has arrived")
    async def get(upload: str) -> UploadInfo:
        return await asyncio.to_thread(lambda: _info(uploads, uploads.get(upload)))

    @routes.put("/uploads/{upload}", summary="Send a part", openapi_extra=PART_BODY)
    async def put(upload: str, offset: Offset, request: Request) -> Received:
        """The bytes of the file from `offset` on, as many as you like. After a failure, GET says where to continue. A
        wrong offset is a 409 that says the right one, also in the header Upload-Offset.
        """
        if content_coding(request.scope) is not None:
            raise UnsupportedMediaType(
                "send parts without Content-Encoding: compress the file before the upload instead"
            )
        found = await asyncio.to_thread(uploads.get, upload)
        with uploads.part(found, offset) as part:
            way_out = f"the upload was begun with {found.bytes} bytes, of which {offset} have arrived"
            async with aclosing(pieces(request.scope, request.receive, part.left, way_out)) as arriving:
                return Received(received=await part.write(arriving))

    @routes.delete("/uploads/{upload}", status_code=204, summary="Remove an upload")
    async def remove(upload: str) -> Response:
        """The received bytes are removed. A finished upload is a 409: cancel its job instead."""
        await asyncio.to_thread(uploads.remove, upload)
        return Response(status_code=204)

    return routes


def _info(uploads: Uploads, upload: Upload) -> UploadInfo:
    return UploadInfo(
        upload=upload.id,
        dataset=upload.name,
        bytes=upload.bytes,
        received=uploads.received(upload),
        part_bytes=PART_BYTES,
        expires_at=uploads.expires_at(upload),
        job=upload.job,
    )
