"""The canary of a trial: chooses the version that answers a request, and counts how it ended."""

from collections.abc import Callable, Mapping
from typing import Protocol

from models.errors import InvalidInput
from models.samples import finite_rows
from service.delivery.canary import Sticky, bound_of, key_of
from service.delivery.count_rows import Place
from service.delivery.memory import is_out_of_memory
from service.delivery.trial_counts import Tally, TrialCounts
from service.delivery.trials import Arm, FaultKind, Trial
from service.errors import DeadlineExceeded, ServiceError
from service.inference.callers import Answer
from service.inference.decoding import Samples
from service.inference.engine import Loaded

Report = Callable[[FaultKind, str], None]  # a reason to roll back at once; for any thread


class Confirm(Protocol):
    """Checks an answer of the candidate that is not finite against the live version's."""

    def not_finite(self, samples: Samples, answer: Answer) -> None:
        """Have it checked soon. For the event loop; returns within microseconds."""
        ...


class TrialCanary:
    """See Canary. For one stage of a trial: requests that end after it are counted in the stage that they began in.

    In a shadow stage the live version answers all requests, and they are counted all the same.
    """

    __slots__ = (
        "_answers", "_bound", "_candidate", "_confirm", "_counts", "_live", "_live_tally", "_report", "_sticky",
        "_tally", "_trial",
    )  # fmt: skip

    def __init__(self, trial: Trial, candidate: Loaded, counts: TrialCounts, confirm: Confirm, report: Report) -> None:
        self._trial = trial
        self._candidate = candidate
        self._counts = counts
        self._confirm = confirm
        self._report = report
        self._sticky = Sticky(trial.id, trial.key_header)
        self._bound = bound_of(trial.share)
        self._answers = trial.share > 0
        self._live = trial.live
        self.renew()

    def renew(self) -> None:
        """Count in the rows of the current minute."""
        self._tally, self._live_tally = self._of("candidate"), self._of("live")

    def candidate_for(self, headers: Mapping[bytes, bytes], stem: str) -> Loaded | None:
        """See Canary."""
        return self._candidate if self._answers and self._sticky.place(headers, stem) < self._bound else None

    def ended(
        self,
        pinned: Loaded | None,
        headers: Mapping[bytes, bytes],
        stem: str,
        samples: Samples,
        outcome: Answer | Exception,
    ) -> None:
        """See Canary."""
        if not isinstance(outcome, Answer):
            self._failed(pinned, headers, stem, outcome)
            return
        if pinned is self._candidate:
            tally = self._tally
        elif outcome.version == self._live:
            tally = self._live_tally
        else:
            return
        # The wait in the queue belongs to the latency, but not to that of a shadow.
        seconds = outcome.queue_s + outcome.forward_s if self._answers else outcome.forward_s
        tally.answered(len(samples.good), seconds)
        if not outcome.finite and not (finite := finite_rows(outcome.values)).all():
            self._erred(pinned, headers, stem, tally)
            if tally is self._tally:
                self._confirm.not_finite(samples, outcome)
            else:
                tally.not_finite += int((~finite).sum())

    def _failed(self, pinned: Loaded | None, headers: Mapping[bytes, bytes], stem: str, err: Exception) -> None:
        if not is_fault(err):
            return
        if pinned is self._candidate:
            tally = self._tally
            if is_out_of_memory(err):
                self._report("memory", f"version {self._trial.version} ran out of memory")
        elif pinned is None or pinned.version == self._live:
            tally = self._live_tally
        else:
            return
        tally.requests += 1
        self._erred(pinned, headers, stem, tally)

    def _erred(self, pinned: Loaded | None, headers: Mapping[bytes, bytes], stem: str, tally: Tally) -> None:
        """Count an error, and its key, unless this stage gives the key to the other version: it was chosen before."""
        tally.errors += 1
        place = self._sticky.place(headers, stem)
        if (place < self._bound) == (pinned is self._candidate):
            arm: Arm = "candidate" if pinned is self._candidate else "live"
            self._counts.erred(Place(self._trial.id, self._trial.stage, arm), key_of(place))

    def _of(self, arm: Arm) -> Tally:
        return self._counts.tally(Place(self._trial.id, self._trial.stage, arm))


class Handing:
    """See Canary. For a promoted candidate, until it is live in this process: its keys do not go back meanwhile."""

    __slots__ = ("_canary",)

    def __init__(self, canary: TrialCanary) -> None:
        self._canary = canary

    def candidate_for(self, headers: Mapping[bytes, bytes], stem: str) -> Loaded | None:
        """See Canary."""
        return self._canary.candidate_for(headers, stem)

    def ended(self, *_: object) -> None:
        """Count nothing: the trial has ended."""


def is_fault(err: Exception) -> bool:
    """Whether an error is that of the version: its network or postprocessing raised it, or it was too slow.

    A version is not at fault that could not be computed in time because another one kept the device.
    """
    if isinstance(err, DeadlineExceeded):
        return not err.is_blocked
    return not isinstance(err, ServiceError | InvalidInput)
