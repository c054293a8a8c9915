"""Bodies of promotions, rollbacks and their history."""

from typing import Literal

from pydantic import BaseModel, Field

from service.api.schemas import StrictBody, Time, WholeJsonNumber
from service.delivery.trials import State


class PromoteRequest(StrictBody):
    """The version to promote."""

    version: WholeJsonNumber = Field(ge=1, le=2**31 - 1)


class Promoted(BaseModel):
    """The live version now, and the previous one."""

    model: str
    live: int
    previous: int | None
    waiting_for: list[str] = Field(
        description="addresses of the nodes that did not answer with the live version within two seconds; they follow "
        "when they can; see GET /nodes"
    )


class PromotionInfo(BaseModel):
    """`version` was live from `at` on."""

    version: int
    action: Literal["promote", "rollback"]
    at: Time
    by: str = Field(
        description='a job\'s id, a key\'s scope, "anyone" if the service has no keys, "start", or "trial" and its id'
    )
    reason: str


class TrialStep(BaseModel):
    """A trial of `version` was in this state from `at` on. The live version did not change: if the
    trial ended with a promotion, that is a separate entry.
    """

    version: int
    action: Literal["trial"]
    at: Time
    by: str = Field(description='a key\'s name, "anyone" if the service has no keys, a job\'s id, or "trials"')
    reason: str
    trial: str
    state: State


class History(BaseModel):
    """The promotions of a model and the steps of its trials, oldest first."""

    model: str
    live: int | None = Field(description="the live version, now or at the requested time")
    promotions: list[PromotionInfo | TrialStep]
