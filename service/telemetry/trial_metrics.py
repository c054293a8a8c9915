"""Metrics of trials, shown by the process that leads them."""

from collections.abc import Sequence
from typing import Protocol

from prometheus_client import CollectorRegistry, Gauge

STATES = ("shadow", "canary", "paused", "promoted", "rolled_back", "aborted")
GAUGES = ("torchloop_trial_state", "torchloop_trial_share", "torchloop_trial_evidence")


class Shown(Protocol):
    """A trial."""

    @property
    def model(self) -> str: ...
    @property
    def state(self) -> str: ...
    @property
    def share(self) -> float: ...


class Judged(Protocol):
    """The evidence on one condition."""

    @property
    def condition(self) -> str: ...
    @property
    def e_value(self) -> float | None: ...
    @property
    def limit(self) -> float | None: ...


class TrialMetrics:
    """Gauges of the last trial of each model. For one thread."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._state = Gauge(
            GAUGES[0],
            f"1 for the state of a model's trial: {', '.join(STATES)}; until an hour after its end",
            ["model", "state"],
            registry=registry,
        )
        self._share = Gauge(
            GAUGES[1], "Share of keys that the candidate of a trial answers", ["model"], registry=registry
        )
        self._evidence = Gauge(
            GAUGES[2],
            "Evidence against a candidate by condition: its e-value, and the limit at which it is rolled back",
            ["model", "condition", "kind"],
            registry=registry,
        )
        self._models: dict[str, set[str]] = {}  # the conditions that are shown

    def show(self, trial: Shown, judged: Sequence[Judged]) -> None:
        """Show a trial and the evidence on its conditions; without any, that of before is removed."""
        for state in STATES:
            self._state.labels(trial.model, state).set(state == trial.state)
        self._share.labels(trial.model).set(trial.share)
        names = {one.condition for one in judged}
        self._forget_evidence(trial.model, self._models.get(trial.model, set()) - names)
        self._models[trial.model] = names
        for one in judged:
            if one.e_value is not None and one.limit is not None:
                self._evidence.labels(trial.model, one.condition, "e_value").set(one.e_value)
                self._evidence.labels(trial.model, one.condition, "limit").set(one.limit)

    def forget(self, model: str) -> None:
        """Show nothing of a model any more."""
        self._forget_evidence(model, self._models.pop(model, set()))
        self._share.remove(model)
        for state in STATES:
            self._state.remove(model, state)

    def clear(self) -> None:
        """Show nothing: another process does."""
        for model in list(self._models):
            self.forget(model)

    def _forget_evidence(self, model: str, conditions: set[str]) -> None:
        for condition in conditions:
            for kind in ("e_value", "limit"):
                self._evidence.remove(model, condition, kind)
