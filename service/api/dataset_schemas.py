"""Request and response bodies of datasets and their uploads."""

from typing import Annotated, Any, Literal

from fastapi import Path as InPath
from pydantic import BaseModel, Field

from models.catalog import NAME
from service.api.schemas import StrictBody, Time, WholeJsonNumber
from service.api.written import SHA256, WITHOUT_NUL, Form

_NAME = Form(f"^{NAME.pattern}$", "names have 1 to 64 lower-case letters, digits, - and _, a letter or digit first")
DatasetName = Annotated[str, _NAME, InPath(description="lower-case letters, digits, - and _")]
FORMAT = Form(r"^[a-z0-9_-]{1,32}$", "must be auto, or the name of a format in lower case, such as csv")
Column = Annotated[str, Field(min_length=1, max_length=200), WITHOUT_NUL]
Share = Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)]


class ColumnOptions(StrictBody):
    """Columns of a file that have a meaning. By default they are found by their usual names."""

    label_column: Column | None = Field(None, description="column of labels or values; by default label or target")
    split_column: Column | None = Field(None, description="column of train, validation, test; by default split")
    group_column: Column | None = Field(None, description="rows of one group come into one split; by default group")


class BeginUpload(StrictBody):
    """A file that will arrive in parts."""

    bytes: WholeJsonNumber = Field(ge=1, le=2**53, description="size of the file")
    sha256: Annotated[str, SHA256] | None = Field(
        None, description="SHA-256 of the file, checked when the upload is finished"
    )
    format: Annotated[str, FORMAT] = Field("auto", description="format of the file; auto: by its content")
    options: ColumnOptions = ColumnOptions()


class FinishUpload(StrictBody):
    """How the file becomes a dataset version."""

    parent: str | None = Field(
        None, description='dataset version that grows, as "field@3", or a bare name for its newest; null: none'
    )
    allow_rejected: Share = Field(0.0, description="greatest share of refused rows, 0 to 1")


class UploadInfo(BaseModel):
    """One upload. The next part begins at offset `received`."""

    upload: str
    dataset: str
    bytes: int
    received: int
    part_bytes: int = Field(description="a good size of a part; any other is taken as well")
    expires_at: Time = Field(description="when it is removed if no other part arrives")
    job: str | None = Field(description="the ingest job, once the upload is finished")


class Received(BaseModel):
    """How much of the file has arrived."""

    received: int


class DatasetInfo(BaseModel):
    """One dataset version, or the data of a recipe, which has version 1, and the counts that the recipe declares."""

    dataset: str = Field(description="name@version")
    built_in: bool
    sha256: str | None = Field(description="digest of the rows, their splits, targets and schema; null: built in")
    format: str
    created_at: Time | None = Field(description="null: data of the recipe that no version was trained on yet")
    job: str | None = Field(description="the ingest job")
    parent: str | None = Field(description="the version that it has grown from")
    inputs: dict[str, Any] = Field(
        serialization_alias="schema", description="what a row consists of: its values, their kinds and bounds"
    )
    examples: dict[str, int] = Field(description="number of examples in train, validation and test, if known")
    by_label: dict[str, dict[str, int]] = Field(description="label -> examples by split; empty if targets are values")
    reference: dict[str, Any] = Field(
        description="range of each statistic of the model's check over the training split: name -> [least, greatest]"
    )
    rows: int | None = Field(description="rows of the uploaded file")
    rejected: int | None
    duplicates: int | None
    conflicting_labels: int | None
    added: int | None = Field(description="examples that the parent does not have")
    warnings: list[str]
    deleted_at: Time | None = Field(description="when it was deleted: it can no longer be trained on")
    erased: bool = Field(description="its files were removed")
    trained: list[int] = Field(description="versions of the model that were trained on it")


class DatasetList(BaseModel):
    """Dataset versions of a model, by name and number, without deleted ones."""

    datasets: list[DatasetInfo]


class RefusedRowInfo(BaseModel):
    """A refused row of the file."""

    title: str
    row: int
    column: str | None
    value: str | None
    detail: str
    picture: bool = Field(False, description="it has a thumbnail: GET .../versions/{version}/refused/{row}.png")


class ExampleInfo(BaseModel):
    """An example that has a thumbnail."""

    digest: str = Field(description="SHA-256 of its content: GET .../versions/{version}/examples/{digest}.png")
    label: str | None = Field(description="null if targets are values")
    split: Literal["train", "validation", "test"]


class ExampleList(BaseModel):
    """A few examples of each label that have a thumbnail; none if the rows have no pictures."""

    dataset: str
    examples: list[ExampleInfo]


class ReportInfo(BaseModel):
    """Report of the rows of a file. `by_reason` has the first rows of each reason, `refused` a page of them all."""

    dataset: str
    rows: int
    good: int
    rejected: int
    by_reason: list[dict[str, Any]]
    warnings: list[str]
    refused: list[RefusedRowInfo]
    cursor: str | None = Field(description="requests the next page of `refused`; null on the last page")
