"""Runs of several fits, one after the other, told and resumed as one."""

from collections.abc import Callable
from dataclasses import dataclass, replace

from training.fitting.resume import Resumable, State
from training.recipe import Progress, Report


@dataclass(kw_only=True)
class Stage:
    """A Report for one fit of a run: it counts on from the fits before it, and keeps its state beside theirs.

    before  the fit that was done before this one
    epochs  of the fits before and after this one; `steps` likewise
    """

    report: Report
    name: str
    before: "Stage | None" = None
    epochs: tuple[int, int] = (0, 0)
    steps: tuple[int, int] = (0, 0)
    last: Callable[[], State] | None = None

    def __call__(self, progress: Progress) -> None:
        """Pass on where the whole run is."""
        whole = replace(
            progress,
            epoch=self.epochs[0] + progress.epoch,
            epochs=sum(self.epochs) + progress.epochs,
            step=self.steps[0] + progress.step,
            steps=sum(self.steps) + progress.steps,
        )
        self.report(whole)

    def saved(self) -> State | None:
        """What an earlier attempt kept of this fit."""
        if not isinstance(self.report, Resumable) or (states := self.report.saved()) is None:
            return None
        state: State | None = states.get(self.name)
        if state is not None:
            self.last = lambda: state
        return state

    def save(self, state: Callable[[], State]) -> None:
        """Keep it, with what the fits before came to."""
        self.last = state
        if isinstance(self.report, Resumable):
            self.report.save(self._states)

    def _states(self) -> State:
        states = self.before._states() if self.before else {}
        return {**states, self.name: self.last()} if self.last else states
