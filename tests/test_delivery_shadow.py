"""The shadow of a trial chooses the requests to copy."""

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest

from models.errors import InvalidInput
from models.outputs import describe_values
from models.spec import Array
from service.delivery.canary import bound_of
from service.delivery.count_rows import Place
from service.delivery.shadow import Copied, Shadow
from service.delivery.shadow_lane import Lane
from service.delivery.trial_counts import TrialCounts
from service.errors import DeadlineExceeded, QueueFull
from service.inference.engine import Engine, Loaded
from service.store.database import Store
from tests.open_trials import stage, trial_of


def shadow_of(store: Store, share: float, room: int, lane: Any = None) -> tuple[Shadow, Any]:
    """A shadow whose lane has room for `room` samples, or with another lane; and its counters."""
    trial, counts = trial_of([stage(shadow=share)], version=2), TrialCounts(store)
    candidate = cast("Loaded", SimpleNamespace(spec=SimpleNamespace(encode=None)))
    lane = lane or Lane(lambda: False, most_samples=room)
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


def test_the_share_of_a_shadow_ends_before_its_bound(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    below = (2**63 - 1).to_bytes(8, "big")
    for place, is_wanted in ((below, True), (bound_of(0.5), False)):
        sticky = SimpleNamespace(place=lambda *_, found=place: found)
        monkeypatch.setattr("service.delivery.shadow.Sticky", lambda *_, found=sticky: found)
        shadow, _ = shadow_of(store, 0.5, room=9)
        assert shadow.wants({}, "stem", 1) is is_wanted


def served(**values: Any) -> Any:
    """A request that the live version has answered."""
    samples = np.zeros((1, 1), np.float32)
    ours = {"samples": samples, "values": samples, "positions": [0], "id": "p-1", "stem": "p", "headers": {}}
    ours |= {"version": 1, "error": None, "by_number": False, "decoded_for": None, "body": b""}
    return SimpleNamespace(**{**ours, **values})


@pytest.mark.parametrize(
    ("values", "is_copied"),
    [
        ({}, True),
        ({"version": 3}, False),  # a promotion has just made another version live
        ({"by_number": True}, False),
        ({"version": None, "values": None, "error": QueueFull()}, False),
        ({"version": None, "values": None, "error": DeadlineExceeded("late")}, True),
        ({"version": None, "values": None, "error": ArithmeticError("broken")}, True),
    ],
)
def test_what_the_live_version_answered_or_failed_at_is_copied(
    store: Store, values: dict[str, Any], is_copied: bool
) -> None:
    offered: list[Copied] = []

    def offer(copy: Copied) -> bool:
        offered.append(copy)
        return True

    shadow, tally = shadow_of(store, 1.0, room=9, lane=SimpleNamespace(offer=offer))
    shadow.ended(served(**values))
    assert (len(offered), tally.dropped) == (is_copied, 0)


def test_a_copy_that_finds_no_room_is_counted_as_dropped(store: Store) -> None:
    shadow, tally = shadow_of(store, 1.0, room=0)
    shadow.ended(served())
    assert tally.dropped == 1


def computing(store: Store, compute_aside: Callable[..., Array]) -> tuple[Shadow, Any, list[str]]:
    """A shadow whose candidate computes so, its counters, and the faults that it reports."""
    trial, counts, reports = trial_of([stage(shadow=1.0)], version=2), TrialCounts(store), list[str]()
    spec = SimpleNamespace(encode=None, describe=None, outputs={}, prediction=None)
    loaded = cast("Loaded", SimpleNamespace(spec=spec, describe=describe_values))
    engine = cast("Engine", SimpleNamespace(compute_aside=compute_aside, loaded=lambda _: None))
    shadow = Shadow(trial, loaded, engine, counts, Lane(lambda: False), lambda kind, _: reports.append(kind))
    return shadow, counts.tally(Place(trial.id, 0, "shadow")), reports


def copied(shadow: Shadow, values: Array | None) -> Copied:
    """A request that the live version answered so."""
    samples = np.zeros((1, 1), np.float32)
    return Copied(shadow, 1, 8, samples, values, [0], "p-1", bytes(8), may_be_kept=True, decoded_for=None)


@pytest.mark.parametrize(
    ("live", "candidate", "not_finite", "differed"), [(np.nan, np.nan, 0, 0), (np.nan, 1, 0, 1), (1, np.nan, 1, 1)]
)
def test_a_number_that_is_not_finite_counts_if_that_of_live_is(
    store: Store, live: float, candidate: float, not_finite: int, differed: int
) -> None:
    shadow, tally, reports = computing(store, lambda *_: np.full((1, 1), candidate, np.float32))
    shadow.compute([copied(shadow, np.full((1, 1), live, np.float32))], cast("Any", None))
    assert (tally.not_finite, tally.errors, reports) == (not_finite, not_finite, ["not finite"] * not_finite)
    assert tally.differed == differed


def test_where_live_failed_a_number_that_is_not_finite_is_an_error_and_no_fault(store: Store) -> None:
    shadow, tally, reports = computing(store, lambda *_: np.full((1, 1), np.nan, np.float32))
    shadow.compute([copied(shadow, None)], cast("Any", None))
    assert (tally.requests, tally.errors, tally.not_finite, reports) == (1, 1, 0, [])


def test_an_input_that_the_candidate_refuses_counts_for_no_version(store: Store) -> None:
    def compute_aside(*_: object) -> Array:
        raise InvalidInput("No sample", "out of range")

    shadow, tally, reports = computing(store, compute_aside)
    shadow.compute([copied(shadow, np.zeros((1, 1), np.float32))], cast("Any", None))
    assert (tally.requests, tally.errors, reports) == (0, 0, [])


def test_a_candidate_without_memory_is_reported(store: Store) -> None:
    def compute_aside(*_: object) -> Array:
        raise MemoryError

    shadow, tally, reports = computing(store, compute_aside)
    shadow.compute([copied(shadow, np.zeros((1, 1), np.float32))], cast("Any", None))
    assert (tally.errors, reports) == (1, ["memory"])
