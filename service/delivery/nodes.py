"""Table of nodes: the services that answer requests now, on all machines, and their loaded versions.

A node is one service: the web processes of a machine that share a port. It is live while its row is written every
second. Only the clock of the database counts, so that the clocks of the machines may differ.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import Any, Literal, NamedTuple

from sqlalchemy import ColumnElement, Connection, and_, bindparam, delete, or_, select

from service.store.clock import CLOCKS
from service.store.database import Store
from service.store.dialects import insert_of
from service.store.tables import nodes

LIVE_S = 3.0  # without a beat: the node is silent
FORGOTTEN_S = 60.0  # without a beat: its row is removed
State = Literal["serving", "leaving", "silent"]


class Row(NamedTuple):
    """The row that a node writes.

    `loaded` is None for a model whose version is not the same in all processes; models that are loaded on demand are
    missing. `trials` are the stages of the open trials that the processes follow, or followers.MIXED.
    """

    id: str
    address: str
    state: Literal["serving", "leaving"]
    processes: int
    loaded: Mapping[str, int | None]
    load: Mapping[str, float]
    software: str
    trials: Mapping[str, int]


@dataclass(frozen=True, slots=True, kw_only=True)
class Node:
    """One node as others see it; it was last seen `silent_s` seconds ago."""

    id: str
    address: str
    state: State
    started_at: float
    seen_at: float
    silent_s: float
    processes: int
    loaded: Mapping[str, int | None]
    load: Mapping[str, float]
    software: str
    trials: Mapping[str, int] = field(default_factory=dict)


class Nodes:
    """The rows. Every method raises StoreUnavailable."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def all(self) -> Sequence[Node]:
        """Return the nodes that are not forgotten, the oldest first."""
        with self._store.read() as connection:
            found = connection.execute(_statements(connection.dialect.name).all)
            return [_node(row) for row in found.mappings()]

    def behind(self, model: str, version: int, *, but: str, ago_s: float = 0.0) -> list[str]:
        """Return the addresses of the nodes that serve a model and have not loaded that version, without `but`.

        Of nodes that are live, or were so `ago_s` seconds ago and have gone silent since.
        """
        with self._store.read() as connection:
            found = connection.execute(_statements(connection.dialect.name).live, _asked(but, ago_s))
            return [row.address for row in found if row.loaded.get(model, version) != version]

    def behind_trial(self, trial: str, stage: int | None, *, but: str, ago_s: float = 0.0) -> list[str]:
        """Return the addresses of the nodes that do not follow a stage of a trial, None: its end; as `behind`."""
        with self._store.read() as connection:
            found = connection.execute(_statements(connection.dialect.name).live, _asked(but, ago_s))
            return [row.address for row in found if row.trials.get(trial) != stage]

    def beat(self, connection: Connection, row: Row) -> None:
        """Write the row of a node, in a transaction of Store.beat."""
        connection.execute(_statements(connection.dialect.name).beat, row._asdict())

    def forget(self, connection: Connection, row: Row) -> None:
        """Remove the rows of nodes that have not been seen for long, and of those that had this node's address."""
        connection.execute(_statements(connection.dialect.name).forget, {"own": row.id, "at": row.address})

    def leave(self, connection: Connection, node: str) -> None:
        """Remove the row of a node."""
        connection.execute(delete(nodes).where(nodes.c.id == node))


class _Statements(NamedTuple):
    """The statements for one kind of database, built once: to build one takes longer than to execute it."""

    all: Any
    live: Any
    beat: Any
    forget: Any


@cache
def _statements(dialect: str) -> _Statements:
    clock = CLOCKS[dialect]
    silent_s = (clock - nodes.c.seen_at).label("silent_s")
    silent, forgotten = _older(clock, LIVE_S), _older(clock, FORGOTTEN_S)
    replaced = and_(nodes.c.address == bindparam("at"), nodes.c.id != bindparam("own"), silent)
    own: dict[str, Any] = {name: bindparam(name) for name in Row._fields}
    insert = insert_of(dialect)(nodes).values(**own, seen_at=clock, started_at=clock)
    changed = {name: insert.excluded[name] for name in (*own, "seen_at")}
    return _Statements(
        all=select(nodes, silent_s).where(~forgotten).order_by(nodes.c.started_at, nodes.c.id),
        live=select(nodes.c.address, nodes.c.loaded, nodes.c.trials)
        .where(nodes.c.state == "serving", nodes.c.id != bindparam("but"), ~_older(clock, bindparam("limit_s")))
        .order_by(nodes.c.address),
        beat=insert.on_conflict_do_update(index_elements=["id"], set_=changed),
        forget=delete(nodes).where(or_(replaced, forgotten)),
    )


def _asked(but: str, ago_s: float) -> dict[str, Any]:
    """Return the parameters of the statement `live`."""
    return {"but": but, "limit_s": LIVE_S + ago_s}


def _older(clock: ColumnElement[float], limit_s: float | ColumnElement[float]) -> ColumnElement[bool]:
    """Whether a row was not written within that time. One from the future was: the clock has been set back since."""
    return or_(nodes.c.seen_at < clock - limit_s, nodes.c.seen_at > clock + limit_s)


def _node(row: Mapping[Any, Any]) -> Node:
    silent = abs(row["silent_s"]) > LIVE_S
    return Node(**{**row, "state": "silent" if silent else row["state"]})
