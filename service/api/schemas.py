"""Request and response bodies of the typed routes. Times are ISO 8601 in UTC."""

import re
from datetime import UTC, datetime
from difflib import get_close_matches
from typing import Annotated, Any, Literal

from fastapi import Header
from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Discriminator,
    Field,
    PlainSerializer,
    Tag,
    model_validator,
)

from models.errors import shown
from service.api.form_schemas import FormInfo
from service.delivery.gate import Policy

_LONGEST_NAME = 80  # characters that are compared with known names


def _from_seconds(value: object) -> object:
    return datetime.fromtimestamp(value, UTC) if isinstance(value, float | int) else value


def _no_bare_number(value: object) -> object:
    """Refuse bare numbers: otherwise 2026 would be a moment in 1970."""
    if isinstance(value, int | float) or (isinstance(value, str) and not re.match(r"\d{4}-", value)):
        raise ValueError("write a time as 2026-11-23T19:00:00Z")
    if isinstance(value, str) and re.search(r"\d:\d\S* \d\d:?\d\d$", value):
        raise ValueError("a + in a URL means a space: write the offset as %2B01:00, or end the time with Z for UTC")
    return value


def _only_whole(value: object) -> object:
    """Refuse values that are not integers in JSON: true would be 1, 1.0 and "1" as well."""
    if type(value) is not int:
        raise ValueError("must be a whole number such as 3, without a point, an exponent or quotes")
    return value


def is_whole_number(text: str) -> bool:
    """Whether a text is a whole number as the service writes it: 01, +1 and 1.0 are not."""
    return re.fullmatch(r"0|[1-9][0-9]*", text) is not None


def _written_plainly(text: object) -> object:
    if isinstance(text, str) and not is_whole_number(text):
        raise ValueError("must be a whole number such as 3")
    return text


WRITTEN_PLAINLY = BeforeValidator(_written_plainly)  # after the bounds, which the OpenAPI description then has
WholeNumber = Annotated[int, Field(ge=0), WRITTEN_PLAINLY]  # in a path or query
WholeJsonNumber = Annotated[int, BeforeValidator(_only_whole)]
IdempotencyKey = Annotated[str | None, Header(min_length=1, max_length=200)]
Moment = Annotated[datetime, BeforeValidator(_no_bare_number)]
Time = Annotated[
    datetime,
    BeforeValidator(_from_seconds),
    PlainSerializer(lambda at: at.isoformat(timespec="milliseconds").replace("+00:00", "Z"), return_type=str),
]


class InputInfo(BaseModel):
    """One input of a signature. Fields that its kind does not have are null."""

    name: str
    kind: Literal["number", "category", "text", "tensor", "picture"]
    required: bool
    default: Any = Field(None, description="the value of an optional input that is null or absent; null: NaN or none")
    low: float | None = Field(None, description="the least number allowed")
    high: float | None = Field(None, description="the greatest number allowed")
    values: list[str | bool | int] | None = Field(None, description="the categories; see `shortened`")
    max_chars: int | None = Field(None, description="of a text")
    shape: list[int | None] = Field(description="of one sample; null: any length")
    dtype: str


class OutputInfo(BaseModel):
    """One output of a signature: the array of one sample."""

    name: str
    dtype: str
    shape: list[int | None] = Field(description="of one sample; null: any length")
    labels: list[str] | None = Field(description="names of the classes along the last axis; see `shortened`")
    picture: bool = Field(description="the output is a picture, which Accept: image/png asks for")


class SignatureInfo(BaseModel):
    """Typed inputs and outputs of a model."""

    inputs: list[InputInfo]
    outputs: list[OutputInfo]


class ModelInfo(BaseModel):
    """One model: its inputs, live version and hyperparameters. A model whose file cannot be used has a fault alone."""

    name: str
    summary: str = ""
    live: int | None = Field(None, description="the version that should answer; null: none yet")
    loaded: int | None = Field(None, description="the version that answers in this process")
    loading: bool = Field(False, description="a version is being loaded; `loaded` answers until then")
    unloaded: bool = Field(False, description="the next request loads the live version, and waits for it")
    fault: str | None = Field(
        None, description="why the live version is not loaded, or the file of the model or its recipe cannot be used"
    )
    device: str
    backend: str | None = Field(
        None, description="backend in this process: onnxruntime, eager (PyTorch) or compile (torch.compile)"
    )
    backend_reason: str | None = Field(
        None, description="why the network is not run in ONNX Runtime, if that was tried"
    )
    forms: FormInfo | None = None
    media_types: list[str] = Field(
        [], description="media types that POST /predict/{name} accepts; empty: the file of the model cannot be used"
    )
    signature: SignatureInfo | None = None
    body_schema: dict[str, Any] | None = Field(None, description="JSON schema of an application/json body")
    shortened: bool = Field(
        False, description="this list leaves out more than 100 categories or labels; GET /models/{name} has them"
    )
    example: dict[str, Any] | None = Field(
        None, description="a valid application/json body; null: it is large, see GET /models/{name}/example"
    )
    prediction_schema: dict[str, Any] | None = Field(None, description="JSON schema of one prediction of the answer")
    hyperparameters: dict[str, Any] | None = Field(
        None,
        description="JSON schema of the recipe's config; null: no recipe. In the list of many models it is a reference "
        "to the one in GET /models/{name}, relative to the address of the list",
    )
    target: Literal["label", "value"] | None = Field(
        None, description="what the recipe learns from the rows of your own datasets; null: it learns no files"
    )
    metric: str | None = Field(None, description="the figure that decides between two versions")
    higher_is_better: bool | None = None


class Example(BaseModel):
    """A valid application/json body of POST /predict/{name}."""

    inputs: list[Any]


class ModelList(BaseModel):
    """All models of this installation."""

    models: list[ModelInfo]


class Preview(BaseModel):
    """The network's input for a body: one entry per sample, in order."""

    model: str
    samples: list[Any] = Field(
        description="nested lists of numbers, in the shape of the network's input; of named inputs an object of them"
    )


class VersionInfo(BaseModel):
    """One registered checkpoint."""

    version: int
    created_at: Time
    job: str | None = Field(description="the job that made it; null: it came from elsewhere")
    metrics: dict[str, float]
    config: dict[str, Any]
    arguments: dict[str, Any] = Field(description="constructor arguments of the network")
    artifacts: list[str] = Field(description="names of what belongs to the weights, such as a vocabulary")
    sha256: str
    dataset: str
    dataset_sha256: str | None = Field(description="digest of the dataset version; null: the data of the recipe")
    torch: str
    command: str
    notes: list[str] = Field(description="what was converted when the weights were read: dtypes, names of tensors")
    reference: dict[str, Any] = Field(
        description="range of each statistic that arrays are checked by, over the training split: [least, greatest]"
    )
    live: bool


class VersionList(BaseModel):
    """Versions of a model, oldest first."""

    versions: list[VersionInfo]
    before: int | None = Field(None, description="with `limit`: `before` of the page of older versions; null: none")


class StrictBody(BaseModel):
    """A JSON body: an object with these fields and no others."""

    model_config = ConfigDict(extra="forbid")

    @model_validator(mode="before")
    @classmethod
    def _refuse_unknown_fields(cls, body: Any) -> Any:
        names = body if isinstance(body, dict) else {}
        known = [field.alias or name for name, field in cls.model_fields.items()]
        unknown = next((name for name in names if name not in known), None)
        if unknown is None:
            return body
        near = get_close_matches(unknown[:_LONGEST_NAME], known, 1)
        hint = f"did you mean {near[0]}? " if near else ""
        raise ValueError(f"{shown(unknown)} is not a field; {hint}the fields are {', '.join(known)}")


class GateBounds(StrictBody):
    """How sure the gate's comparison must be."""

    alpha: float = Field(0.05, strict=True, gt=0, le=0.5, description="how often chance alone may promote")
    margin: float | None = Field(
        None,
        strict=True,
        ge=0,
        allow_inf_nan=False,
        description="in the unit of the metric. if_better: the least gain, by default 0. no_worse: the greatest loss, "
        "by default 0.01, or 1% of live's figure if that is an error",
    )


class IfBetter(StrictBody):
    """Promote if the new version is better, beyond chance."""

    if_better: GateBounds


class NoWorse(StrictBody):
    """Promote if the new version is not worse by more than a margin (non-inferiority)."""

    no_worse: GateBounds


def _kind_of_policy(value: Any) -> str:
    if isinstance(value, NoWorse) or (isinstance(value, dict) and "no_worse" in value):
        return "no_worse"
    return "if_better" if isinstance(value, IfBetter | dict) else "word"


Promote = Annotated[
    Annotated[Policy, Tag("word")] | Annotated[IfBetter, Tag("if_better")] | Annotated[NoWorse, Tag("no_worse")],
    Discriminator(_kind_of_policy),
]


class JobInfo(BaseModel):
    """One job: training, or the ingest of a dataset."""

    id: str
    kind: Literal["train", "ingest"]
    model: str
    state: Literal["queued", "running", "succeeded", "failed", "cancelled"]
    config: dict[str, Any] = Field(description="every hyperparameter")
    dataset: str | None = Field(
        description="the dataset version that is trained on, or that an ingest has made; of an ingest at work the name "
        "alone; null: the data of the recipe"
    )
    dataset_sha256: str | None
    promote: Promote
    tensorboard: bool
    resources: dict[str, float] | None = Field(description="what the job asks for: cpus, gpus, nodes")
    waits_for: str | None = Field(
        None, description="of a queued job: the resources that must be free for it, or the job that makes its dataset"
    )
    after: str | None = Field(
        description="the ingest job that makes the dataset; null once it is made, or if there is none"
    )
    feedback: dict[str, Any] | None = Field(
        description="of a job that learns from feedback: the dataset that grew, `since` and `weight`, as they were sent"
    )
    attempt: int
    progress: dict[str, Any] | None = Field(description="the last point reported: epoch, step, loss, metrics")
    version: int | None = Field(description="the version that the job registered")
    gate: dict[str, Any] | None = Field(
        description="whether it went live, and why: decision, metric, both figures and reason; of the validation "
        "examples: rows, how many differ in their answers, candidate_right and live_right among them, p_value; the "
        "same and the mean gain of old_rows, which are in the dataset version that the live version was trained on, "
        "and of new_rows, the others"
    )
    report: dict[str, Any] | None = Field(description="of an ingest: rows, good, rejected, by_reason, warnings")
    error: dict[str, str] | None
    created_at: Time
    started_at: Time | None
    finished_at: Time | None


class JobPage(BaseModel):
    """Jobs, newest first. `cursor` requests the next page; null on the last page."""

    jobs: list[JobInfo]
    cursor: str | None


class Cancelled(BaseModel):
    """How many jobs were cancelled."""

    cancelled: int


class JobHistory(BaseModel):
    """Every progress point of a job, in order."""

    job: str
    points: list[dict[str, Any]]


class Health(BaseModel):
    """`reasons` says, by model, why the service is not ready; `store`, what of the store does not work."""

    status: str
    reasons: dict[str, str] = Field(default_factory=dict)
    without_live_version: list[str] = Field(default_factory=list, description="models that wait for a first version")
    store: dict[str, str] = Field(
        default_factory=dict,
        description="reads, writes, files, objects: why they fail; predictions by loaded versions go on, so readiness "
        "does not depend on it",
    )
