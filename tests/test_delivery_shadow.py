"""The shadow of a trial chooses the requests to copy."""

from types import SimpleNamespace
from typing import Any, cast

from service.delivery.count_rows import Place
from service.delivery.shadow import Shadow
from service.delivery.shadow_lane import Lane
from service.delivery.trial_counts import TrialCounts
from service.inference.engine import Engine, Loaded
from service.store.database import Store
from tests.open_trials import stage, trial_of


def shadow_of(store: Store, share: float, room: int) -> tuple[Shadow, Any]:
    """A shadow whose lane has room for so many samples, and its counters."""
    trial, counts = trial_of([stage(shadow=share)], version=2), TrialCounts(store)
    candidate = cast("Loaded", SimpleNamespace(spec=SimpleNamespace(encode=None)))
    lane = Lane(lambda: False, most_samples=room)
    shadow = Shadow(trial, candidate, cast("Engine", None), counts, lane, lambda _kind, _detail: None)
    return shadow, counts.tally(Place(trial.id, 0, "shadow"))


def test_a_request_without_room_is_dropped_before_it_is_computed(store: Store) -> None:
    shadow, tally = shadow_of(store, 1.0, room=2)
    assert shadow.wants({}, "stem", 2)
    assert tally.dropped == 0
    assert not shadow.wants({}, "stem", 3)
    assert tally.dropped == 3
    assert shadow.wants({}, "stem", None)  # its size is not known yet
    assert tally.dropped == 3


def test_a_request_that_the_stage_does_not_shadow_is_not_dropped(store: Store) -> None:
    shadow, tally = shadow_of(store, 1e-9, room=0)
    assert not shadow.wants({}, "stem", 1)
    assert tally.dropped == 0
