"""Request and response bodies of the settings by which models are retrained."""

from typing import Annotated, Any

from pydantic import BaseModel, Field, StrictBool, model_validator

from service.api.durations import Duration
from service.api.schemas import StrictBody, Time, WholeJsonNumber
from service.api.train_schemas import Weight
from service.delivery.gate import Policy

Corrections = Annotated[WholeJsonNumber, Field(ge=1, le=1_000_000)]


class RetrainRequest(StrictBody):
    """When a model is retrained on its feedback. Without `corrections`, `every` and `on_drift` it never is."""

    corrections: Corrections | None = Field(None, description="number of new corrections that queues a job")
    every: Duration | None = Field(
        None, description="how long after the last job, or after this call, new labelled samples queue one"
    )
    on_drift: StrictBool = Field(
        False,
        description="drift of the live version in the last hour queues a job, if there are new labelled samples. Drift "
        "alone never promotes: `promote` counts as never, unless it is trial",
    )
    at_most_every: Duration = Field("PT6H", description="least time between two jobs")
    weight: Weight = 1
    dataset: Annotated[str, Field(max_length=80)] | None = Field(
        None, description="dataset that grows: a bare name means its newest version then; needed to queue anything"
    )
    promote: Policy = Field("trial", description="as in POST /train")
    config: dict[str, Any] = Field(default_factory=dict, description="hyperparameters; the others have their defaults")

    @model_validator(mode="after")
    def _require_dataset(self) -> "RetrainRequest":
        if self.dataset is None and (self.corrections is not None or self.every is not None or self.on_drift):
            raise ValueError("dataset: name the dataset that grows, for example mnist")
        return self


class RetrainInfo(BaseModel):
    """Conditions for retraining a model, the feedback since the last job, and that job."""

    model: str
    corrections: int | None
    every: str | None
    on_drift: bool
    at_most_every: str
    weight: int
    dataset: str | None
    promote: Policy
    config: dict[str, Any]
    new_corrections: int = Field(description="corrections of captured answers that no such job was queued for")
    new_feedback: int = Field(description="the same with audits and outcomes")
    watermark: int = Field(description="number of the last feedback that the last job was queued for")
    queued_at: Time | None = Field(description="when the last job was queued")
    job: str | None = Field(description="the last job; its dataset is made by another one, `after` in GET /jobs/{id}")
    reason: str | None = Field(description="why it was queued")
    fault: str | None = Field(description="why the last try queued no job; it is tried again each minute")
