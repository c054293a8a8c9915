"""Datasets over HTTP: small files in one request, versions, reports, deletion."""

import asyncio
import time
from collections.abc import Mapping, Sequence
from contextlib import aclosing
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request, Response

from models.checkpoints.storage import Storage
from models.errors import CheckpointError, InvalidInput
from models.spec import ModelSpec
from service.api.bodies import RequestBodies
from service.api.dataset_schemas import FORMAT, Column, DatasetInfo, DatasetList, DatasetName, ReportInfo, Share
from service.api.jobs import Authorization, queued
from service.api.openapi import DATASET_BODY
from service.api.schemas import IdempotencyKey, JobInfo, WholeNumber
from service.api.written import Form
from service.data.datasets import BuiltIn, Datasets, DatasetVersion
from service.data.reports import page_of
from service.data.uploads import Uploads
from service.errors import NotFound, UnsupportedMediaType, require_model
from service.execution.recipes import ReadRecipes, complete_config, require_target, usable
from service.jobs.ingests import Ingests, parameters, report_of
from service.media_types import MULTIPART, plain
from service.web.auth import Access, Keyring

ACCESS: Mapping[str, Access] = {
    "GET /models/{model}/datasets": Access("predict", 404, 503),
    "GET /models/{model}/datasets/{name}/versions/{version}": Access("predict", 404, 422, 503),
    "GET /models/{model}/datasets/{name}/versions/{version}/report": Access("predict", 404, 422, 503),
    "POST /models/{model}/datasets/{name}/versions": Access("train", 400, 403, 404, 413, 415, 422, 429, 503),
    "DELETE /models/{model}/datasets/{name}/versions/{version}": Access("train", 403, 404, 409, 422, 503),
}
_BODY = "send the file itself as the body: curl --data-binary @FILE"
_WAY_OUT = "compress it, split it and let the dataset grow by its parts, or raise TORCHLOOP_MAX_DATASET_BYTES"
PAGE = 200  # refused rows

Parent = Annotated[str | None, Query(description='dataset version that grows, as "field@3", or a bare name')]
ReportedJob = Annotated[
    Annotated[str, Form(r"^[0-9a-f]{32}$", "must be the id of a job: 32 digits of 0-9 and a-f")] | None,
    Query(description="ingest job, if equal rows were sent again; by default the first one"),
]
OptionalColumn = Annotated[Column | None, Query()]
Cursor = Annotated[
    Annotated[str, Form(r"^[0-9]{1,17}$", "send the `cursor` of the page before")] | None,
    Query(description="`cursor` of the previous page"),
]


def router(
    specs: Mapping[str, ModelSpec],
    datasets: Datasets,
    uploads: Uploads,
    ingests: Ingests,
    storage: Storage,
    recipes: ReadRecipes,
    bodies: RequestBodies,
    keys: Keyring,
    max_queued: int,
) -> APIRouter:
    """Return the routes. Each key may have `max_queued` jobs in the queue."""
    routes = APIRouter(tags=["datasets"])
    routes.routes.extend(_reading(specs, datasets, storage, recipes).routes)
    routes.routes.extend(_small_files(specs, uploads, ingests, recipes, bodies, keys, max_queued).routes)

    @routes.delete(
        "/models/{model}/datasets/{name}/versions/{version}",
        status_code=204,
        summary="Delete a dataset version",
    )
    async def delete(
        model: str,
        name: DatasetName,
        version: WholeNumber,
        erase: Annotated[bool, Query(description="also remove its files, for good")] = False,
    ) -> Response:
        """It can no longer be trained on, and its number is not used again. While a job uses it, or if another version
        has grown from it: 409. GET still describes it, for versions of the model that were trained on it.
        """
        require_model(model, specs)
        await asyncio.to_thread(datasets.delete, model, name, version, erase=erase, now=time.time())
        return Response(status_code=204)

    return routes


def _small_files(
    specs: Mapping[str, ModelSpec],
    uploads: Uploads,
    ingests: Ingests,
    recipes: ReadRecipes,
    bodies: RequestBodies,
    keys: Keyring,
    max_queued: int,
) -> APIRouter:
    routes = APIRouter(tags=["datasets"])

    @routes.post(
        "/models/{model}/datasets/{name}/versions",
        status_code=202,
        summary="Make a dataset version of a file",
        openapi_extra=DATASET_BODY,
    )
    async def add(
        model: str,
        name: DatasetName,
        request: Request,
        response: Response,
        parent: Parent = None,
        allow_rejected: Annotated[Share, Query(description="greatest share of refused rows, 0 to 1")] = 0.0,
        form: Annotated[str, FORMAT, Query(alias="format", description="auto: by the content")] = "auto",
        label_column: OptionalColumn = None,
        split_column: OptionalColumn = None,
        group_column: OptionalColumn = None,
        idempotency_key: IdempotencyKey = None,
        authorization: Authorization = "",
    ) -> JobInfo:
        """The body is the file. It is written to disk as it arrives; a job of kind `ingest` then reads it. Large files
        are better sent in parts, which can be resumed: POST /models/{model}/datasets/{name}/uploads.
        """
        config = ingest_config(model, specs, await recipes())
        _require_no_form(request)
        options = {"label_column": label_column, "split_column": split_column, "group_column": group_column}
        body = bodies.streamed(request.scope, request.receive, uploads.max_bytes, _WAY_OUT)
        with uploads.whole() as file:
            async with aclosing(body) as pieces:
                if not await file.write(pieces):
                    raise InvalidInput("Empty file", f"the body is empty: {_BODY}")
            job = await asyncio.to_thread(
                ingests.add_file,
                uploads,
                file.path,
                model,
                name,
                config,
                parameters(file.sha256, form, options, allow_rejected),
                parent=parent,
                key=idempotency_key,
                submitter=keys.name(authorization.encode("latin-1")),
                most=max_queued,
                now=time.time(),
            )
        return queued(job, request, response)

    return routes


def _require_no_form(request: Request) -> None:
    """Raise UnsupportedMediaType for a form, whose boundaries would be read as rows of the file."""
    if plain(request.headers.get("content-type")) == MULTIPART:
        raise UnsupportedMediaType(f"forms are not read: {_BODY}")


def _reading(specs: Mapping[str, ModelSpec], datasets: Datasets, storage: Storage, recipes: ReadRecipes) -> APIRouter:
    routes = APIRouter(tags=["datasets"])

    async def built_in(model: str) -> Sequence[BuiltIn]:
        recipe = usable(await recipes(), model)
        return await asyncio.to_thread(datasets.built_in, model, {} if recipe is None else recipe.built_in)

    @routes.get("/models/{model}/datasets", summary="Its dataset versions")
    async def list_datasets(model: str) -> DatasetList:
        """By name and number. The data of the recipe is version 1 of its name: that which the recipe declares
        (`built_in`), and any other once a version was trained on it, without counts, since they are not read here.
        """
        require_model(model, specs)
        trained = await asyncio.to_thread(datasets.trained, model)
        own = [_built_in(found) for found in await built_in(model)]
        found = await asyncio.to_thread(datasets.listed, model)
        return DatasetList(datasets=[*own, *(_described(one, trained.get(one.label, ())) for one in found)])

    @routes.get("/models/{model}/datasets/{name}/versions/{version}", summary="One dataset version")
    async def get(model: str, name: DatasetName, version: WholeNumber) -> DatasetInfo:
        require_model(model, specs)
        for found in await built_in(model) if version == 1 else ():
            if found.name == name:
                return _built_in(found)
        one = await asyncio.to_thread(datasets.get, model, name, version)
        return _described(one, (await asyncio.to_thread(datasets.trained, model)).get(one.label, ()))

    @routes.get("/models/{model}/datasets/{name}/versions/{version}/report", summary="Refused rows and warnings")
    async def report(
        model: str, name: DatasetName, version: WholeNumber, cursor: Cursor = None, job: ReportedJob = None
    ) -> ReportInfo:
        """Counts by reason with the first rows of each, and a page of all refused rows.

        Each job has its own report: files with equal good rows, which make one version, may differ in bad ones.
        """
        require_model(model, specs)
        one = await asyncio.to_thread(datasets.get, model, name, version)
        if one.erased:
            raise NotFound(f"the files of dataset {one.label} were erased")
        if job is None or job == one.job:
            counted = report_of(one.summary)
        else:
            counted = dict(await asyncio.to_thread(datasets.report_of, one, job))
        refused, following = await asyncio.to_thread(_page, storage, one, job or one.job, int(cursor or 0))
        return ReportInfo(
            dataset=one.label,
            **counted,
            refused=refused,
            cursor=None if following is None else str(following),
        )

    return routes


def _page(storage: Storage, version: DatasetVersion, job: str, begin: int) -> tuple[list[dict[str, Any]], int | None]:
    """Return a page of the refused rows of a job, see `page_of`. Raises Invalid, NotFound, StoreUnavailable."""
    try:
        path = storage.newest(storage.report(version.model, job))
    except CheckpointError as err:
        raise NotFound(f"the report of dataset {version.label}: {err}") from err
    return page_of(path, begin, PAGE)


def ingest_config(model: str, specs: Mapping[str, ModelSpec], recipes: Mapping[str, Any]) -> dict[str, Any]:
    """Return the default config of the model's recipe, from which the ingest knows the built-in data.

    Raises NotFound, and Invalid if the model has no recipe, or one that learns no files.
    """
    require_model(model, specs)
    config = complete_config(model, recipes, {})
    require_target(model, recipes)
    return config


def _described(version: DatasetVersion, trained: Sequence[int]) -> DatasetInfo:
    summary = version.summary
    counted = ("format", "examples", "by_label", "rows", "rejected", "duplicates", "conflicting_labels", "added")
    return DatasetInfo(
        dataset=version.label,
        built_in=False,
        sha256=version.sha256,
        created_at=version.created_at,
        job=version.job,
        parent=version.parent,
        inputs=summary["schema"],
        reference=summary.get("reference", {}),  # datasets of earlier releases have none
        warnings=summary["warnings"],
        deleted_at=version.deleted_at,
        erased=version.erased,
        trained=list(trained),
        **{name: summary[name] for name in counted},
    )


def _built_in(found: BuiltIn) -> DatasetInfo:
    return DatasetInfo(
        dataset=found.label,
        built_in=True,
        sha256=None,
        format="built-in",
        created_at=found.created_at,
        job=None,
        parent=None,
        inputs={},
        examples=dict(found.examples),
        by_label={},
        reference={},
        rows=None,
        rejected=None,
        duplicates=None,
        conflicting_labels=None,
        added=None,
        warnings=[],
        deleted_at=None,
        erased=False,
        trained=list(found.trained),
    )
