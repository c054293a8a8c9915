"""The table of drift counts: a row for each version and minute, which all web processes add to."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from sqlalchemy import ColumnElement, Connection, and_, delete, select

from models.drift.reference import DriftCounts, DriftReference
from service.errors import NotFound
from service.store.database import Store
from service.store.tables import drift_counts, versions

MINUTE_S = 60
HOUR = 60  # minutes
DAY = 24 * HOUR
_AT_ONCE = 200  # rows in one writing transaction: the others wait for its end


@dataclass(frozen=True, slots=True, order=True)
class Place:
    """Where counts belong: a version, and a minute since 1970."""

    model: str
    version: int
    minute: int


class DriftRows:
    """Counts in the database, and the references in the records of versions. Raises StoreUnavailable."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def reference(self, model: str, version: int) -> DriftReference:
        """Return the reference of a version. Raises NotFound, and ValueError with the reason if it has none."""
        with self._store.read() as connection:
            return reference_in(connection, model, version)

    def add(self, counts: Mapping[Place, DriftCounts]) -> None:
        """Add counts to their minutes."""
        items = sorted(counts.items(), key=lambda item: item[0])
        for begin in range(0, len(items), _AT_ONCE):
            with self._store.write(durable=False) as connection:
                for place, more in items[begin : begin + _AT_ONCE]:
                    _add(connection, place, more)

    def between(self, model: str, version: int, begin: int, end: int) -> Sequence[tuple[int, DriftCounts]]:
        """Return the counts of minutes from `begin` until before `end`, in order."""
        with self._store.read() as connection:
            return minutes_between(connection, model, version, begin, end)

    def tidy(self, now_minute: int, keep_days: float) -> None:
        """Merge minutes that are more than a day old into hours, and remove rows older than `keep_days`."""
        oldest = now_minute - int(keep_days * DAY)
        with self._store.write(durable=False) as connection:
            connection.execute(delete(drift_counts).where(drift_counts.c.minute < oldest))
        while self._merge_some((now_minute - DAY) // HOUR * HOUR):
            pass

    def _merge_some(self, before: int) -> bool:
        """Merge some minutes into their hours. Returns whether there may be more."""
        late = and_(drift_counts.c.minute < before, drift_counts.c.minute % HOUR != 0)
        with self._store.write(durable=False) as connection:
            rows = connection.execute(select(drift_counts).where(late).limit(_AT_ONCE)).all()
            for row in rows:
                connection.execute(delete(drift_counts).where(_is(Place(row.model, row.version, row.minute))))
                hour = Place(row.model, row.version, row.minute // HOUR * HOUR)
                _add(connection, hour, DriftCounts.of_json(row.counts))
        return len(rows) == _AT_ONCE


def reference_in(connection: Connection, model: str, version: int) -> DriftReference:
    """Return the reference of a version. Raises NotFound, and ValueError with the reason if it has none."""
    query = select(versions.c.record, versions.c.pruned_at)
    row = connection.execute(query.where(versions.c.model == model, versions.c.version == version)).one_or_none()
    if row is None:
        raise NotFound(f"{model} has no version {version}; GET /models/{model}/versions lists them")
    if row.pruned_at is not None:
        raise ValueError("it was pruned")
    return DriftReference.of_json(row.record.get("drift") or {})


def minutes_between(
    connection: Connection, model: str, version: int, begin: int, end: int
) -> Sequence[tuple[int, DriftCounts]]:
    """Return the counts of minutes from `begin` until before `end`, in order."""
    minute = drift_counts.c.minute
    query = select(minute, drift_counts.c.counts).where(
        drift_counts.c.model == model, drift_counts.c.version == version, minute >= begin, minute < end
    )
    return [(row.minute, DriftCounts.of_json(row.counts)) for row in connection.execute(query.order_by(minute))]


def _is(place: Place) -> ColumnElement[bool]:
    found = drift_counts.c
    return and_(found.model == place.model, found.version == place.version, found.minute == place.minute)


def _add(connection: Connection, place: Place, more: DriftCounts) -> None:
    """Add to a row, or write it. Only one transaction writes at a time: see Store."""
    found = connection.scalar(select(drift_counts.c.counts).where(_is(place)))
    if found is None:
        values = {"model": place.model, "version": place.version, "minute": place.minute}
        connection.execute(drift_counts.insert().values(**values, counts=more.as_json()))
        return
    total = DriftCounts.of_json(found) + more
    connection.execute(drift_counts.update().where(_is(place)).values(counts=total.as_json()))
