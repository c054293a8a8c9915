"""Thumbnails of dataset rows: PNG files of at most 96 x 96 pixels, which the ingest has drawn of decoded pictures."""

import asyncio
from collections.abc import Callable, Mapping
from typing import Annotated

from fastapi import APIRouter, Response
from fastapi import Path as InPath
from pydantic import Field

from models.checkpoints.storage import Storage
from models.spec import ModelSpec
from service.api.dataset_schemas import DatasetName, ExampleInfo, ExampleList
from service.api.schemas import WRITTEN_PLAINLY, WholeNumber
from service.api.written import SHA256
from service.data import thumbnails
from service.data.datasets import Datasets, DatasetVersion
from service.errors import NotFound, require_model
from service.jobs.queue import Jobs
from service.web.auth import Access

_VERSION = "/models/{model}/datasets/{name}/versions/{version}"
_OF_EXAMPLE = f"{_VERSION}/examples/{{digest}}.png"
_OF_ROW = f"{_VERSION}/refused/{{row}}.png"
_OF_JOB = "/jobs/{job_id}/refused/{row}.png"
ACCESS: Mapping[str, Access] = {
    f"GET {_VERSION}/examples": Access("predict", 404, 422, 503),
    f"GET {_OF_EXAMPLE}": Access("predict", 404, 422, 503),
    f"GET {_OF_ROW}": Access("predict", 404, 422, 503),
    f"GET {_OF_JOB}": Access("predict", 404, 422, 503),
}
HEADERS = {
    "Cache-Control": "no-store",  # erased rows are not shown again
    "Content-Security-Policy": "default-src 'none'; sandbox",
    "X-Content-Type-Options": "nosniff",
}

Digest = Annotated[str, SHA256, InPath(description="SHA-256 of the content of an example")]
Row = Annotated[Annotated[int, Field(ge=0, le=2**53), WRITTEN_PLAINLY], InPath(description="`row` of the report")]


class Png(Response):
    """A PNG file."""

    media_type = "image/png"


def router(specs: Mapping[str, ModelSpec], datasets: Datasets, jobs: Jobs, storage: Storage) -> APIRouter:
    """Return the routes."""
    routes = APIRouter(tags=["datasets"])

    async def kept(model: str, name: str, version: int) -> DatasetVersion:
        require_model(model, specs)
        one = await asyncio.to_thread(datasets.get, model, name, version)
        if one.erased:
            raise NotFound(f"the files of dataset {one.label} were erased")
        return one

    @routes.get(f"{_VERSION}/examples", summary="Examples that have a thumbnail")
    async def examples(model: str, name: DatasetName, version: WholeNumber) -> ExampleList:
        """At most 8 of each label, of at most 50 labels. Always the same ones, as they are chosen by their digests."""
        one = await kept(model, name, version)
        found = await asyncio.to_thread(thumbnails.examples, storage, storage.dataset(model, one.sha256))
        return ExampleList(dataset=one.label, examples=[ExampleInfo(**example) for example in found])

    @routes.get(_OF_EXAMPLE, summary="Thumbnail of an example", response_class=Png)
    async def example(model: str, name: DatasetName, version: WholeNumber, digest: Digest) -> Response:
        one = await kept(model, name, version)
        return await _sent(lambda: thumbnails.example(storage, storage.dataset(model, one.sha256), digest))

    @routes.get(_OF_ROW, summary="Thumbnail of a refused row", response_class=Png)
    async def refused(model: str, name: DatasetName, version: WholeNumber, row: Row) -> Response:
        """Of the first job that made the version, as its report: rows with `picture`, 200 at most."""
        one = await kept(model, name, version)
        return await _sent(lambda: thumbnails.refused(storage, storage.refused_rows(model, one.job), row))

    @routes.get(_OF_JOB, summary="Thumbnail of a row that an ingest refused", response_class=Png)
    async def refused_by_job(job_id: str, row: Row) -> Response:
        """Also of a job that failed because too many rows were refused: rows with `picture` in its `report`."""
        job = await asyncio.to_thread(jobs.get, job_id)
        return await _sent(lambda: thumbnails.refused(storage, storage.refused_rows(job.model, job.id), row))

    return routes


async def _sent(read: Callable[[], bytes]) -> Response:
    return Png(await asyncio.to_thread(read), headers=HEADERS)
