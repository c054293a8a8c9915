"""Truths of a trial, from feedback about the predictions that two versions answered differently."""

from typing import Any

from sqlalchemy import insert

from service.delivery.trial_tally import Tallies
from service.delivery.trial_truths import TrialTruths
from service.delivery.trials import Trial, Trials
from service.store.database import Store
from service.store.tables import feedback
from tests.fakes import LINE
from tests.trials import SHADOW, differ, opened


def tell(store: Store, prediction: str, truth: Any, kind: str = "audit") -> None:
    values = {"model": "line", "id": prediction, "position": 0, "kind": kind, "drawn": "random", "truth": truth}
    with store.write() as connection:
        connection.execute(insert(feedback).values(**values, by="", at=1.0))


def better(store: Store, trial: Trial) -> dict[str, int]:
    return dict(Tallies(store).of(trial).better)


def test_audits_and_outcomes_say_which_version_was_nearer(store: Store) -> None:
    """Live answered 1, the candidate 2."""
    trial = opened(store, SHADOW)
    differ(trial, store, ["a", "b", "c", "d", "e"])
    truths = TrialTruths(store, Trials(store), {"line": LINE})
    assert truths.note(trial) == 0
    tell(store, "a", 0.5)
    tell(store, "b", 1.9, "outcome")
    tell(store, "c", 1.5)
    tell(store, "d", 2.0, "correction")  # does not count: callers report mostly wrong answers of live
    tell(store, "other", 2.0)
    assert truths.note(trial) == 3
    assert better(store, trial) == {"live": 1, "candidate": 1, "neither": 1}
    assert truths.note(trial) == 0


def test_a_leader_that_does_not_serve_the_model_notes_nothing(store: Store) -> None:
    trial = opened(store, SHADOW)
    differ(trial, store, ["a"])
    tell(store, "a", 1.0)
    assert TrialTruths(store, Trials(store), {}).note(trial) == 0
