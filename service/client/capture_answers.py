"""Types of the responses about captures and feedback. Times are ISO 8601 in UTC."""

from typing import Any, Literal, TypedDict

Kind = Literal["correction", "audit", "outcome"]
Order = Literal["newest", "random", "uncertain"]
Said = dict[str, dict[str, Any]]  # label and probability, or value, by output; "" has no name


class CaptureSettings(TypedDict):
    """Settings of a model's capture, and the present size of its captures."""

    model: str
    rate: float
    max_examples: int
    max_bytes: int
    days: float
    originals: bool
    examples: int
    bytes: int


class EntryError(TypedDict):
    """Why an entry of feedback was refused."""

    title: str
    detail: str


class TruthPart(TypedDict):
    """An output whose truth can be reported. `name` is "" if it has none, `labels` None if any text or whole number
    is one, a length in `shape` None if it may be any.
    """

    name: str
    kind: Literal["label", "value", "array"]
    labels: list[Any] | None
    shape: list[int | None]


class TruthForm(TypedDict):
    """What a truth of a model is: that of its only output, or an object of some of them by name."""

    model: str
    outputs: list[TruthPart]


class FeedbackResult(TypedDict):
    """What became of one entry of feedback."""

    accepted: bool
    matched: Literal["captured", "version only", "not yet"] | None
    error: EntryError | None
    current: "Told | None"  # the entry that counts instead, if the entry has `replace` false


class Told(TypedDict):
    """One entry of feedback about a sample."""

    truth: Any
    kind: Kind
    by: str
    at: str
    replaced_at: str | None
    was_right: bool | None
    error: float | None


class CapturedSample(TypedDict):
    """A captured sample. `inputs` is None if it is large; named inputs leave out those that are."""

    id: str
    index: int
    version: int
    at: str
    key: str | None
    said: Said | None
    inputs: Any
    picture: str | None
    pictures: dict[str, str]
    original: bool
    feedback: list[Told]


class CapturePage(TypedDict):
    """Captured samples. `cursor` requests the next page; None on the last page."""

    captures: list[CapturedSample]
    cursor: str | None


class Erased(TypedDict):
    """An erasure, and the dataset versions and versions of the model that were made from erased samples."""

    erased: int
    in_datasets: list[str]
    trained: list[int]


class Estimate(TypedDict):
    """A share or a mean with its interval of 95%."""

    value: float
    low: float
    high: float
    labelled: int


class Accuracy(TypedDict):
    """How right a version was, by random audits and outcomes."""

    model: str
    version: int
    window: str
    begin: str
    end: str
    captured: int
    labelled: int
    share_labelled: float | None
    accuracy: Estimate | None
    error: Estimate | None
    by_kind: dict[str, int]
    corrections: dict[str, int]
    expected: dict[str, Any] | None
    points: list[dict[str, Any]]


class Prediction(TypedDict):
    """The captured samples of one prediction request."""

    id: str
    model: str
    version: int
    at: str
    key: str | None
    media_type: str
    backend: str | None
    form: str | None
    code: str | None
    sha256: str | None
    dataset: str | None
    dataset_sha256: str | None
    job: str | None
    samples: list[dict[str, Any]]


class Replay(TypedDict):
    """A captured prediction, computed again by its version."""

    id: str
    model: str
    version: int
    same: bool
    greatest_difference: float | None
    backend: dict[str, str | None]
    form: dict[str, str | None]
    same_code: bool
    samples: list[dict[str, Any]]
