"""Request and response bodies of captures, feedback, accuracy and replay."""

from typing import Annotated, Any, Literal

from fastapi import Path as InPath
from fastapi import Query
from pydantic import BaseModel, Field, StrictBool

from service.api.schemas import WRITTEN_PLAINLY, StrictBody, Time, WholeJsonNumber
from service.api.written import WITHOUT_NUL, Form
from service.data.capture_settings import DAYS, MAX_BYTES, MAX_EXAMPLES

MOST_ENTRIES = 1_000
PREDICTION = Form(
    r"^[0-9a-f]{11}-[0-9a-f]{8}-[0-9a-f]{1,12}-[1-9][0-9]{0,9}$",
    "must be the id of an answer, such as 0199d2c4f1a-5f3a9c1d-2b-4: it is `id` in its body, and X-Prediction-Id",
)
KEY = Form(r"^[ -~]{1,200}$", "must have 1 to 200 printable ASCII characters, as X-Prediction-Key")
_POSITION = Field(ge=0, le=2**31 - 1)
_INPUTS = (
    "the sample as an entry of `inputs`; null if it has more than 1,024 numbers; of named inputs an object, which "
    "leaves out arrays with more, and texts of more than 10,000 characters"
)

NumericForm = Literal["fp32", "bf16", "int8"]
PredictionId = Annotated[str, PREDICTION, InPath(description="`id` of an answer")]
Position = Annotated[
    Annotated[int, _POSITION, WRITTEN_PLAINLY], InPath(description="position of the sample in its body")
]
Window = Annotated[
    str,
    Form(r"^[1-9][0-9]{0,3}[mhd]$", "write minutes, hours or days, at most 9999 of them, as 30m, 12h or 7d"),
    Query(description="the last minutes, hours or days, as 30m, 12h or 7d"),
]


class CaptureRequest(StrictBody):
    """Which answers are captured, and how much of them is kept."""

    rate: float = Field(
        strict=True, ge=0, le=1, allow_inf_nan=False, description="share of the requests that is captured; 0: none"
    )
    max_examples: WholeJsonNumber = Field(
        MAX_EXAMPLES, ge=1, le=2**40, description="captured samples that are kept; unlabelled ones go first"
    )
    max_bytes: WholeJsonNumber = Field(MAX_BYTES, ge=1, le=2**50, description="their size in all")
    days: float = Field(
        DAYS, strict=True, gt=0, le=36_500, allow_inf_nan=False, description="after which a captured sample goes"
    )
    originals: StrictBool = Field(False, description="also keep picture files as they came")


class CaptureInfo(BaseModel):
    """Settings of a model, and what its captures hold now."""

    model: str
    rate: float
    max_examples: int
    max_bytes: int
    days: float
    originals: bool
    examples: int
    bytes: int


class FeedbackEntry(StrictBody):
    """A truth about one answer: by `id`, the prediction's, or by `key`, which was sent as X-Prediction-Key."""

    id: Annotated[str, PREDICTION] | None = None
    key: Annotated[str, KEY] | None = None
    index: WholeJsonNumber = Field(0, ge=0, le=2**31 - 1, description="position of the sample in its body")
    truth: Any = Field(description="the label or value; of several named outputs an object of some of them")
    kind: Literal["correction", "audit", "outcome"] = Field(
        "correction",
        description="correction: reported by a caller, mostly because the answer is wrong; audit: of a sample that was "
        "drawn from GET .../captures; outcome: what turned out, told for all answers",
    )
    order: Literal["random", "uncertain"] = Field(
        "random", description="of an audit: the order in which its sample was drawn; only random ones make an accuracy"
    )
    replace: StrictBool = Field(
        True, description="false: refuse the entry if one of its kind says something else about the sample already"
    )
    by: Annotated[str, Field(min_length=1, max_length=200), WITHOUT_NUL] | None = Field(
        None, description="by default the scope of the key"
    )


class FeedbackRequest(StrictBody):
    """Entries, each of which is accepted or refused alone."""

    feedback: list[Any] = Field(
        min_length=1,
        max_length=MOST_ENTRIES,
        description='{"id" or "key", "index", "truth", "kind", "order", "replace", "by"}: see FeedbackEntry',
    )


class EntryError(BaseModel):
    """Why an entry was refused."""

    title: str
    detail: str


class TruthInfo(BaseModel):
    """One entry of feedback. `truth` is null if the capture was erased."""

    truth: Any
    kind: Literal["correction", "audit", "outcome"]
    by: str
    at: Time
    replaced_at: Time | None = Field(description="when a later entry of the same kind replaced it")
    was_right: bool | None = Field(description="whether the answer was; null for values")
    error: float | None = Field(description="absolute error of the answered value")


class FeedbackResult(BaseModel):
    """What became of one entry."""

    accepted: bool
    matched: Literal["captured", "version only", "not yet"] | None = Field(
        None,
        description="captured: the answer is known; version only: it was not captured; not yet: it may come",
    )
    error: EntryError | None = None
    current: TruthInfo | None = Field(None, description="what stands instead, if `replace` is false")


class FeedbackResults(BaseModel):
    """One result for each entry, in order."""

    results: list[FeedbackResult]


class TruthPart(BaseModel):
    """An output whose truth can be reported: a label, a number, or an array of numbers."""

    name: str = Field(description="empty if the output has no name")
    kind: Literal["label", "value", "array"]
    labels: list[Any] | None = Field(description="of a label; null if they are not known: any text, or whole number")
    shape: list[int | None] = Field(description="of an array; null: any length")


class TruthForm(BaseModel):
    """What a truth of the model is: that of its only output, or an object of some of them by name."""

    model: str
    outputs: list[TruthPart] = Field(description="empty if the answers have nothing that can be compared")


class SampleInfo(BaseModel):
    """A captured sample."""

    id: str
    index: int
    version: int
    at: Time
    key: str | None
    said: dict[str, dict[str, Any]] | None = Field(
        description='label and probability, or value, of each output; "" is an output without a name'
    )
    inputs: Any = Field(description=_INPUTS)
    picture: str | None = Field(description="address of a PNG file of the sample, or of its first picture")
    pictures: dict[str, str] = Field(description="the same of each picture, by the name of its input; empty: no name")
    original: bool = Field(description="the picture file is kept as it came: at .../original, not .../picture.png")
    feedback: list[TruthInfo]


class CapturePage(BaseModel):
    """Captured samples. `cursor` requests the next page; null on the last page."""

    captures: list[SampleInfo]
    cursor: str | None


class ErasedInfo(BaseModel):
    """An erasure. `in_datasets` and `trained` are affected, and not changed by it."""

    erased: int = Field(description="samples whose content was removed for good")
    in_datasets: list[str] = Field(
        description="dataset versions that have some of them, as name@version; one that is being made is its name alone"
    )
    trained: list[int] = Field(description="versions of the model that were trained on these")


class EstimateInfo(BaseModel):
    """A share or mean with its interval of 95%: Wilson's score interval, or the normal one of a mean."""

    value: float
    low: float
    high: float
    labelled: int


class PointInfo(BaseModel):
    """A part of the window."""

    begin: Time
    end: Time
    captured: int
    labelled: int
    accuracy: EstimateInfo | None
    error: EstimateInfo | None
    confidence: float | None


class ExpectedInfo(BaseModel):
    """Mean confidence of all captured answers: their accuracy as long as the version is calibrated."""

    accuracy: float
    valid: bool
    reason: str


class CorrectionsInfo(BaseModel):
    """What callers reported by themselves. It is no accuracy: wrong answers are reported more often than right ones."""

    count: int
    right: int


class AccuracyInfo(BaseModel):
    """How right a version was, by audits and outcomes of captured answers in the window."""

    model: str
    version: int
    window: str
    begin: Time
    end: Time
    captured: int
    labelled: int = Field(description="captured samples with a random audit or an outcome")
    share_labelled: float | None
    accuracy: EstimateInfo | None = Field(description="of labels; null without labelled answers")
    error: EstimateInfo | None = Field(description="mean absolute error of values; null without two labelled answers")
    by_kind: dict[str, int]
    corrections: CorrectionsInfo
    expected: ExpectedInfo | None
    points: list[PointInfo]


class CapturedSample(BaseModel):
    """A captured sample of a prediction. An erased or pruned one has neither inputs nor answer."""

    index: int
    inputs: Any = Field(description=_INPUTS)
    answer: Any = Field(
        description="the numbers of the answer, null if there are more than 1,024; of named outputs an object, which "
        "leaves out such arrays"
    )
    said: dict[str, dict[str, Any]] | None = Field(
        description='label and probability, or value, of each output; "" is an output without a name'
    )
    picture: str | None
    original: bool = Field(description="the picture file is kept as it came")
    erased_at: Time | None
    pruned_at: Time | None
    feedback: list[TruthInfo]


class PredictionInfo(BaseModel):
    """The captured samples of one prediction request."""

    id: str
    model: str
    version: int
    at: Time
    key: str | None
    media_type: str
    backend: str | None
    form: NumericForm | None = Field(
        description="numeric form that computed the answer; null: not known, or the backend has no forms"
    )
    code: str | None = Field(description="digest of the model's code when it answered")
    sha256: str | None = Field(description="of the version's weights")
    dataset: str | None
    dataset_sha256: str | None
    job: str | None
    samples: list[CapturedSample]


class BackendInfo(BaseModel):
    """What computed the answers then, and now."""

    then: str | None
    now: str


class ReplayedForms(BaseModel):
    """Numeric forms that computed the answers then, and now; null: not known, or the backend has no forms."""

    then: NumericForm | None
    now: NumericForm | None


class ReplayedSample(BaseModel):
    """A sample that was computed again."""

    index: int
    same: bool = Field(description="the numbers are the same to the bit")
    greatest_difference: float | None = Field(description="between two numbers; null if they differ in shape")
    same_label: bool | None


class ReplayInfo(BaseModel):
    """A captured prediction, computed again by its version."""

    id: str
    model: str
    version: int
    same: bool = Field(description="the numbers of all samples are the same to the bit")
    greatest_difference: float | None
    backend: BackendInfo
    form: ReplayedForms = Field(description="in another form, other numbers are to be expected")
    same_code: bool = Field(description="the model's code has not changed since")
    samples: list[ReplayedSample]
