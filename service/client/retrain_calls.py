"""The calls of retraining on feedback. Nothing here sends anything."""

from collections.abc import Mapping
from typing import Any, TypedDict

from service.client.answers import Policy
from service.client.call import Call, get, json_body, object_with, path


class Retrain(TypedDict):
    """Conditions for retraining a model, the feedback since the last job, and that job.

    Times and durations are ISO 8601.
    """

    model: str
    corrections: int | None
    every: str | None
    on_drift: bool
    at_most_every: str
    weight: int
    dataset: str | None
    promote: Policy
    config: dict[str, Any]
    new_corrections: int
    new_feedback: int
    watermark: int
    queued_at: str | None
    job: str | None
    reason: str | None
    fault: str | None


def retrain(model: str) -> Call[Retrain]:
    """When a model is retrained on its feedback."""
    return get(path("models", model, "retrain"), object_with("new_corrections"))


def set_retrain(
    model: str,
    *,
    corrections: int | None = None,
    every: str | None = None,
    on_drift: bool = False,
    at_most_every: str | None = None,
    weight: int | None = None,
    dataset: str | None = None,
    promote: Policy | None = None,
    config: Mapping[str, Any] | None = None,
) -> Call[Retrain]:
    """Retrain a model after a number of corrections, after a time such as "P7D", or on drift; without these, never.

    Settings that are None have the service's defaults. `dataset` is the one that grows, such as "mnist".
    """
    given: dict[str, Any] = {"corrections": corrections, "every": every, "on_drift": on_drift, "weight": weight}
    given |= {"at_most_every": at_most_every, "dataset": dataset, "promote": promote, "config": config}
    arguments = json_body({name: value for name, value in given.items() if value is not None}, "settings")
    place = path("models", model, "retrain")
    return Call(method="PUT", path=place, read=object_with("new_corrections"), repeatable=True, arguments=arguments)
