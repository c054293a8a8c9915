"""Whether versions drift, as the feed says: an entry when a version begins to drift, and one when it does no more.

Every web process looks. The state changes in the transaction that reads the counts and adds the entry, and writers take
turns, so that each change is one entry, however many processes look, and whenever one of them ends.
"""

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, delete, select

from service.data.drift import Drift, Finding, judged, window_of
from service.data.drift_rows import MINUTE_S, minutes_between, reference_in
from service.errors import NotFound
from service.store.database import Store
from service.store.drift_tables import drift_states
from service.store.feed import append

log = logging.getLogger(__name__)
Key = tuple[str, int]  # model, version


@dataclass(frozen=True, slots=True)
class _Change:
    """A change of the state of a version; `row`: the table has it already."""

    kind: str
    row: bool
    until: int
    data: Mapping[str, Any]


class DriftStates:
    """The table. Methods raise StoreUnavailable."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def drifting(self) -> set[Key]:
        """Return the versions that drift, as the feed says."""
        query = select(drift_states.c.model, drift_states.c.version).where(drift_states.c.drifts.is_(True))
        with self._store.read() as connection:
            return {(row.model, row.version) for row in connection.execute(query)}

    def settle(self, key: Key, window_s: float, now: float) -> None:
        """Look whether a version has begun, or ceased, to drift in the last `window_s` seconds, and tell it."""
        with self._store.read() as connection:
            if _change(connection, key, window_s, now) is None:
                return
        with self._store.write() as connection:
            change = _change(connection, key, window_s, now)
            if change is not None:
                _apply(connection, key, change, now)
        if change is not None:
            fields = {"model": key[0], "version": key[1], "state": change.data["state"]}
            log.warning("drift has begun" if change.kind == "drift.begun" else "drift has ended", extra=fields)

    def tidy(self, now_minute: int, keep_minutes: int) -> None:
        """Remove the rows of versions that drift no more, after that time."""
        old = drift_states.c.drifts.is_(False), drift_states.c.until < now_minute - keep_minutes
        with self._store.write(durable=False) as connection:
            connection.execute(delete(drift_states).where(*old))


def _still_drifts(found: Drift) -> bool:
    """Whether a version that has begun to drift has not ceased: a smaller drift, or few samples, do not say so."""
    return found.state in {"drift", "suspected"} or (found.state == "too few samples" and found.counts.samples > 0)


def _change(connection: Connection, key: Key, window_s: float, now: float) -> _Change | None:
    model, version = key
    mine = drift_states.c.model == model, drift_states.c.version == version
    row = connection.execute(select(drift_states).where(*mine)).one_or_none()
    begin, end = window_of(window_s, now)
    drifts = row is not None and row.drifts
    if row is not None and row.until > end:
        return None
    try:
        reference = reference_in(connection, model, version)
    except (ValueError, NotFound):  # it was pruned
        found = None
    else:
        found = judged(reference, minutes_between(connection, model, version, begin, end), begin, end)
    if drifts == (found is not None and (_still_drifts(found) if drifts else found.state == "drift")):
        return None
    data = {"version": version, **_said(found, begin, end)}
    if row is not None and drifts:
        data["begun_at"] = row.changed_at
    return _Change("drift.ended" if drifts else "drift.begun", row is not None, end, data)


def _said(found: Drift | None, begin: int, end: int) -> dict[str, Any]:
    findings = [] if found is None else [_finding(one) for one in found.findings if one.has_drifted]
    return {
        "state": "no reference" if found is None else found.state,
        "samples": 0 if found is None else found.counts.samples,
        "features": findings,
        "since": begin * MINUTE_S,
        "until": end * MINUTE_S,
    }


def _finding(one: Finding) -> dict[str, Any]:
    return {
        "name": one.distribution.name,
        "kind": one.distribution.kind,
        "psi": round(one.psi, 4),
        "limit": round(one.limit, 4),
    }


def _apply(connection: Connection, key: Key, change: _Change, now: float) -> None:
    model, version = key
    values = {"drifts": change.kind == "drift.begun", "changed_at": now, "until": change.until}
    if change.row:
        mine = drift_states.c.model == model, drift_states.c.version == version
        connection.execute(drift_states.update().where(*mine).values(**values))
    else:
        connection.execute(drift_states.insert().values(model=model, version=version, **values))
    append(connection, change.kind, model, now, change.data)
