"""Types of the service's responses. Times are ISO 8601 in UTC."""

from collections.abc import Mapping
from typing import Any, Literal, NotRequired, TypedDict

Policy = Literal["never", "if_better", "no_worse", "always", "trial"]
Bounds = Mapping[str, float | None]  # alpha, margin
Promote = Policy | Mapping[Literal["if_better", "no_worse"], Bounds]
State = Literal["queued", "running", "succeeded", "failed", "cancelled"]
Kind = Literal["train", "ingest"]
FINAL: frozenset[str] = frozenset({"succeeded", "failed", "cancelled"})


class Predictions(TypedDict):
    """One entry per sample, in order; a failed sample has `{"error": {"title", "detail"}}` in its place.

    `id` names the answer, for feedback and replay.
    """

    model: str
    version: int
    id: str
    predictions: list[dict[str, Any]]


class Explanations(TypedDict):
    """One entry per sample, as in Predictions.

    `output` is the explained one of named outputs; `no_gradient` says which named inputs have none, and why.
    """

    model: str
    version: int
    explanations: list[dict[str, Any]]
    output: NotRequired[str]
    no_gradient: NotRequired[dict[str, str]]


class Input(TypedDict):
    """One input of a signature. Fields that its kind does not have are None."""

    name: str
    kind: Literal["number", "category", "text", "tensor", "picture"]
    required: bool
    default: Any
    low: float | None
    high: float | None
    values: list[str | int] | None
    max_chars: int | None
    shape: list[int | None]
    dtype: str


class Output(TypedDict):
    """One output of a signature: the array of one sample."""

    name: str
    dtype: str
    shape: list[int | None]
    labels: list[str] | None
    picture: bool


class Signature(TypedDict):
    """Typed inputs and outputs of a model."""

    inputs: list[Input]
    outputs: list[Output]


class Model(TypedDict):
    """One model: its inputs, live version and hyperparameters.

    A model whose file cannot be used has a `fault`, no `media_types`, `signature` and `body_schema`. In a list of many
    models `hyperparameters` may be a reference, `{"$ref": ...}`, and if it is `shortened`, more than 100 categories or
    labels are left out: `model()` returns them.
    """

    name: str
    summary: str
    live: int | None
    loaded: int | None
    fault: str | None
    loading: bool
    unloaded: bool
    device: str
    backend: str | None
    backend_reason: str | None
    forms: dict[str, Any] | None
    media_types: list[str]
    signature: Signature | None
    body_schema: dict[str, Any] | None
    shortened: bool
    example: dict[str, Any] | None
    hyperparameters: dict[str, Any] | None
    target: Literal["label", "value"] | None
    metric: str | None
    higher_is_better: bool | None


class Version(TypedDict):
    """One registered checkpoint."""

    version: int
    created_at: str
    job: str | None
    metrics: dict[str, float]
    config: dict[str, Any]
    arguments: dict[str, Any]
    artifacts: list[str]
    sha256: str
    dataset: str
    dataset_sha256: str | None
    torch: str
    command: str
    notes: list[str]
    reference: dict[str, Any]
    live: bool


class Promoted(TypedDict):
    """The live version now, and the previous one. `waiting_for`: addresses of nodes that did not follow in time."""

    model: str
    live: int
    previous: int | None
    waiting_for: list[str]


class Promotion(TypedDict):
    """`version` was live from `at` on."""

    version: int
    action: Literal["promote", "rollback"]
    at: str
    by: str
    reason: str


class TrialStep(TypedDict):
    """A trial of `version` was in this state from `at` on; the live version did not change."""

    version: int
    action: Literal["trial"]
    at: str
    by: str
    reason: str
    trial: str
    state: Literal["shadow", "canary", "paused", "promoted", "rolled_back", "aborted"]


class History(TypedDict):
    """The promotions of a model and the steps of its trials, oldest first; `live` is the live version, now or at the
    requested time.
    """

    model: str
    live: int | None
    promotions: list[Promotion | TrialStep]


class Job(TypedDict):
    """One job: training, or the ingest of a dataset. `dataset` is name@version; None: the data of the recipe."""

    id: str
    kind: Kind
    model: str
    state: State
    config: dict[str, Any]
    dataset: str | None
    dataset_sha256: str | None
    promote: Promote
    tensorboard: bool
    resources: dict[str, float] | None
    waits_for: str | None
    after: str | None
    feedback: dict[str, Any] | None
    attempt: int
    progress: dict[str, Any] | None
    version: int | None
    gate: dict[str, Any] | None
    report: dict[str, Any] | None
    error: dict[str, str] | None
    created_at: str
    started_at: str | None
    finished_at: str | None


class JobPage(TypedDict):
    """Jobs, newest first. `cursor` requests the next page; None on the last page."""

    jobs: list[Job]
    cursor: str | None


class Dataset(TypedDict):
    """One dataset version, `dataset` is name@version; or the data of a recipe, without sha256 and rows."""

    dataset: str
    built_in: bool
    sha256: str | None
    format: str
    created_at: str | None
    job: str | None
    parent: str | None
    schema: dict[str, Any]
    examples: dict[str, int]
    by_label: dict[str, dict[str, int]]
    reference: dict[str, Any]
    rows: int | None
    rejected: int | None
    duplicates: int | None
    conflicting_labels: int | None
    added: int | None
    warnings: list[str]
    deleted_at: str | None
    erased: bool
    trained: list[int]


class Report(TypedDict):
    """Report of the rows of a file: `refused` is a page of the refused ones, `cursor` requests the next page."""

    dataset: str
    rows: int
    good: int
    rejected: int
    by_reason: list[dict[str, Any]]
    warnings: list[str]
    refused: list[dict[str, Any]]
    cursor: str | None


class UploadState(TypedDict):
    """An upload in parts: the next one begins at offset `received`."""

    upload: str
    dataset: str
    bytes: int
    received: int
    part_bytes: int
    expires_at: str
    job: str | None


class DriftBin(TypedDict):
    """One bin: its share of the samples in the reference and in the window. Labels and outer bins lack bounds."""

    name: str
    low: float | None
    high: float | None
    reference: float
    window: float


class FeatureDrift(TypedDict):
    """One feature, or one answer. `halves` have `samples`, `psi` and `limit` of the earlier and the later half."""

    name: str
    kind: Literal["feature", "answer"]
    drifted: bool
    samples: int
    reference_samples: int
    psi: float
    limit: float | None
    halves: list[dict[str, float | None]]
    bins: list[DriftBin]


class Drift(TypedDict):
    """Inputs and answers of a version in a window, compared with its reference.

    `confidence`: the mean probability of its labels, `reference` and `window`; None if it answers none.
    """

    model: str
    version: int
    window: str
    since: str
    until: str
    state: Literal["drift", "suspected", "stable", "too few samples"]
    samples: int
    features: list[FeatureDrift]
    confidence: dict[str, float | None] | None


class Load(TypedDict):
    """The work of a node: requests that wait for the device, and predictions answered in a second."""

    waiting: int
    requests_per_s: float


class Node(TypedDict):
    """One node: the web processes of a machine that share a port. `loaded` is the version of each model."""

    id: str
    address: str
    state: Literal["serving", "leaving", "silent"]
    started_at: str
    seen_at: str
    processes: int
    loaded: dict[str, int | None]
    load: Load
    software: str


class Health(TypedDict):
    """`reasons` says, by model, why the service is not ready."""

    status: str
    reasons: dict[str, str]
    without_live_version: list[str]
