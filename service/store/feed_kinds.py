"""Kinds of entries in the feed of all changes, and the fields of their data."""

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Kind:
    """`text` says when such an entry is added; `fields` are those that its data may have besides the model."""

    text: str
    fields: tuple[str, ...]


_JOB = ("job", "job_kind", "attempt", "state")
_TRIAL = ("trial", "state", "stage", "version", "by", "reason")
_RETRAIN = ("corrections", "every_s", "on_drift", "at_most_every_s", "weight", "dataset", "promote", "config")
_CAPTURE = ("rate", "max_examples", "max_bytes", "days", "originals")
_DRIFT = ("version", "state", "samples", "features", "since", "until")

KINDS: Mapping[str, Kind] = {
    "job.queued": Kind("a job is queued, goes back to the queue, or waits for another reason", (*_JOB, "reason")),
    "job.running": Kind("an attempt at a job begins", _JOB),
    "job.succeeded": Kind(
        "a job has made its version or its dataset version",
        (*_JOB, "error", "version", "gate", "dataset", "dataset_sha256"),
    ),
    "job.failed": Kind("a job has failed for good", (*_JOB, "error")),
    "job.cancelled": Kind("a job is cancelled", (*_JOB, "error")),
    "version.registered": Kind("a version is there", ("version", "job")),
    "version.promoted": Kind("a version is live", ("version", "by", "reason")),
    "version.rolled_back": Kind("the version before is live again", ("version", "by", "reason")),
    "version.pruned": Kind("the files of a version are removed", ("version",)),
    "dataset.created": Kind("a dataset version is there", ("dataset", "job", "sha256")),
    "dataset.deleted": Kind("a dataset version is deleted; its files stay", ("dataset", "sha256")),
    "dataset.erased": Kind("a dataset version is erased, with its files", ("dataset", "sha256")),
    "trial.shadow": Kind("a trial opens in, goes on in, or comes to a shadow stage", _TRIAL),
    "trial.canary": Kind("a trial opens in, goes on in, or comes to a canary stage", _TRIAL),
    "trial.paused": Kind("a trial is paused", _TRIAL),
    "trial.promoted": Kind("a trial has ended, its candidate is live", _TRIAL),
    "trial.rolled_back": Kind("a trial has ended because of its candidate", _TRIAL),
    "trial.aborted": Kind("a trial was ended by hand, or by another promotion", _TRIAL),
    "trial.fault": Kind("a candidate has failed", ("trial", "stage", "kind", "detail")),
    "retrain.queued": Kind("a job is queued by the settings of retraining", ("job", "ingest", "reason", "promote")),
    "retrain.failed": Kind("a job is due, and cannot be queued", ("due", "reason")),
    "retrain.changed": Kind("the settings of retraining are others", ("by", *_RETRAIN)),
    "capture.changed": Kind("the settings of capture are others", ("by", *_CAPTURE)),
    "drift.begun": Kind("a version has begun to drift", _DRIFT),
    "drift.ended": Kind("a version drifts no more, or has no more samples", (*_DRIFT, "begun_at")),
}
GROUPS = frozenset(kind.partition(".")[0] for kind in KINDS)


def require(kind: str, data: Mapping[str, object]) -> None:
    """Raise ValueError for a kind, or a field of its data, that is not listed here, and so is not documented."""
    known = KINDS.get(kind)
    if known is None or not data.keys() <= set(known.fields):
        fields = sorted(data.keys() - set(known.fields if known else ()))
        raise ValueError(f"KINDS has no {kind} with the fields {', '.join(fields)}: add them there")
