"""Request body of training jobs."""

from datetime import UTC, datetime
from typing import Annotated, Any

from pydantic import AfterValidator, Field, StrictBool

from service.api.durations import Duration, seconds_in
from service.api.schemas import Moment, Promote, StrictBody, WholeJsonNumber
from service.jobs.resources import share_of_gpu

MOST_WEIGHT = 100
Weight = Annotated[
    WholeJsonNumber,
    Field(ge=1, le=MOST_WEIGHT, description="how often training repeats the corrected samples in the train split"),
]


class FeedbackChoice(StrictBody):
    """The labelled captures that a job learns from: those with a correction, audit or outcome."""

    since: Duration | Moment | None = Field(
        None,
        description="those with feedback in the last P7D, or from 2026-11-23T19:00:00Z on; null: all",
    )
    weight: Weight = 1

    def begin(self, now: float) -> float:
        """Return the time from which on feedback counts, in seconds since 1970."""
        if isinstance(self.since, datetime):
            return (self.since if self.since.tzinfo else self.since.replace(tzinfo=UTC)).timestamp()
        return 0.0 if self.since is None else now - seconds_in(self.since)


class ResourcesRequest(StrictBody):
    """What an attempt at the job needs."""

    cpus: float | None = Field(
        None, strict=True, ge=0.1, le=4096, allow_inf_nan=False, description="CPUs; null: as `torchloop cluster` says"
    )
    gpus: Annotated[float, AfterValidator(share_of_gpu)] | None = Field(
        None,
        strict=True,
        ge=0,
        le=1,
        allow_inf_nan=False,
        description="0, 1, or the part of a GPU that other jobs share, as 0.25; null: as `torchloop cluster` says",
    )
    nodes: int | None = Field(
        None,
        strict=True,
        ge=1,
        le=64,
        description="machines of the cluster that train the network together, each with these CPUs and GPUs and with "
        "batches of its own; null: 1",
    )


class TrainRequest(StrictBody):
    """What to train, and when to promote it."""

    model: str
    config: dict[str, Any] = Field(default_factory=dict, description="hyperparameters; the others have their defaults")
    dataset: str | None = Field(
        None,
        description='dataset version to train on, as "field@4"; a bare name means its newest version now; null: the '
        "data of the recipe",
    )
    promote: Promote = Field(
        "if_better",
        description="when the version goes live: if_better compares the two figures on the validation split; "
        '{"if_better": {"alpha": 0.05}} asks for a difference beyond chance; no_worse for one within a margin; trial '
        "opens a trial: shadow 1.0 for 10 minutes and 500 samples, then a share of 0.05 (10 minutes, 200 samples) and "
        "one of 0.25 (10 minutes, 500 samples)",
    )
    feedback: FeedbackChoice | None = Field(
        None,
        description="also learn from labelled captures: a job of kind `ingest` makes a new version of `dataset`, by "
        "default the data of the recipe, and the training job waits for it",
    )
    tensorboard: StrictBool = Field(
        False,
        description="also write TensorBoard event files, into STORE/jobs/ID/tensorboard",
    )
    resources: ResourcesRequest | None = Field(
        None, description="CPUs, GPUs and nodes that the job needs, at most TORCHLOOP_MAX_RESOURCES"
    )
