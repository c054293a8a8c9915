"""Changes of trials by hand, while their leader makes its own."""

import asyncio
from collections.abc import Callable, Sequence
from typing import Any, cast

import pytest

from service.delivery.rollout import Change, Rollout
from service.delivery.trial_control import TrialControl
from service.delivery.trials import Trial, Trials
from service.errors import Conflict
from service.store.database import Store
from tests.trials import CANARY, opened

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


class Promoting:
    """A rollout to which a node does not answer."""

    def __init__(self, before: Callable[[], object] = lambda: None) -> None:
        self._before = before

    async def promote_by(self, _: str, version: int, commit: Callable[[], int | None]) -> Change:
        self._before()
        return Change(version, commit(), ["b"])


def test_a_promotion_by_hand_says_why_and_which_nodes_do_not_follow(store: Store) -> None:
    asked: list[tuple[str, int | None]] = []

    async def everywhere(trial: str, stage: int | None, _: float) -> Sequence[str]:
        asked.append((trial, stage))
        return ["c", "b", "a"]

    trials, trial = Trials(store), opened(store, CANARY)
    by_hand = TrialControl(trials, cast("Rollout", Promoting()), everywhere, now=lambda: 2.0)
    ended, waiting = asyncio.run(by_hand.advance("line", "anyone", ""))
    assert (ended.state, ended.reason) == ("promoted", "promoted by hand from the last stage")
    assert waiting == ["a", "b", "c"]
    assert asked == [(trial.id, None)]  # its end, not a stage


def test_the_nodes_that_have_not_swapped_are_named_with_a_promotion(store: Store) -> None:
    opened(store, CANARY)
    by_hand = TrialControl(Trials(store), cast("Rollout", Promoting()), now=lambda: 2.0)
    assert asyncio.run(by_hand.advance("line", "anyone", "good enough"))[1] == ["b"]
    assert (ended := Trials(store).of("line")) is not None
    assert ended.reason == "good enough"


def test_a_promotion_of_a_trial_that_has_just_ended_is_a_conflict(store: Store) -> None:
    trials, trial = Trials(store), opened(store, CANARY)
    rollout = Promoting(lambda: trials.roll_back(trial, **LEADER, now=1.0))
    by_hand = TrialControl(trials, cast("Rollout", rollout), now=lambda: 2.0)
    with pytest.raises(Conflict, match="has moved on in this moment: look, then try again"):
        asyncio.run(by_hand.advance("line", "anyone", ""))
    assert trials.get(trial.id).state == "rolled_back"


@pytest.mark.parametrize("reason", ["", "lunch"])
def test_a_reason_by_hand_is_kept(store: Store, reason: str) -> None:
    opened(store)
    by_hand = control(Trials(store))
    assert asyncio.run(by_hand.pause("line", "anyone", reason))[0].reason == (reason or "paused by hand")
    assert asyncio.run(by_hand.resume("line", "anyone", reason))[0].reason == (reason or "resumed by hand")
    assert asyncio.run(by_hand.advance("line", "anyone", reason))[0].reason == (reason or "advanced by hand")
    assert asyncio.run(by_hand.abort("line", "anyone", reason))[0].reason == (reason or "aborted by hand")
