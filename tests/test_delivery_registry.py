"""Versions and promotions, on both databases."""

from pathlib import Path
from typing import Any

import pytest

from models.checkpoints.record import Record
from service.delivery import retention
from service.delivery.registry import Registry
from service.errors import Conflict, NotFound
from service.store.database import Store

RECORD = Record(model="m", sha256="0" * 64, metrics={"mse": 0.5})


@pytest.fixture
def registry(store: Store) -> Registry:
    return Registry(store)


def add(store: Store, registry: Registry, model: str = "m", count: int = 1) -> list[int]:
    with store.write() as connection:
        path = store.folder / "checkpoints" / "x.pt"
        return [registry.add(connection, model, path, RECORD, job=None, now=5.0) for _ in range(count)]


def promote(store: Store, registry: Registry, version: int, now: float = 1.0, model: str = "m") -> int | None:
    with store.write() as connection:
        return registry.promote(connection, model, version, by="test", reason="", now=now)


def rollback(store: Store, registry: Registry, now: float = 1.0) -> tuple[int, int]:
    with store.write() as connection:
        return registry.rollback(connection, "m", by="test", reason="", now=now)


def test_versions_count_up_for_each_model(store: Store, registry: Registry) -> None:
    assert add(store, registry, count=3) == [1, 2, 3]
    assert add(store, registry, "other") == [1]
    assert [version.version for version in registry.versions("m")] == [1, 2, 3]
    one = registry.version("m", 2)
    assert (one.path, one.record["metrics"], one.created_at) == ("checkpoints/x.pt", {"mse": 0.5}, 5.0)
    assert registry.path(one) == store.folder / "checkpoints" / "x.pt"


def test_an_unknown_version_says_where_they_are_listed(store: Store, registry: Registry) -> None:
    with pytest.raises(NotFound, match="GET /models/m/versions"):
        registry.version("m", 9)


def test_a_pruned_version_keeps_its_number_and_cannot_go_live(store: Store, registry: Registry) -> None:
    add(store, registry, count=2)
    with store.write() as connection:
        retention.mark_pruned(connection, [registry.version("m", 2)], now=0.0)
        assert registry.count(connection, "m") == 2
    assert [version.version for version in registry.versions("m")] == [1]
    for ask in (lambda: registry.version("m", 2), lambda: promote(store, registry, 2)):
        with pytest.raises(NotFound, match="version 2 of m was pruned on 1970-01-01: its files are removed; GET"):
            ask()
    assert registry.live() == {}
    assert add(store, registry) == [3]


def test_a_checkpoint_outside_the_store_cannot_be_registered(store: Store, registry: Registry) -> None:
    with pytest.raises(ValueError, match="subpath"), store.write() as connection:
        registry.add(connection, "m", Path("/elsewhere/x.pt"), RECORD, job=None, now=1.0)


def test_rollback_replays_promotions_as_a_stack(store: Store, registry: Registry) -> None:
    add(store, registry, count=4)
    assert [promote(store, registry, version) for version in (1, 2, 3)] == [None, 1, 2]
    assert rollback(store, registry) == (2, 3)
    assert rollback(store, registry) == (1, 2)
    assert registry.live() == {"m": 1}
    with pytest.raises(Conflict, match="nothing to roll back to"):
        rollback(store, registry)
    promote(store, registry, 4)
    assert registry.rollback_target("m") == 1
    assert rollback(store, registry) == (1, 4)


def test_promoting_what_is_live_adds_no_row(store: Store, registry: Registry) -> None:
    add(store, registry, count=2)
    promote(store, registry, 1)
    promote(store, registry, 2)
    assert promote(store, registry, 2) == 2
    assert rollback(store, registry) == (1, 2)


def test_nothing_promoted_means_nothing_live(store: Store, registry: Registry) -> None:
    add(store, registry)
    assert registry.live() == {}
    with pytest.raises(Conflict):
        registry.rollback_target("m")


def test_models_do_not_mix(store: Store, registry: Registry) -> None:
    add(store, registry)
    add(store, registry, "other", count=2)
    promote(store, registry, 1)
    promote(store, registry, 2, model="other")
    assert registry.live() == {"m": 1, "other": 2}


def test_the_history_says_what_was_live_when(store: Store, registry: Registry) -> None:
    add(store, registry, count=2)
    promote(store, registry, 1, now=10)
    promote(store, registry, 2, now=20)
    rollback(store, registry, now=30)

    def live_at(at: float) -> Any:
        rows = registry.history("m", at)
        return rows[-1].version if rows else None

    assert [live_at(at) for at in (5, 10, 25, 30)] == [None, 1, 2, 1]
    assert [row.action for row in registry.history("m")] == ["promote", "promote", "rollback"]
