"""The loaded network follows the promotions, on both databases."""

import asyncio
import os
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from benchmarks.postgres import Postgres
from models.checkpoints import state_dict
from models.checkpoints.record import Record
from service.delivery.followers import Followers
from service.delivery.presence import Presence
from service.delivery.registry import Registry
from service.delivery.rollout import Change, Rollout
from service.inference.backends.pytorch import EagerBackend
from service.inference.engine import Engine
from service.store.database import Store
from service.telemetry.metrics import Metrics
from tests.fakes import LINE, Line, save_line

SPECS = {"line": LINE}


class Replica:
    """One web process's engine and rollout."""

    def __init__(
        self,
        store: Store,
        shipped: Path,
        followers: Followers | None = None,
        address: str = "node:1",
        follow_s: float = 60,
    ) -> None:
        self.engine = Engine(SPECS, EagerBackend("cpu", 1, 8), max_batch=8)
        self.metrics = Metrics()
        self.presence = Presence(store, followers or Followers(None), list(SPECS), address=address)
        self.rollout = Rollout(SPECS, store, [shipped], self.engine, self.metrics, self.presence, follow_s=follow_s)

    @property
    def loaded(self) -> int | None:
        loaded = self.engine.loaded("line")
        return loaded.version if loaded else None


def register(store: Store, slope: float, *, live: bool) -> int:
    """A version as a worker would register it."""
    path = store.folder / "checkpoints" / "line" / f"{slope}.pt"
    sha256 = state_dict.save_weights(Line(slope=slope).state_dict(), path)
    registry = Registry(store)
    with store.write() as connection:
        number = registry.add(connection, "line", path, Record(model="line", sha256=sha256), job=None, now=1.0)
        if live:
            registry.promote(connection, "line", number, by="test", reason="", now=1.0)
    return number


def run(test: Callable[[], Awaitable[None]]) -> None:
    asyncio.run(asyncio.wait_for(test(), 60))


def test_every_replica_follows_a_promotion(store: Store, tmp_path: Path) -> None:
    async def go() -> None:
        save_line(tmp_path)
        first, second = Replica(store, tmp_path), Replica(store, tmp_path)
        await first.rollout.follow()
        await second.rollout.follow()
        assert (first.loaded, second.loaded) == (1, 1)
        assert len(Registry(store).versions("line")) == 1  # the shipped one is registered once
        register(store, 5, live=True)
        await first.rollout.follow()
        assert (first.loaded, second.loaded) == (2, 1)
        await second.rollout.follow()
        assert second.loaded == 2
        await asyncio.gather(second.rollout.rollback("line", "test"), followed(first, 1))
        assert (first.loaded, second.loaded) == (1, 1)

    run(go)


async def followed(replica: Replica, version: int) -> None:
    """Have a replica look until it answers with a version, and write its row."""
    while replica.loaded != version:
        await replica.rollout.follow()
    replica.presence.join()


def test_a_promotion_waits_until_the_other_web_process_has_followed(store: Store, tmp_path: Path) -> None:
    other = Followers(tmp_path, os.getppid())
    looks: list[set[int]] = []

    class Looking(Followers):
        def versions(self, model: str) -> set[int]:
            looks.append(super().versions(model))
            if len(looks) == 3:
                other.write("line", 2)
            return looks[-1]

    async def go() -> None:
        save_line(tmp_path)
        replica = Replica(store, tmp_path, Looking(tmp_path))
        await replica.rollout.follow()
        other.write("line", 1)
        assert (await replica.rollout.promote("line", register(store, 5, live=False), "test")).previous == 1

    run(go)
    assert looks == [{1, 2}, {1, 2}, {1, 2}, {2}]


def test_a_promotion_waits_for_the_other_nodes_and_names_those_that_have_not_followed(
    store: Store, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async def go() -> None:
        save_line(tmp_path)
        first, second = Replica(store, tmp_path, follow_s=0.1), Replica(store, tmp_path, address="other:1")
        for replica in (first, second):
            await followed(replica, 1)
        done = await first.rollout.promote("line", register(store, 5, live=False), "test")
        assert done == Change(2, 1, ["other:1"])
        (said,) = [record for record in caplog.records if record.message.startswith("promotion not followed")]
        assert (vars(said)["model"], vars(said)["version"], vars(said)["nodes"]) == ("line", 2, "other:1")
        await followed(second, 2)
        assert await first.rollout.promote("line", 2, "test") == Change(2, 2, [])
        back, _ = await asyncio.gather(second.rollout.rollback("line", "test", key="once"), followed(first, 1))
        second.presence.join()
        assert back == await first.rollout.rollback("line", "test", key="once") == Change(1, 2, [])
        second.presence.changed("line", 7)  # as if it had not followed
        second.presence.join()
        assert await first.rollout.rollback("line", "test", key="once") == Change(1, 2, ["other:1"])
        await asyncio.gather(first.rollout.promote("line", 2, "test"), followed(second, 2))
        assert await first.rollout.rollback("line", "test", key="once") == Change(
            1, 2, []
        )  # it is not live: none has to

    run(go)


def test_a_version_that_cannot_be_loaded_leaves_the_old_one_answering_and_is_retried(
    store: Store,
    tmp_path: Path,
) -> None:
    async def go() -> None:
        save_line(tmp_path)
        replica = Replica(store, tmp_path)
        await replica.rollout.follow()
        register(store, 5, live=True)
        path = store.folder / "checkpoints" / "line" / "5.pt"
        content = path.read_bytes()
        path.unlink()
        await replica.rollout.follow()
        assert replica.loaded == 1
        assert replica.rollout.live == {"line": 2}
        assert "cannot be read" in replica.rollout.faults["line"]
        assert replica.rollout.not_ready == {}  # version 1 answers
        assert replica.metrics.load_failures.labels("line")._value.get() == 1
        path.write_bytes(content)
        await replica.rollout.follow()
        assert replica.loaded == 1  # not tried again at once
        replica.rollout._retry_at.clear()  # as if the time had passed
        await replica.rollout.follow()
        assert replica.loaded == 2
        assert replica.rollout.faults == {}

    run(go)


def test_a_new_promotion_is_not_held_up_by_the_broken_one_before(store: Store, tmp_path: Path) -> None:
    async def go() -> None:
        replica = Replica(store, tmp_path)
        register(store, 5, live=True)
        (store.folder / "checkpoints" / "line" / "5.pt").unlink()
        await replica.rollout.follow()
        assert replica.loaded is None
        assert replica.rollout.not_ready.keys() == {"line"}
        register(store, 6, live=True)
        await replica.rollout.follow()
        assert replica.loaded == 2
        assert replica.rollout.not_ready == {}

    run(go)


def test_versions_asked_for_by_number_are_kept_loaded_a_few_at_a_time(store: Store, tmp_path: Path) -> None:
    async def go() -> None:
        replica = Replica(store, tmp_path)
        numbers = [register(store, slope, live=False) for slope in range(1, 8)]
        await replica.rollout.follow()
        first = await replica.rollout.pinned("line", numbers[0])
        assert await replica.rollout.pinned("line", numbers[0]) is first
        for number in numbers:
            assert (await replica.rollout.pinned("line", number)).version == number
        assert await replica.rollout.pinned("line", numbers[0]) is not first
        assert len(replica.rollout._pinned) == 4

    run(go)


def test_loaded_versions_answer_while_the_database_is_unreachable(postgres: Postgres, tmp_path: Path) -> None:
    async def go() -> None:
        save_line(tmp_path)
        store = Store(tmp_path / "store", postgres.create_database("outage"))
        replica = Replica(store, tmp_path)
        await replica.rollout.follow()
        postgres.stop()
        try:
            await replica.rollout.follow()
            assert replica.rollout.store_fault is not None
            assert replica.rollout.not_ready == {}
            values = await replica.engine.compute(replica.engine.live("line"), LINE.example)
            assert values.tolist() == [[7]]
        finally:
            postgres.start()
        await replica.rollout.follow()
        assert replica.rollout.store_fault is None
        store.close()

    run(go)


def test_a_start_without_a_database_is_not_ready_and_catches_up(postgres: Postgres, tmp_path: Path) -> None:
    async def go() -> None:
        save_line(tmp_path)
        url = postgres.create_database("late")
        postgres.stop()
        store = Store(tmp_path / "store", url)
        replica = Replica(store, tmp_path)
        try:
            await replica.rollout.follow()
            assert replica.rollout.not_ready.keys() == {"store"}
        finally:
            postgres.start()
        await replica.rollout.follow()
        assert replica.rollout.not_ready == {}
        assert replica.loaded == 1
        store.close()

    run(go)
