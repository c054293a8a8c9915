"""The row of a service: written by one of its processes, for all."""

import asyncio
import logging
import os
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from benchmarks.postgres import Postgres
from service.delivery.followers import Followers
from service.delivery.nodes import Node, Nodes
from service.delivery.presence import Presence, Work
from service.store.database import Store

MODELS = ["line", "mnist"]


def node_of(store: Store) -> Node:
    (found,) = Nodes(store).all()
    return found


async def becomes(condition: Callable[[], bool]) -> None:
    while not await asyncio.to_thread(condition):  # noqa: ASYNC110 - another process would look as well
        await asyncio.sleep(0.01)


def test_a_row_is_there_while_the_service_runs_and_says_when_it_stops(store: Store) -> None:
    presence = Presence(store, Followers(None), MODELS, address="here:1", software="x", work=lambda: Work(3, 0))

    async def go() -> None:
        async with presence:
            presence.join()
            assert node_of(store).loaded == {"line": None, "mnist": None}
            presence.changed("line", 2)
            await becomes(lambda: node_of(store).loaded == {"line": 2, "mnist": None})
            assert (node_of(store).address, node_of(store).software, node_of(store).processes) == ("here:1", "x", 1)
            assert node_of(store).load["waiting"] == 3
            presence.leaving()
            await becomes(lambda: node_of(store).state == "leaving")
        assert Nodes(store).all() == []

    asyncio.run(asyncio.wait_for(go(), 60))


def test_a_service_that_never_came_to_its_database_leaves_nothing(tmp_path: Path) -> None:
    async def go() -> None:
        store = Store(tmp_path / "nowhere" / "store")
        async with Presence(store, Followers(None), MODELS, address="here:1"):
            pass

    asyncio.run(go())
    assert not (tmp_path / "nowhere").exists()


def test_processes_of_a_service_have_one_row_and_a_version_once_they_agree(store: Store, tmp_path: Path) -> None:
    shared = tmp_path / "shared"
    shared.mkdir()
    followers = Followers(shared), Followers(shared, os.getppid())
    first, second = (Presence(store, one, MODELS, address="here:1") for one in followers)
    for one, versions in zip(followers, ({"line": 1, "mnist": 5}, {"line": 2}), strict=True):
        for model, version in versions.items():
            one.write(model, version)
        one.count(2, 0)
    first.join()
    second.join()
    row = node_of(store)
    assert (row.processes, row.loaded, row.load["waiting"]) == (2, {"line": None, "mnist": 5}, 4)
    assert first.behind("line", 2) == second.behind("line", 2) == ["here:1"]
    followers[0].write("line", 2)
    second.join()
    assert node_of(store).loaded == {"line": 2, "mnist": 5}
    assert first.behind("line", 2) == []


def test_the_other_nodes_are_counted(store: Store) -> None:
    counted: list[Mapping[str, int]] = []
    other = Presence(store, Followers(None), MODELS, address="other:1")
    presence = Presence(store, Followers(None), MODELS, address="here:1", count=counted.append)

    async def go() -> None:
        other.join()
        async with presence:
            presence.join()
            presence.changed("line", 1)
            await becomes(lambda: bool(counted))

    asyncio.run(asyncio.wait_for(go(), 60))
    assert counted[0] == {"serving": 2}
    assert presence.others == ["other:1"]


def test_another_node_with_the_same_address_is_named_once(store: Store, caplog: pytest.LogCaptureFixture) -> None:
    first, second = (Presence(store, Followers(None), MODELS, address="here:1") for _ in range(2))
    for one in (first, second):
        one.join()
    first._look()  # the row may be that of a node that has been killed
    assert not caplog.records
    for _ in range(3):
        second.join()
        first._look()
    told = [record for record in caplog.records if record.msg.startswith("another node has this address")]
    assert [record.__dict__["address"] for record in told] == ["here:1"]


@pytest.mark.slow
def test_while_the_database_is_away_the_nodes_seen_last_are_waited_for(
    postgres: Postgres, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    store = Store(tmp_path, postgres.create_database("presence"))
    store.migrate()
    other = Presence(store, Followers(None), MODELS, address="other:1")
    presence = Presence(store, Followers(None), MODELS, address="here:1")

    async def go() -> None:
        other.join()
        async with presence:
            presence.join()
            presence.changed("line", 1)
            await becomes(lambda: bool(presence.others))
            assert presence.behind("line", 1) == ["other:1"]
            postgres.stop()
            try:
                assert presence.behind("line", 2) == ["here:1", "other:1"]
                for _ in range(2):
                    presence.join()
            finally:
                postgres.start()

    with caplog.at_level(logging.WARNING, "service.delivery.presence"):
        asyncio.run(asyncio.wait_for(go(), 60))
    (said,) = [record for record in caplog.records if record.name == "service.delivery.presence"]
    assert (said.message, vars(said)["address"]) == ("node not announced", "here:1")
    assert vars(said)["reason"].startswith("the database cannot be reached")
    assert store.faults.keys() <= {"reads"}  # a beat says nothing about writes
    store.close()


def test_a_beat_that_fails_is_logged_and_tried_again(store: Store, caplog: pytest.LogCaptureFixture) -> None:
    tries: list[int] = []

    def work() -> Work:
        tries.append(1)
        return Work(5 // (len(tries) - 1), 0)

    presence = Presence(store, Followers(None), MODELS, address="here:1", work=work)

    async def go() -> None:
        async with presence:
            presence.join()
            presence.changed("line", 1)
            await becomes(lambda: len(tries) > 0)
            presence.changed("line", 2)
            await becomes(lambda: node_of(store).load["waiting"] == 5)

    asyncio.run(asyncio.wait_for(go(), 60))
    assert [record.message for record in caplog.records if record.levelname == "ERROR"] == [
        "beat failed, it is tried again"
    ]
