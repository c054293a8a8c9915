"""Types of the service's responses about trials. Times are ISO 8601 in UTC, durations are ISO 8601 durations."""

from typing import Any, Literal, NotRequired, TypedDict

TrialState = Literal["shadow", "canary", "paused", "promoted", "rolled_back", "aborted"]
Arm = Literal["live", "candidate", "shadow"]
TRIAL_FINAL: frozenset[str] = frozenset({"promoted", "rolled_back", "aborted"})

# The field "for" is a keyword, so that this type is written as a call.
StageOrder = TypedDict("StageOrder", {"shadow": float, "share": float, "for": str, "samples": int}, total=False)
StageOrder.__doc__ = "A stage to open a trial with: `shadow` or `share`, and how long it lasts at least."

TrialStage = TypedDict("TrialStage", {"shadow": float | None, "share": float | None, "for": str, "samples": int})
TrialStage.__doc__ = "One stage: a shadow has no `share`, a canary no `shadow`."


class Conditions(TypedDict, total=False):
    """Conditions: errors and accuracy {"alpha"}, agreement {"at_least", "tolerance"}, latency {"p95_at_most"} in ms."""

    errors: dict[str, float] | None
    agreement: dict[str, float] | None
    latency: dict[str, float] | None
    accuracy: dict[str, float] | None


class ArmCounts(TypedDict):
    """Counts of one version in a stage; `latency_ms` has p50, p95 and p99."""

    requests: int
    samples: int
    errors: int
    keys: int
    not_finite: int
    dropped: int
    latency_ms: dict[str, float] | None


class StageEvidence(TypedDict):
    """Counts of a stage, by arm; samples of a shadow that both versions answered alike or differently."""

    stage: int
    arms: dict[Arm, ArmCounts]
    agreed: int
    differed: int


class ConditionEvidence(TypedDict):
    """The verdict on a condition: at `limit` the `e_value` rolls the candidate back."""

    condition: Literal["errors", "agreement", "latency", "accuracy"]
    outcome: Literal["passed", "failed", "undecided", "not judged"]
    value: float | None
    bound: float | None
    e_value: float | None
    limit: float | None
    detail: str


class Difference(TypedDict):
    """A sample that both versions answered differently; `better` is the one that the truth agrees with, if known."""

    id: str
    index: int
    at: str
    live: Any
    candidate: Any
    better: Literal["live", "candidate", "neither"] | None


class Evidence(TypedDict):
    """Evidence of a trial. `next` says why it waits, or why it ended; the first 20 differences."""

    stages: list[StageEvidence]
    conditions: list[ConditionEvidence]
    seconds_left: float
    samples_left: int
    next: str
    differences: list[Difference]


class Trial(TypedDict):
    """A trial of a candidate, `version`, beside the live version. The first stage is 0.

    `share` of the keys that the candidate answers now, `shadow` of the live requests that it computes again now.
    `waiting_for`: addresses of nodes that did not follow a change in time.
    """

    id: str
    model: str
    version: int
    live: int
    state: TrialState
    stage: int
    stages: list[TrialStage]
    share: float
    shadow: float
    key_header: str | None
    conditions: Conditions
    when_undecided: Literal["pause", "roll_back"]
    max: str | None
    opened_at: str
    stage_since: str
    finished_at: str | None
    by: str
    job: str | None
    reason: str
    evidence: Evidence
    waiting_for: NotRequired[list[str]]
