"""Bodies of trials."""

from itertools import pairwise
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, Discriminator, Field, Tag, model_validator

from service.api.durations import Duration
from service.api.schemas import StrictBody, Time, WholeJsonNumber
from service.api.written import WITHOUT_NUL, Form
from service.delivery.trial_rule import Name, Outcome
from service.delivery.trials import Arm, State

_FEW = 100  # samples of a stage that names none
_SAMPLES = Field(_FEW, ge=1, le=10**9, description="the least samples of the candidate; fewer are no verdict")
Positive = Annotated[float, Field(strict=True, gt=0, allow_inf_nan=False)]
Text = Annotated[str, Field(max_length=1000), WITHOUT_NUL]


class ShadowStage(StrictBody):
    """The candidate computes a share of the live requests again; callers get live's answers."""

    shadow: Positive = Field(le=1, description="share of the live requests")
    duration: Duration = Field(alias="for", description="how long it lasts at least, such as PT10M")
    samples: WholeJsonNumber = _SAMPLES


class CanaryStage(StrictBody):
    """The candidate answers a share of the keys, always the same ones; a greater share keeps them."""

    share: Positive = Field(le=0.5, description="share of the keys")
    duration: Duration = Field(alias="for", description="how long it lasts at least, such as PT1H")
    samples: WholeJsonNumber = _SAMPLES


_HEADER = Form(
    r"^[A-Za-z0-9!#$%&'*+.^_`|~-]{1,100}$", "must be the name of a header, such as X-User, of at most 100 characters"
)
HeaderName = Annotated[str, _HEADER]


def _kind_of_stage(value: Any) -> str | None:
    if isinstance(value, dict):
        return {(True, False): "(shadow)", (False, True): "(share)"}.get(("shadow" in value, "share" in value))
    return "(shadow)" if isinstance(value, ShadowStage) else "(share)" if isinstance(value, CanaryStage) else None


StageRequest = Annotated[
    Annotated[ShadowStage, Tag("(shadow)")] | Annotated[CanaryStage, Tag("(share)")],
    Discriminator(
        _kind_of_stage,
        custom_error_type="stage",
        custom_error_message='must be an object with either shadow or share, such as {"share": 0.05, "for": "PT10M"}',
    ),
]


class Surety(StrictBody):
    """How sure a verdict must be."""

    alpha: Positive = Field(
        0.01, le=0.5, description="the greatest probability that a candidate as good as live is rolled back"
    )


class AgreementBound(StrictBody):
    """How many samples of a shadow both versions must answer alike."""

    at_least: float = Field(strict=True, ge=0, le=1, description="share of the samples; of labels the same one counts")
    tolerance: float = Field(
        1e-6, strict=True, ge=0, allow_inf_nan=False, description="numbers that differ by at most this are alike"
    )


class LatencyBound(StrictBody):
    """How fast the candidate must answer in a canary."""

    p95_at_most: Positive = Field(le=600_000, description="milliseconds within which it answers 95% of the requests")


class ConditionsRequest(StrictBody):
    """Conditions for the candidate. Errors are judged unless null is given; the others if they are given."""

    errors: Surety | None = Field(
        Surety(), description="the candidate errs on no more keys than live; at its alpha it is rolled back"
    )
    agreement: AgreementBound | None = Field(None, description="judged in shadow stages")
    latency: LatencyBound | None = Field(None, description="judged in canary stages")
    accuracy: Surety | None = Field(
        None, description="where the answers in a shadow differ and the truth came in, live is not right more often"
    )


class TrialRequest(StrictBody):
    """The candidate, and the stages in which it proves itself."""

    version: WholeJsonNumber = Field(ge=1, le=2**31 - 1)
    stages: list[StageRequest] | None = Field(
        None,
        min_length=1,
        max_length=20,
        description="shadows first, then canaries with rising shares; by default a shadow of 1.0 (10 minutes, 500 "
        "samples), a share of 0.05 (10 minutes, 200 samples) and one of 0.25 (10 minutes, 500 samples)",
    )
    key_header: HeaderName | None = Field(
        None,
        description="header whose value is the key of a request, such as X-User: the same version answers all requests "
        "of a key. By default, and for a request without it, each request is its own key",
    )
    conditions: ConditionsRequest = ConditionsRequest()
    when_undecided: Literal["pause", "roll_back"] = Field(
        "pause", description="what follows if a condition is undecided at the end of a stage, or the trial after `max`"
    )
    max: Duration | None = Field(
        None, description="how long the trial lasts at most, from its opening or the end of its last pause"
    )

    @model_validator(mode="after")
    def _in_order(self) -> Self:
        stages = self.stages or []
        shares = [stage.share for stage in stages if isinstance(stage, CanaryStage)]
        kinds = [isinstance(stage, CanaryStage) for stage in stages]
        if kinds != sorted(kinds):
            raise ValueError("stages: shadow stages come before those with a share")
        if any(second <= first for first, second in pairwise(shares)):
            raise ValueError(f"stages: shares must rise, not {', '.join(f'{share:g}' for share in shares)}")
        if stages and all(kinds):
            for name in ("agreement", "accuracy"):
                if getattr(self.conditions, name) is not None:
                    raise ValueError(
                        f"conditions: {name} is judged by a shadow: add a stage with shadow, or leave it out"
                    )
        if stages and not any(kinds) and self.conditions.latency is not None:
            raise ValueError("conditions: latency is judged by a share: add a stage with one, or leave it out")
        return self


class ReasonRequest(StrictBody):
    """Why the trial is changed."""

    reason: Text = Field("", description="for the history")


class StageInfo(BaseModel):
    """One stage."""

    shadow: float | None = Field(description="share of the live requests that are computed again; null: a canary")
    share: float | None = Field(description="share of the keys that the candidate answers; null: a shadow")
    duration: Duration = Field(serialization_alias="for")
    samples: int


class ConditionsInfo(BaseModel):
    """Conditions for the candidate; null: not judged."""

    errors: Surety | None
    agreement: AgreementBound | None
    latency: LatencyBound | None
    accuracy: Surety | None


class LatencyInfo(BaseModel):
    """Quantiles of the time of a request, in milliseconds; of a shadow, of its computation alone."""

    p50: float
    p95: float
    p99: float


class ArmInfo(BaseModel):
    """Counts of the requests that one of the versions answered, or computed again."""

    requests: int
    samples: int
    errors: int = Field(description="requests without a finite answer")
    keys: int = Field(description="keys that had an error with this version, and in a shadow not with both")
    not_finite: int
    dropped: int = Field(description="samples that a shadow could not keep up with")
    latency_ms: LatencyInfo | None = Field(description="null: no request")


class StageEvidence(BaseModel):
    """Counts of a stage."""

    stage: int = Field(description="the first is 0")
    arms: dict[Arm, ArmInfo] = Field(description="live; candidate in a canary; shadow in a shadow")
    agreed: int = Field(description="samples of a shadow that both versions answered alike")
    differed: int


class ConditionEvidence(BaseModel):
    """Evidence about a condition."""

    condition: Name
    outcome: Outcome
    value: float | None = Field(
        description="errors: keys of the candidate; agreement: share; latency: p95 in ms; accuracy: samples that the "
        "candidate alone answered rightly, less those of live"
    )
    bound: float | None = Field(description="what is asked of the value; null: nothing")
    e_value: float | None = Field(description="evidence against the candidate; equal versions have 1 on average")
    limit: float | None = Field(description="the evidence at which it is rolled back")
    detail: str


class DifferenceInfo(BaseModel):
    """A sample that the two versions answered differently in a shadow."""

    id: str = Field(description="of the prediction")
    index: int = Field(description="position of the sample in its body")
    at: Time
    live: Any
    candidate: Any
    better: Literal["live", "candidate", "neither"] | None = Field(description="which one the truth agrees with")


class Evidence(BaseModel):
    """Evidence of a trial."""

    stages: list[StageEvidence]
    conditions: list[ConditionEvidence]
    seconds_left: float = Field(description="that the stage lasts at least")
    samples_left: int = Field(description="that the stage needs at least")
    next: str = Field(description="what the trial waits for, or why it ended")
    differences: list[DifferenceInfo] = Field(description="the first 20")


class TrialInfo(BaseModel):
    """A trial of a candidate version against the live one."""

    id: str
    model: str
    version: int = Field(description="the candidate")
    live: int = Field(description="the version that was live at its opening")
    state: State
    stage: int = Field(description="the first is 0; of a trial that has ended, its last one")
    stages: list[StageInfo]
    share: float = Field(description="share of the keys that the candidate answers now")
    shadow: float = Field(description="share of the live requests that it computes again now")
    key_header: str | None
    conditions: ConditionsInfo
    when_undecided: Literal["pause", "roll_back"]
    max: Duration | None
    opened_at: Time
    stage_since: Time = Field(description="the start of the stage, or its last resume")
    finished_at: Time | None
    by: str = Field(description='name of the key that opened it, "anyone" if the service has no keys, or a job\'s id')
    job: str | None = Field(description="the job that made and tried the version")
    reason: str = Field(description="of its state")
    evidence: Evidence
    waiting_for: list[str] = Field(
        [],
        description="addresses of the nodes that did not follow a change within two seconds; they follow when they can",
    )
