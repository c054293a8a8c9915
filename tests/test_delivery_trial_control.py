"""Changes of trials by hand, while their leader makes its own."""

import asyncio
from typing import Any, cast

import pytest

from service.delivery.rollout import Rollout
from service.delivery.trial_control import TrialControl
from service.delivery.trials import Trial, Trials
from service.errors import Conflict
from service.store.database import Store
from tests.trials import opened

LEADER: dict[str, Any] = {"by": "leader", "reason": "reached"}


class Hurried(Trials):
    """The leader makes its own transition just before the next one by hand."""

    def __init__(self, store: Store, move: Any) -> None:
        super().__init__(store)
        self._before: list[Any] = [move]

    def abort(self, trial: Trial, **values: Any) -> Trial:
        if self._before:
            self._before.pop()(self, trial, **LEADER, now=1.0)
        return super().abort(trial, **values)

    def pause(self, trial: Trial, **values: Any) -> Trial:
        if self._before:
            self._before.pop()(self, trial, **LEADER, now=1.0)
        return super().pause(trial, **values)


def control(trials: Trials) -> TrialControl:
    return TrialControl(trials, cast("Rollout", None), now=lambda: 2.0)


def test_an_abort_ends_the_trial_in_whatever_stage_it_is_by_then(store: Store) -> None:
    trials, trial = Hurried(store, Trials.advance), opened(store)
    ended, waiting = asyncio.run(control(trials).abort("line", "anyone", ""))
    assert (ended.state, ended.stage, ended.reason, waiting) == ("aborted", 1, "aborted by hand", [])
    states = [event.data["state"] for event in trials.events(trial.id)]
    assert states == ["shadow", "canary", "aborted"]


def test_an_abort_of_a_trial_that_has_just_ended_is_a_conflict(store: Store) -> None:
    trials, trial = Hurried(store, Trials.roll_back), opened(store)
    with pytest.raises(Conflict, match="no trial of line is open"):
        asyncio.run(control(trials).abort("line", "anyone", ""))
    assert trials.get(trial.id).state == "rolled_back"


def test_another_change_of_a_trial_that_has_moved_on_is_a_conflict(store: Store) -> None:
    trials, trial = Hurried(store, Trials.advance), opened(store)
    with pytest.raises(Conflict, match="has moved on in this moment: look, then try again"):
        asyncio.run(control(trials).pause("line", "anyone", ""))
    assert trials.get(trial.id).state == "canary"
