"""Trials as callers change them: each change answers once every node follows it, or after two seconds."""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from service.delivery.rollout import Rollout
from service.delivery.trials import Opening, Overtaken, Trial, Trials
from service.errors import Conflict, NotFound

log = logging.getLogger(__name__)
_FOLLOW_S = 2.0
_LAST = "promoted by hand from the last stage"
# Returns the addresses of the nodes that do not follow a stage of a trial within some seconds; without a stage, those
# that have not ended the trial.
Everywhere = Callable[[str, int | None, float], Awaitable[Sequence[str]]]


async def followed_by_all(_: str, __: int | None, ___: float) -> Sequence[str]:
    """Name no node: for a service without followers."""
    return []


class _MovedOn(Conflict):
    """The trial has made another transition since it was read."""

    def __init__(self, model: str) -> None:
        super().__init__(f"the trial of {model} has moved on in this moment: look, then try again")


class TrialControl:
    """Opens, moves and ends trials by hand. Methods raise StoreUnavailable, and Conflict if the trial's state forbids.

    They return the trial, and the addresses of the nodes that have not followed in time.
    """

    def __init__(
        self,
        trials: Trials,
        rollout: Rollout,
        everywhere: Everywhere = followed_by_all,
        now: Callable[[], float] = time.time,
    ) -> None:
        self._trials = trials
        self._rollout = rollout
        self._everywhere = everywhere
        self._now = now

    async def open(self, order: Opening, by: str) -> tuple[Trial, Sequence[str]]:
        """Open a trial. Raises NotFound if there is no such version."""
        trial = await asyncio.to_thread(self._trials.begin, order, by=by, now=self._now())
        log.info("trial opened", extra=_about(trial, by))
        return await self._followed(trial)

    async def advance(self, model: str, by: str, reason: str) -> tuple[Trial, Sequence[str]]:
        """Skip the rest of the stage; from the last one, promote the candidate.

        Raises Conflict also if the candidate cannot be loaded: then nothing changes.
        """
        trial = await self._open(model)
        if trial.stage + 1 < len(trial.stages):
            return await self._move(self._trials.advance, trial, by, reason or "advanced by hand")

        def commit() -> int | None:
            return self._trials.promote(trial, by=by, reason=reason or _LAST, now=self._now())

        try:
            change = await self._rollout.promote_by(model, trial.version, commit)
        except Overtaken as err:
            raise _MovedOn(model) from err
        ended, waiting = await self._followed(await asyncio.to_thread(self._trials.get, trial.id))
        return ended, sorted({*change.waiting_for, *waiting})

    async def pause(self, model: str, by: str, reason: str) -> tuple[Trial, Sequence[str]]:
        """Stop the stage's clock."""
        trial = await self._open(model)
        if trial.state == "paused":
            raise Conflict(f"the trial of {model} is paused already: resume, advance or abort it")
        return await self._move(self._trials.pause, trial, by, reason or "paused by hand")

    async def resume(self, model: str, by: str, reason: str) -> tuple[Trial, Sequence[str]]:
        """Go on with the stage of a paused trial."""
        trial = await self._open(model)
        if trial.state != "paused":
            raise Conflict(f"the trial of {model} is not paused: it is in its {trial.state} stage {trial.stage + 1}")
        return await self._move(self._trials.resume, trial, by, reason or "resumed by hand")

    async def abort(self, model: str, by: str, reason: str) -> tuple[Trial, Sequence[str]]:
        """End the trial, whatever stage it has reached in this moment; live stays live."""
        while True:
            trial = await self._open(model)
            try:
                return await self._move(self._trials.abort, trial, by, reason or "aborted by hand")
            except _MovedOn:
                log.info("the trial moved on before it was aborted: trying again", extra=_about(trial, by))

    async def _open(self, model: str) -> Trial:
        trial = await asyncio.to_thread(self._trials.of, model)
        if trial is None or not trial.is_open:
            raise Conflict(f"no trial of {model} is open: POST /models/{model}/trial opens one")
        return trial

    async def _move(
        self, move: Callable[..., Trial], trial: Trial, by: str, reason: str
    ) -> tuple[Trial, Sequence[str]]:
        try:
            moved = await asyncio.to_thread(move, trial, by=by, reason=reason, now=self._now())
        except Overtaken as err:
            raise _MovedOn(trial.model) from err
        log.info("trial moved", extra={**_about(moved, by), "reason": reason})
        return await self._followed(moved)

    async def _followed(self, trial: Trial) -> tuple[Trial, Sequence[str]]:
        return trial, await self._everywhere(trial.id, trial.stage if trial.is_open else None, _FOLLOW_S)


def last_of(trials: Trials, model: str) -> Trial:
    """Return the open trial of a model, else its last one. Raises NotFound if it has had none."""
    trial = trials.of(model)
    if trial is None:
        raise NotFound(f"{model} has had no trial: POST /models/{model}/trial opens one")
    return trial


def _about(trial: Trial, by: str) -> dict[str, Any]:
    place = {"state": trial.state, "stage": trial.stage + 1}
    return {"trial": trial.id, "model": trial.model, "version": trial.version, "by": by, **place}
