"""Leader of the trials: one of all web processes of all machines evaluates the open trials, and makes the transitions.

The lease is in the database; its number is the fence of each transition, so that a process that froze and wakes up
writes nothing. A leader that ends between two steps loses nothing: each step is one transaction, and the next leader
judges the trial as it is.
"""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from functools import partial
from typing import Any

from service.delivery.rollout import Change
from service.delivery.trial_rule import Verdict, step, verdicts
from service.delivery.trial_tally import Tallies, Tally
from service.delivery.trials import Fence, Overtaken, Trial, Trials
from service.errors import Conflict, NotFound, StoreUnavailable
from service.store.leadership import Leadership, LeadershipLost
from service.telemetry.trial_metrics import TrialMetrics

log = logging.getLogger(__name__)
_POLL_S = 1.0
_SHOWN_S = 3600.0  # how long the metrics show the end of a trial
_BY = "trials"
Promote = Callable[[str, int, Callable[[], int | None]], Awaitable[Change]]  # see Rollout.promote_by


async def _pause() -> None:
    await asyncio.sleep(_POLL_S)


def _no_truths(_: Trial) -> None:
    pass


class Leader:
    """Evaluates the open trials every second while entered, if this process leads."""

    def __init__(
        self,
        trials: Trials,
        tallies: Tallies,
        leadership: Leadership,
        promote: Promote,
        metrics: TrialMetrics,
        *,
        note_truths: Callable[[Trial], object] = _no_truths,
        pause: Callable[[], Awaitable[None]] = _pause,
        now: Callable[[], float] = time.time,
    ) -> None:
        """`note_truths` records the truths that have come in since the last look, see TrialTruths."""
        self._trials = trials
        self._tallies = tallies
        self._leadership = leadership
        self._promote = promote
        self._metrics = metrics
        self._note_truths = note_truths
        self._pause = pause
        self._now = now
        self._leads = False
        self._shown: dict[str, Trial] = {}  # by model: the trials in the metrics
        self._promotions: dict[str, asyncio.Task[None]] = {}  # by trial; loading a candidate may outlast the lease

    async def __aenter__(self) -> None:
        self._running = asyncio.create_task(self._run())

    async def __aexit__(self, *_: object) -> None:
        ours = [self._running, *self._promotions.values()]
        for one in ours:
            one.cancel()
        await asyncio.gather(*ours, return_exceptions=True)
        if self._leads:
            try:
                await asyncio.to_thread(self._leadership.resign)
            except StoreUnavailable:
                log.info("lead of the trials left to its lease")

    async def _run(self) -> None:
        while True:
            await self._pause()
            try:
                await self.look()
            except Exception:
                log.exception("trials were not judged, it is tried again")

    async def look(self) -> None:
        """Evaluate each open trial once, if this process leads."""
        try:
            found = await asyncio.to_thread(self._trials.open)
            attempt = await asyncio.to_thread(self._leadership.lead) if found else None
            if attempt is not None:
                await self._lead(found, partial(self._leadership.require, attempt=attempt))
            elif found:
                self._follow()
            await self._show_ended({trial.model for trial in found})
        except StoreUnavailable:  # the store logs it
            return

    async def _lead(self, found: Sequence[Trial], fence: Fence) -> None:
        self._leads = True
        for trial in found:
            if trial.id not in self._promotions:
                await self._guarded(trial, self._judge(trial, fence), fence)

    def _follow(self) -> None:
        """Show no trials: another process leads them."""
        self._leads = False
        self._shown.clear()
        self._metrics.clear()

    async def settled(self) -> None:
        """Wait for the promotions that have begun."""
        await asyncio.gather(*self._promotions.values())

    async def _judge(self, trial: Trial, fence: Fence) -> None:
        """Make the transition of a trial that is due. Raises Overtaken, LeadershipLost, StoreUnavailable."""
        if trial.conditions.accuracy is not None:
            await asyncio.to_thread(self._note_truths, trial)
        tally, found = await asyncio.to_thread(self._judged, trial)
        self._metrics.show(trial, found)
        self._shown[trial.model] = trial
        due = step(trial, tally, found, self._now())
        if due.action == "wait":
            return
        if due.action == "advance" and trial.stage + 1 == len(trial.stages):
            promoting = self._guarded(trial, self._promoted(trial, due.reason, fence), fence)
            self._promotions[trial.id] = asyncio.create_task(promoting)
            self._promotions[trial.id].add_done_callback(lambda _: self._promotions.pop(trial.id, None))
            return
        moves = {"advance": self._trials.advance, "pause": self._trials.pause, "roll_back": self._trials.roll_back}
        await self._move(moves[due.action], trial, due.reason, fence)

    def _judged(self, trial: Trial) -> tuple[Tally, Sequence[Verdict]]:
        """Return the counts of a trial and what they say; in a thread, as a long trial has thousands of rows."""
        tally = self._tallies.of(trial)
        return tally, verdicts(trial, tally)

    async def _promoted(self, trial: Trial, reason: str, fence: Fence) -> None:
        """Load the candidate and make it live; roll the trial back if it cannot be loaded."""

        def commit() -> int | None:
            return self._trials.promote(trial, by=_BY, reason=reason, now=self._now(), fence=fence)

        try:
            done = await self._promote(trial.model, trial.version, commit)
        except (Conflict, NotFound) as err:
            await self._move(self._trials.roll_back, trial, f"load: {err.detail}", fence)
        else:
            log.info("trial promoted", extra={**_about(trial), "previous": done.previous, "reason": reason})

    async def _move(self, move: Callable[..., Trial], trial: Trial, reason: str, fence: Fence) -> None:
        moved = await asyncio.to_thread(move, trial, by=_BY, reason=reason, now=self._now(), fence=fence)
        log.info("trial moved", extra={**_about(moved), "reason": reason})

    async def _guarded(self, trial: Trial, judging: Coroutine[Any, Any, None], fence: Fence) -> None:
        """Await it; a failed evaluation pauses the trial."""
        try:
            await judging
        except StoreUnavailable:
            pass  # the store logs it; the next look evaluates the trial again
        except (Overtaken, LeadershipLost):
            log.info("trial left as it is: it was changed meanwhile", extra=_about(trial))
        except Exception as err:
            if trial.state == "paused":
                return  # it was logged when the trial was paused
            log.exception("trial not judged", extra=_about(trial))
            reason = f"its evaluation failed with {type(err).__name__}, see the service's log"
            await self._guarded(trial, self._move(self._trials.pause, trial, reason, fence), fence)

    async def _show_ended(self, open_models: set[str]) -> None:
        """Show the ends of the trials that this process has led, for an hour."""
        for model, trial in list(self._shown.items()):
            if model in open_models:
                continue
            last = await asyncio.to_thread(self._trials.of, model) if trial.is_open else trial
            if trial.is_open and last is not None:
                self._metrics.show(last, [])
                self._shown[model] = last
            if last is None or (last.finished_at is not None and self._now() - last.finished_at >= _SHOWN_S):
                del self._shown[model]
                self._metrics.forget(model)


def _about(trial: Trial) -> dict[str, Any]:
    return {
        "trial": trial.id,
        "model": trial.model,
        "version": trial.version,
        "state": trial.state,
        "stage": trial.stage + 1,
    }
