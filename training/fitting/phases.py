"""Combine several consecutive fits into one run, with common progress and resume points."""

from collections.abc import Callable
from dataclasses import dataclass, replace

from training.fitting.early_stopping import Watch, Watching
from training.fitting.group import Group, group_of
from training.fitting.resume import Resumable, State
from training.recipe import Progress, Report


@dataclass(kw_only=True)
class Stage:
    """Report for one fit of a run: adds the steps of the other fits, and saves its state together with theirs.

    before  the previous fit
    epochs  number of epochs before and after this fit; `steps` likewise
    """

    report: Report
    name: str
    before: "Stage | None" = None
    epochs: tuple[int, int] = (0, 0)
    steps: tuple[int, int] = (0, 0)
    last: Callable[[], State] | None = None

    def __call__(self, progress: Progress) -> None:
        """Report the progress of the whole run."""
        whole = replace(
            progress,
            epoch=self.epochs[0] + progress.epoch,
            epochs=sum(self.epochs) + progress.epochs,
            step=self.steps[0] + progress.step,
            steps=sum(self.steps) + progress.steps,
        )
        self.report(whole)

    @property
    def watch(self) -> Watch | None:
        """The metric that decides which of two epochs is better."""
        return self.report.watch if isinstance(self.report, Watching) else None

    @property
    def group(self) -> Group | None:
        """The processes of the run."""
        return group_of(self.report)

    def saved(self) -> State | None:
        """State of this fit from an earlier attempt, or None."""
        if not isinstance(self.report, Resumable) or (states := self.report.saved()) is None:
            return None
        state: State | None = states.get(self.name)
        if state is not None:
            self.last = lambda: state
        return state

    def save(self, state: Callable[[], State]) -> None:
        """Save the state, together with the final states of the previous fits."""
        self.last = state
        if isinstance(self.report, Resumable):
            self.report.save(self._states)

    def _states(self) -> State:
        states = self.before._states() if self.before else {}
        return {**states, self.name: self.last()} if self.last else states
