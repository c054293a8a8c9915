"""A web process follows the open trials."""

import asyncio
import weakref
from typing import Any

import numpy as np
import pytest

from service.delivery.nodes import Nodes
from service.delivery.trials import Trials
from service.errors import ObjectsAway, StoreUnavailable
from service.inference.decoding import Samples
from service.store.database import Store
from tests.following import Process, run, started
from tests.open_trials import moved, opened, stage, trial_of
from tests.trial_traffic import add_line
from tests.trials import written_counts

ONE = Samples(np.zeros((1, 1), np.float32), {}, 1, entries=np.zeros((1, 1), np.float32))


@pytest.fixture
def candidate(store: Store) -> int:
    """The version that is tried beside version 1."""
    add_line(store, 2, live=True)
    return add_line(store, 3)


def test_a_trial_is_followed_through_its_stages_and_leaves_nothing(store: Store, candidate: int) -> None:
    async def go() -> None:
        async with started(store) as process:
            trial = opened(store, trial_of([stage(shadow=1.0), stage(share=0.5)], version=candidate))
            await process.follow()
            assert process.answering() == {1}
            assert process.pipeline.observers.interested("line", {}, "stem")
            assert Nodes(store).all()[0].trials == {trial.id: 0}
            moved(store, trial, state="paused")
            await process.follow()
            assert not process.pipeline.observers
            moved(store, trial, state="canary", stage=1)
            await process.follow()
            assert process.answering() == {1, candidate}
            assert Nodes(store).all()[0].trials == {trial.id: 1}
            moved(store, trial, state="paused")
            await process.follow()
            assert process.answering() == {1, candidate}  # a paused canary keeps its share
            kept = weakref.ref(await process.rollout.pinned("line", candidate))
            assert process.backend.loaded == ["line", "line"]  # the pinned version is the candidate, not a copy of it
            moved(store, trial, state="rolled_back")
            await process.follow()
            assert process.answering() == {1}
            assert not process.pipeline.canaries
            assert Nodes(store).all()[0].trials == {}
            assert kept() is None  # without a collection

    run(go)


def test_a_promoted_candidate_keeps_its_keys_until_it_is_live(store: Store, candidate: int) -> None:
    async def go() -> None:
        async with started(store) as process:
            trial = opened(store, trial_of([stage(share=0.5)], version=candidate))
            await process.follow()
            loaded = process.chosen()[0]
            Trials(store).promote(trial, by="test", reason="", now=1.0)
            await process.follow()
            assert process.answering() == {1, candidate}
            await process.rollout.follow()
            assert process.engine.loaded("line") is loaded  # swapped, not loaded again
            await process.follow()
            assert not process.pipeline.canaries
            assert process.rollout.loader.candidates == {}

    run(go)


def test_a_process_that_starts_has_the_candidate_before_it_answers(store: Store, candidate: int) -> None:
    async def go() -> None:
        trial = opened(store, trial_of([stage(share=0.5)], version=candidate))
        async with started(store) as process:
            assert process.answering() == {1, candidate}
            assert process.presence.behind_trial(trial.id, 0) == []

    run(go)


def test_a_process_that_starts_waits_longer_for_a_candidate_that_answers_keys(store: Store, candidate: int) -> None:
    async def go() -> None:
        trial = opened(store, trial_of([stage(shadow=1.0), stage(share=0.5)], version=candidate))
        async with started(store, load_wait_s=0.0) as process:
            assert process.rollout.loader.candidates == {}  # it serves while the candidate of a shadow is loaded
        moved(store, trial, state="canary", stage=1)
        async with started(store, load_wait_s=0.0) as process:
            assert process.answering() == {1, candidate}

    run(go)


def test_while_the_database_is_away_traffic_goes_on_and_counts_are_kept(
    store: Store, candidate: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    def away(*_: object) -> Any:
        raise StoreUnavailable("away")

    async def go() -> None:
        async with started(store) as process:
            trial = opened(store, trial_of([stage(share=0.5)], version=candidate))
            await process.follow()
            with monkeypatch.context() as patched:
                patched.setattr(store, "read", away)
                patched.setattr(store, "beat", away)
                await process.follower.follow()
                assert process.answering() == {1, candidate}
                process.pipeline.canaries["line"].ended(None, {}, "x", ONE, ArithmeticError())
                process.pipeline.canaries["line"].ended(None, {}, "y", ONE, ArithmeticError())
            moved(store, trial, state="aborted")
            await process.follow()
            assert process.answering() == {1}
        (found,) = [row for row in written_counts(store, trial.id) if row.arm == "live"]
        assert (found.counts.requests, found.counts.errors) == (2, 2)

    run(go)


@pytest.mark.parametrize(
    ("error", "kind", "detail"),
    [
        (MemoryError(), "memory", "raised MemoryError"),
        (ZeroDivisionError("a secret"), "load", "loading version 2 raised ZeroDivisionError"),
    ],
)
def test_a_candidate_that_cannot_be_loaded_is_recorded_once(
    store: Store, candidate: int, error: Exception, kind: str, detail: str
) -> None:
    async def go() -> None:
        async with started(store) as process:
            trial = opened(store, trial_of([stage(share=0.5)], version=candidate))
            process.backend.errors = [error]
            await process.follow()
            await process.follow()
            (fault,) = [event.data for event in Trials(store).events(trial.id) if event.kind == "fault"]
            assert (fault["stage"], fault["kind"]) == (0, kind)
            assert detail in fault["detail"]
            assert "secret" not in fault["detail"]
            assert process.presence.behind_trial(trial.id, 0) == ["node:1"]
            assert process.backend.loaded == ["line"] * 2  # not tried again

    run(go)


def test_a_version_that_does_not_exist_is_a_fault(store: Store, candidate: int) -> None:
    async def go() -> None:
        async with started(store) as process:
            trial = opened(store, trial_of([stage(share=0.5)], version=candidate + 7))
            await process.follow()
            (fault,) = [event.data for event in Trials(store).events(trial.id) if event.kind == "fault"]
            assert fault["kind"] == "load"
            assert f"no version {candidate + 7}" in fault["detail"]

    run(go)


def test_a_checkpoint_that_cannot_be_fetched_for_now_is_tried_again(
    store: Store, candidate: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("service.delivery.trial_follower.RETRY_S", 0.0)

    async def go() -> None:
        async with started(store) as process:
            trial = opened(store, trial_of([stage(share=0.5)], version=candidate))
            process.backend.errors = [ObjectsAway("away")]
            await process.follower.follow()
            await process.follower.settled()
            assert process.answering() == {1}
            await process.follow()
            assert process.answering() == {1, candidate}
            assert [event for event in Trials(store).events(trial.id) if event.kind == "fault"] == []

    run(go)


def test_a_change_waits_for_the_nodes_that_do_not_follow(store: Store, candidate: int) -> None:
    async def go() -> None:
        async with started(store) as first, started(store, address="node:2") as second:
            trial = opened(store, trial_of([stage(share=0.5)], version=candidate))
            await first.follow()
            second.presence.join()
            assert await first.follower.everywhere(trial.id, 0, 0.05) == ["node:2"]
            await asyncio.gather(second.follow(), waits(first, trial.id, 0))
            moved(store, trial, state="aborted")
            await first.follow()
            assert await first.follower.everywhere(trial.id, None, 0.05) == ["node:2"]
            await asyncio.gather(second.follow(), waits(first, trial.id, None))

    run(go)


async def waits(process: Process, trial: str, number: int | None) -> None:
    assert await process.follower.everywhere(trial, number, 60) == []


def test_models_that_a_node_does_not_serve_are_followed_at_once(store: Store, candidate: int) -> None:
    async def go() -> None:
        async with started(store) as process:
            trial = opened(store, trial_of([stage(share=0.5)], model="other", version=candidate))
            await process.follow()
            assert process.presence.behind_trial(trial.id, 0) == []
            assert not process.pipeline.canaries

    run(go)


def test_a_trial_that_replaces_another_takes_over(store: Store, candidate: int) -> None:
    async def go() -> None:
        async with started(store) as process:
            first = opened(store, trial_of([stage(share=0.5)], version=candidate))
            await process.follow()
            moved(store, first, state="aborted")
            second = opened(store, trial_of([stage(share=0.5)], version=candidate))
            await process.follow()
            assert process.answering() == {1, candidate}
            assert Nodes(store).all()[0].trials == {second.id: 0}
            assert process.rollout.loader.candidates.keys() == {("line", candidate)}

    run(go)
