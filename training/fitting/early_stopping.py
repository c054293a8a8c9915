"""Early stopping: end a fit whose validation metric no longer improves, with the best weights."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import torch
from torch import nn

from training.fitting.group import Group
from training.fitting.resume import Resumable, State
from training.recipe import Progress, Report, TrainingError


@dataclass(frozen=True, slots=True)
class Watch:
    """The metric that decides which of two epochs is better."""

    metric: str
    higher_is_better: bool


@runtime_checkable
class Watching(Protocol):
    """A Report that knows which metric to watch."""

    @property
    def watch(self) -> Watch | None:
        """Return the metric; None: there is none."""


@dataclass(frozen=True, slots=True)
class Watched:
    """Report of a run, with the recipe's metric. It is Resumable; if `report` is not, nothing is saved."""

    report: Report
    watch: Watch | None
    group: Group | None = None

    def __call__(self, progress: Progress) -> None:
        """Pass the progress on. Raises TrainingError if the fit does not share its batches with the group."""
        self.require_shared()
        self.report(progress)

    def require_shared(self) -> None:
        """Raise TrainingError if there is a group, and no fit has shared its batches with it."""
        if self.group is not None and not self.group.used:
            raise TrainingError(
                "this recipe cannot be trained on several nodes: its fit has a training loop of its own, or does not "
                "pass on the report that it gets to training.loop.fit; ask for one node"
            )

    def saved(self) -> State | None:
        """See Resumable."""
        return self.report.saved() if isinstance(self.report, Resumable) else None

    def save(self, state: Callable[[], State]) -> None:
        """See Resumable."""
        if isinstance(self.report, Resumable):
            self.report.save(state)


class EarlyStopping:
    """Remembers the best epoch of a fit. Without patience it does nothing."""

    def __init__(self, patience: int, watch: Watch | None) -> None:
        """Raises TrainingError if there is patience, but no metric."""
        if patience and watch is None:
            raise TrainingError("patience needs a metric to watch: pass on the report that the recipe's fit gets")
        self._patience = patience
        self._watch = watch
        self._best = -math.inf
        self._waited = 0
        self._weights: dict[str, torch.Tensor] | None = None
        self._over = False

    @property
    def is_over(self) -> bool:
        """Whether `patience` epochs have brought no improvement."""
        return self._over or (bool(self._patience) and self._waited >= self._patience)

    def follow(self, *, over: bool) -> None:
        """Follow the decision of another process."""
        self._over = over

    def see(self, network: nn.Module, measure: Callable[[nn.Module], Mapping[str, float]]) -> None:
        """Measure the network after an epoch. Raises TrainingError if the metric is not measured."""
        if not self._patience or self._watch is None:
            return
        figures = measure(network)
        if self._watch.metric not in figures:
            raise TrainingError(
                f"patience watches {self._watch.metric}, but the recipe's fit measures only {', '.join(figures)}"
            )
        figure = figures[self._watch.metric]
        score = figure if self._watch.higher_is_better else -figure
        if score > self._best:
            self._best, self._waited = score, 0
            self._weights = {name: tensor.detach().clone() for name, tensor in network.state_dict().items()}
        else:
            self._waited += 1

    def restore(self, network: nn.Module) -> None:
        """Give the network the weights of the best epoch."""
        if self._weights is not None:
            network.load_state_dict(self._weights)

    def state(self) -> dict[str, Any]:
        """Return the state for a resume point."""
        return {"best": self._best, "waited": self._waited, "weights": self._weights} if self._patience else {}

    def go_on_from(self, state: Mapping[str, Any]) -> None:
        """Restore what `state` returned."""
        if state:
            self._best, self._waited, self._weights = state["best"], state["waited"], state["weights"]
