"""Calls of trials, described as in calls.py: each function below is a method of Client and AsyncClient."""

from collections.abc import Mapping, Sequence
from typing import Any, Literal

from service.client.call import Call, get, json_body, no_content, object_with, path
from service.client.stages import duration, stages_in
from service.client.trial_answers import Conditions, StageOrder, Trial

_LOADED_S = 60.0  # the service loads the candidate before it answers


def trial(model: str) -> Call[Trial]:
    """The open trial of a model, else its last one. Raises NotFound if it has had none."""
    return get(path("models", model, "trial"), object_with("evidence", "state"))


def trial_by_id(trial_id: str) -> Call[Trial]:
    """One trial."""
    return get(path("trials", trial_id), object_with("evidence", "state"))


def open_trial(
    model: str,
    version: int,
    stages: str | Sequence[StageOrder] | None = None,
    *,
    key_header: str | None = None,
    conditions: Conditions | None = None,
    when_undecided: Literal["pause", "roll_back"] = "pause",
    max_duration: str | None = None,
) -> Call[Trial]:
    """Open a trial of a version. Raises Conflict while another one of the model is open.

    `stages`: "shadow 100% for 10m 500 samples, 5% for 10m", or [{"shadow": 1.0, "for": "PT10M", "samples": 500}, ...];
    None: the default ones.
    `key_header`: the header whose value is the key of a request, such as "X-User".
    `conditions`: such as {"errors": {"alpha": 0.01}, "latency": {"p95_at_most": 50}}.
    `max_duration`: how long the trial lasts at most, such as "1d" or "P1D".
    """
    asked: dict[str, Any] = {
        "version": version,
        "stages": stages_in(stages) if isinstance(stages, str) else stages,
        "key_header": key_header,
        "conditions": conditions,
        "when_undecided": when_undecided,
        "max": None if max_duration is None else duration(str(max_duration)),
    }
    given = {name: value for name, value in asked.items() if value is not None}
    return _changed(model, "trial", given)


def advance_trial(model: str, reason: str = "") -> Call[Trial]:
    """Skip the rest of the stage; from the last one, promote the candidate."""
    return _changed(model, "trial/advance", {"reason": reason})


def pause_trial(model: str, reason: str = "") -> Call[Trial]:
    """Stop the stage's clock, and a shadow too; a canary keeps its share."""
    return _changed(model, "trial/pause", {"reason": reason})


def resume_trial(model: str, reason: str = "") -> Call[Trial]:
    """Go on with a paused trial."""
    return _changed(model, "trial/resume", {"reason": reason})


def abort_trial(model: str, reason: str = "") -> Call[Trial]:
    """End the trial; the live version answers all requests again."""
    return _changed(model, "trial/abort", {"reason": reason})


def trial_stream(trial_id: str, headers: Mapping[str, str]) -> Call[None]:
    """The events of a trial, as server-sent events; see events.py."""
    arguments = {"headers": headers}
    return Call(
        method="GET", path=path("trials", trial_id, "events"), read=no_content, repeatable=True, arguments=arguments
    )


def _changed(model: str, place: str, body: Mapping[str, Any]) -> Call[Trial]:
    """Return a request that changes a trial: a repeated one would be refused, or advance it twice."""
    return Call(
        method="POST",
        path=path("models", model, *place.split("/")),
        read=object_with("evidence", "state"),
        repeatable=False,
        arguments=json_body(body, "trial"),
        timeout_s=_LOADED_S,
    )
