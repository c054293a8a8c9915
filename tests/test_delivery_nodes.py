"""The table of nodes: who is live counts by the clock of the database. On both databases."""

from collections.abc import Mapping

from sqlalchemy import update

from service.delivery.followers import MIXED
from service.delivery.nodes import Nodes, Row
from service.store.database import Store
from service.store.tables import nodes as table

ROW = Row(
    id="a" * 32,
    address="10.0.0.1:8000",
    state="serving",
    processes=2,
    loaded={"line": 1, "mnist": None},
    load={"waiting": 0, "requests_per_s": 2.5},
    software="torchloop",
    trials={},
)
OTHER = ROW._replace(id="b" * 32, address="10.0.0.2:8000")
THIRD = ROW._replace(id="c" * 32, address="10.0.0.3:8000")


def beat(store: Store, *rows: Row) -> None:
    for row in rows:
        with store.beat(1) as connection:
            Nodes(store).beat(connection, row)


def unseen(store: Store, row: Row, seconds: float) -> None:
    """Have a node not be seen for that long; a negative time is one in the future."""
    with store.write() as connection:
        changed = update(table).where(table.c.id == row.id).values(seen_at=table.c.seen_at - seconds)
        connection.execute(changed)


def states(store: Store) -> Mapping[str, str]:
    return {node.id[0]: node.state for node in Nodes(store).all()}


def test_a_node_is_what_it_wrote_last(store: Store) -> None:
    beat(store, ROW)
    (first,) = Nodes(store).all()
    assert (first.address, first.processes, first.loaded, first.load) == (
        ROW.address,
        2,
        {"line": 1, "mnist": None},
        {"waiting": 0, "requests_per_s": 2.5},
    )
    unseen(store, ROW, 1)
    beat(store, ROW._replace(loaded={"line": 2}, state="leaving"))
    (now,) = Nodes(store).all()
    assert (now.state, now.loaded, now.started_at) == ("leaving", {"line": 2}, first.started_at)
    assert now.seen_at >= first.seen_at
    assert abs(now.silent_s) < 60


def test_a_node_is_silent_after_three_seconds_and_forgotten_after_sixty(store: Store) -> None:
    beat(store, ROW, OTHER, THIRD)
    unseen(store, OTHER, 20)
    unseen(store, THIRD, 120)
    assert states(store) == {"a": "serving", "b": "silent"}
    with store.beat(1) as connection:
        Nodes(store).forget(connection, ROW)
    with store.read() as connection:
        assert {row.id[0] for row in connection.execute(table.select())} == {"a", "b"}


def test_a_row_from_the_future_is_silent_as_the_clock_was_set_back(store: Store) -> None:
    beat(store, ROW, OTHER)
    unseen(store, OTHER, -30)
    assert states(store) == {"a": "serving", "b": "silent"}


def test_the_row_of_a_service_that_had_the_same_address_is_removed_once_it_is_silent(store: Store) -> None:
    again = ROW._replace(id="d" * 32)
    beat(store, ROW, again)
    for seconds, left in ((0, {"a", "d"}), (20, {"d"})):
        unseen(store, ROW, seconds)
        with store.beat(1) as connection:
            Nodes(store).forget(connection, again)
        assert states(store).keys() == left


def test_nodes_are_behind_that_serve_the_model_and_are_live(store: Store) -> None:
    nodes = Nodes(store)
    beat(store, ROW, OTHER, THIRD)
    assert nodes.behind("line", 1, but=ROW.id) == []
    assert nodes.behind("line", 2, but=ROW.id) == [OTHER.address, THIRD.address]
    assert nodes.behind("mnist", 1, but=ROW.id) == [OTHER.address, THIRD.address]  # it is being loaded
    assert nodes.behind("unknown", 1, but=ROW.id) == []
    beat(store, OTHER._replace(state="leaving"))
    unseen(store, THIRD, 20)
    assert nodes.behind("line", 2, but=ROW.id) == []


def test_a_node_that_went_silent_meanwhile_is_still_behind(store: Store) -> None:
    nodes = Nodes(store)
    beat(store, ROW, OTHER)
    unseen(store, OTHER, 20)
    for ago_s, named in ((0.0, []), (10.0, []), (60.0, [OTHER.address])):
        assert nodes.behind("line", 2, but=ROW.id, ago_s=ago_s) == named
        assert nodes.behind_trial("t1", 1, but=ROW.id, ago_s=ago_s) == named


def test_a_node_that_leaves_has_no_row(store: Store) -> None:
    beat(store, ROW, OTHER)
    with store.beat(1) as connection:
        Nodes(store).leave(connection, ROW.id)
    assert states(store) == {"b": "serving"}


def test_nodes_that_do_not_follow_a_trial_are_named_until_they_do(store: Store) -> None:
    nodes = Nodes(store)
    for place, stages in (("a", {"t1": 1}), ("b", {"t1": 0}), ("c", {}), ("d", {"t1": MIXED})):
        with store.beat(1) as connection:
            nodes.beat(connection, ROW._replace(id=place, address=f"{place}:1", trials=stages))
    assert nodes.behind_trial("t1", 1, but="") == ["b:1", "c:1", "d:1"]
    assert nodes.behind_trial("t1", 1, but="b") == ["c:1", "d:1"]
    assert nodes.behind_trial("t1", None, but="") == ["a:1", "b:1", "d:1"]
    assert nodes.behind_trial("t2", None, but="") == []
    assert {node.id: node.trials for node in nodes.all()}["a"] == {"t1": 1}
