"""The shadow of a trial: computes copies of live requests with the candidate, and compares the answers."""

import logging
import time
from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from typing import Any, cast

import numpy as np

from models.artifacts import takes_artifacts
from models.errors import InvalidInput
from models.samples import Batch, Columns, finite_rows, joined
from service.delivery.agreement import Answers, Describe, alike, example
from service.delivery.canary import Sticky, bound_of, key_of
from service.delivery.count_rows import Place
from service.delivery.memory import is_out_of_memory
from service.delivery.shadow_lane import Lane
from service.delivery.trial_canary import Report, is_fault
from service.delivery.trial_counts import TrialCounts
from service.delivery.trials import Difference, Trial
from service.errors import DeadlineExceeded
from service.inference.decoding import Samples
from service.inference.engine import Engine, Loaded
from service.telemetry.served import Served, may_be_kept

log = logging.getLogger(__name__)
_TOLERANCE = 1e-6  # if the trial has no condition on agreement


@dataclass(slots=True, eq=False)
class Copied:
    """A live request to compute again. `values` are None if it failed. `may_be_kept`: without `X-Capture: no`."""

    owner: "Shadow"
    size: int
    nbytes: int
    samples: Batch
    values: Batch | None
    positions: Sequence[int]
    id: str
    place: bytes
    may_be_kept: bool
    decoded_for: Callable[[Loaded], Awaitable[Samples]] | None
    is_overdue: bool = False  # counted as an error: a later answer does not count


class Shadow:
    """See the module. For one stage of a trial; `ended` makes it an Observer, the lane calls `compute`."""

    def __init__(
        self,
        trial: Trial,
        candidate: Loaded,
        engine: Engine,
        counts: TrialCounts,
        lane: Lane,
        report: Report,
        now: Callable[[], float] = time.time,
    ) -> None:
        """`now` returns seconds since 1970."""
        self._trial = trial
        self._candidate = candidate
        self._engine = engine
        self._counts = counts
        self._lane = lane
        self._report = report
        self._now = now
        self._sticky = Sticky(trial.id, trial.key_header)
        self._bound = bound_of(trial.shadow) if trial.shadow < 1 else None
        self._codes_anew = codes_by_version(candidate)
        agreement = trial.conditions.agreement
        self._tolerance = agreement.tolerance if agreement else _TOLERANCE
        self._place = Place(trial.id, trial.stage, "shadow")
        self._told = False
        self.renew()

    def renew(self) -> None:
        """Count in the row of the current minute."""
        self._tally = self._counts.tally(self._place)

    def wants(self, headers: Mapping[bytes, bytes], stem: str, size: int | None) -> bool:
        """See Observer: whether the trial shadows this key. A request for which there is no room is dropped here."""
        if self._bound is not None and self._sticky.place(headers, stem) >= self._bound:
            return False
        if size is not None and not self._lane.has_room(size):
            self._tally.dropped += size
            return False
        return True

    def ended(self, served: Served) -> None:
        """See Observer. Queue a copy of a request of the live version."""
        if served.by_number or served.version not in {self._trial.live, None}:
            return
        if served.error is not None and not is_fault(served.error):
            return
        copy = Copied(
            owner=self,
            size=len(served.samples),
            nbytes=self._nbytes(served),
            samples=served.samples,
            values=served.values,
            positions=served.positions,
            id=served.id or f"{served.stem}-{self._trial.live}",
            place=self._sticky.place(served.headers, served.stem),
            may_be_kept=may_be_kept(served.headers),
            decoded_for=served.decoded_for if self._codes_anew else None,
        )
        if not self._lane.offer(copy):
            self._tally.dropped += copy.size

    def compute(self, copies: Sequence[Copied], low: Executor) -> None:
        """See Owner. Copies are computed together, unless that fails or their bodies are to be decoded again."""
        alone = copies if self._codes_anew or len(copies) == 1 else []
        if not alone:
            try:
                self._compute(copies, low)
            except Exception:  # noqa: BLE001 - the edge batch: the copy that failed is found below
                alone = copies
        for copy in alone:
            try:
                self._compute([copy], low)
            except InvalidInput:  # `encode` of the candidate refuses what live's takes: no error of a version
                continue
            except Exception as err:  # noqa: BLE001 - the edge batch: whatever the candidate raises is counted
                self._failed(copy, err)

    def overdue(self, copies: Sequence[Copied]) -> None:
        """See Owner. Each of the copies has missed any deadline, which is an error."""
        for copy in copies:
            self._failed(copy, DeadlineExceeded("the candidate has hung in shadow"))
            copy.is_overdue = True

    def _compute(self, copies: Sequence[Copied], low: Executor) -> None:
        """Compute copies in one batch, or one whose body is to be decoded again, and count the outcomes."""
        if self._codes_anew:
            samples, positions = _decoded(copies[0], self._candidate)
        else:
            parts = [copy.samples for copy in copies]
            samples, positions = parts[0] if len(parts) == 1 else joined(parts), None
        began = time.perf_counter()
        values = self._engine.compute_aside(self._candidate, samples, low)
        seconds = time.perf_counter() - began
        if len(values) != len(samples):
            raise ValueError(f"{len(samples)} samples were given, {len(values)} answers came")
        row = 0
        for copy in copies:
            size = len(samples) if positions is not None else copy.size
            self._count(copy, values[row : row + size], copy.positions if positions is None else positions, seconds)
            row += size

    def _count(self, copy: Copied, values: Batch, positions: Sequence[int], seconds: float) -> None:
        """Count the candidate's answers to one copy: `values` of the samples at these positions of its body."""
        if copy.is_overdue:
            return
        finite = finite_rows(values)
        described = Answers(_rows(values, np.flatnonzero(finite).tolist()), self._candidate.describe)
        if (err := self._undescribed(copy, described)) is not None:
            self._failed(copy, err)
            return
        self._tally.answered(len(values), seconds)
        if copy.values is None:
            if not finite.all():
                self._erred(copy)
            return
        ours, theirs = _in_both(copy.positions, positions)
        live, answers = _rows(copy.values, ours), _rows(values, theirs)
        finite, live_finite = finite[theirs], finite_rows(live)
        if bad := int((live_finite & ~finite).sum()):
            self._erred(copy)
            self._tally.not_finite += bad
            self._report("not finite", f"version {self._trial.version} gave a number that is not finite in shadow")
        rows = [row for row in range(len(ours)) if finite[row] or live_finite[row]]
        if len(rows) != len(values) or len(described.values) != len(values):
            described = Answers(_rows(answers, rows), self._candidate.describe)
        self._compare(copy, live, described, rows, ours)

    def _undescribed(self, copy: Copied, described: Answers) -> Exception | None:
        """Return what describing the candidate's finite values raises. None also if live's raise something: of a caller
        who has asked for an array they were not described.
        """
        if (err := _raised(described)) is None or copy.values is None:
            return err
        describe = self._live_describe()
        live = _rows(copy.values, np.flatnonzero(finite_rows(copy.values)).tolist())
        return err if describe is None or _raised(Answers(live, describe)) is None else None

    def _compare(self, copy: Copied, live: Batch, theirs: Answers, rows: Sequence[int], ours: Sequence[int]) -> None:
        """Count in which of the rows both versions agree, and note the others."""
        describe = self._live_describe()
        if describe is None or not rows:
            return
        mine = Answers(_rows(live, rows), describe)
        try:
            same = alike(self._candidate.spec, mine, theirs, self._tolerance)
        except Exception:  # noqa: BLE001 - the edge batch: see _undescribed
            return
        differing = [place for place, equal in enumerate(same) if not equal]
        self._tally.agreed += len(same) - len(differing)
        self._tally.differed += len(differing)
        if not (differing and copy.may_be_kept and self._counts.wants_difference(self._trial.id)):
            return
        if _raised(mine) is None and _raised(theirs) is None:
            for place in differing:
                one, other = example(mine.predictions[place]), example(theirs.predictions[place])
                index = copy.positions[ours[rows[place]]]
                self._counts.differed(self._trial.id, self._difference(copy, index, one, other))

    def _difference(self, copy: Copied, index: int, live: Any, candidate: Any) -> Difference:
        return Difference(
            prediction=copy.id,
            index=index,
            stage=self._trial.stage,
            at=self._now(),
            live=live,
            candidate=candidate,
            better=None,
        )

    def _live_describe(self) -> Describe | None:
        """Return the function that describes live's values; None if it needs artifacts that are not loaded."""
        live = self._engine.loaded(self._trial.model)
        if live is not None and live.version == self._trial.live:
            return live.describe
        function = self._candidate.spec.describe
        return None if function is not None and takes_artifacts(function) else self._candidate.describe

    def _failed(self, copy: Copied, err: Exception) -> None:
        if copy.is_overdue:
            return
        self._tally.requests += 1
        self._erred(copy)
        if is_out_of_memory(err):
            self._report("memory", f"version {self._trial.version} ran out of memory in shadow")
        if not self._told:
            self._told = True
            fields = {"model": self._trial.model, "version": self._trial.version, "trial": self._trial.id}
            log.warning("the candidate failed in shadow", exc_info=err, extra=fields)

    def _erred(self, copy: Copied) -> None:
        self._tally.errors += 1
        self._counts.erred(self._place, key_of(copy.place))

    def _nbytes(self, served: Served) -> int:
        values = 0 if served.values is None else served.values.nbytes
        return served.samples.nbytes + values + (len(served.body) if self._codes_anew else 0)


def _raised(answers: Answers) -> Exception | None:
    """Return what describing the answers raises, if there are any."""
    if not len(answers.values):
        return None
    try:
        answers.predictions  # noqa: B018 - computed at its first use
    except Exception as err:  # noqa: BLE001 - the edge batch: `describe` is a model author's code
        return err
    return None


def codes_by_version(candidate: Loaded) -> bool:
    """Whether another version may code the same body into other samples: `encode` takes artifacts."""
    encode = candidate.spec.encode
    return encode is not None and takes_artifacts(encode)


def _decoded(copy: Copied, candidate: Loaded) -> tuple[Batch, list[int]]:
    """Decode the body of a copy for the candidate: the good samples, and their positions. Raises InvalidInput."""
    if copy.decoded_for is None:
        raise InvalidInput("No body", "the body of this request is not kept")
    decoding = cast("Coroutine[None, None, Samples]", copy.decoded_for(candidate))
    try:
        decoding.send(None)
    except StopIteration as done:
        samples: Samples = done.value
        return samples.good, [row for row in range(samples.count) if row not in samples.errors]
    raise RuntimeError("decoding waited for an event loop, this thread has none")


def _in_both(ours: Sequence[int], theirs: Sequence[int]) -> tuple[list[int], list[int]]:
    """Return the rows of the samples that both versions took, in each version's values."""
    if ours == theirs:
        return list(range(len(ours))), list(range(len(ours)))
    places = {position: row for row, position in enumerate(theirs)}
    rows = [row for row, position in enumerate(ours) if position in places]
    return rows, [places[ours[row]] for row in rows]


def _rows(values: Batch, rows: Sequence[int]) -> Batch:
    if len(rows) == len(values):
        return values
    return values.take(rows) if isinstance(values, Columns) else values[list(rows)]
