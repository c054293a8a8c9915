"""Answers of a candidate that are not finite: the input may be out of range, so the live version has to answer it."""

from collections.abc import Sequence
from concurrent.futures import Executor
from dataclasses import dataclass

from models.samples import Batch, finite_rows
from service.delivery.count_rows import Place
from service.delivery.shadow import codes_by_version
from service.delivery.shadow_lane import Lane
from service.delivery.trial_canary import Report
from service.delivery.trial_counts import TrialCounts
from service.delivery.trials import Trial
from service.inference.callers import Answer
from service.inference.decoding import Samples
from service.inference.engine import Engine, Loaded


@dataclass(slots=True, eq=False)
class Doubted:
    """Samples, and the candidate's answers to them, of which some are not finite."""

    owner: "Doubts"
    size: int
    nbytes: int
    samples: Batch
    values: Batch


class Doubts:
    """Has the live version answer them in the lane of the shadow, and counts those that it gives a finite answer to."""

    def __init__(
        self, trial: Trial, candidate: Loaded, engine: Engine, counts: TrialCounts, lane: Lane, report: Report
    ) -> None:
        self._trial = trial
        self._engine = engine
        self._counts = counts
        self._lane = lane
        self._report = report
        self._codes_anew = codes_by_version(candidate)

    def not_finite(self, samples: Samples, answer: Answer) -> None:
        """See Confirm. If the lane is full, the next one is checked."""
        size, nbytes = len(samples.good), samples.good.nbytes + answer.values.nbytes
        self._lane.offer(Doubted(self, size, nbytes, samples.good, answer.values))

    def compute(self, doubted: Sequence[Doubted], low: Executor) -> None:
        """See Owner."""
        for one in doubted:
            bad = ~finite_rows(one.values)
            live = self._engine.loaded(self._trial.model)
            if live is not None and live.version == self._trial.live and not self._codes_anew:
                try:
                    bad &= finite_rows(self._engine.compute_aside(live, one.samples, low))
                except Exception:  # noqa: BLE001, S112 - the edge batch: live fails as well
                    continue
            if found := int(bad.sum()):
                place = Place(self._trial.id, self._trial.stage, "candidate")
                self._counts.tally(place).not_finite += found
                self._report("not finite", f"version {self._trial.version} answered with a number that is not finite")

    def overdue(self, doubted: Sequence[Doubted]) -> None:
        """See Owner. The live version hangs, which says nothing about the candidate."""
