"""Registry of versions and promotions: add, live, promote, roll back, history. Both tables are append-only,
but the row of a pruned version says so.

The live version follows from replaying the promotions: promote pushes a version on a stack, rollback pops it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, Select, func, select

from models.checkpoints.record import Record
from models.errors import UnwritableCopy
from service.delivery.trial_rows import abort_open
from service.errors import Conflict, Invalid, NotFound, PreconditionFailed, StoreUnavailable
from service.store.database import Store
from service.store.feed import append
from service.store.tables import promotions, versions


@dataclass(frozen=True, slots=True, kw_only=True)
class Version:
    """A registered checkpoint. `path` is relative to the store folder; `job` is None for uploads and shipped files."""

    model: str
    version: int
    created_at: float
    job: str | None
    path: str
    record: Mapping[str, Any]
    pruned_at: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Promotion:
    """One row of the history: `version` was live from `at` on."""

    id: int
    model: str
    version: int
    action: str
    at: float
    by: str
    reason: str
    idempotency_key: str | None = None


class Registry:
    """The two tables. Methods with a connection take part in the caller's transaction."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def path(self, version: Version) -> Path:
        """Return the path of the version's checkpoint; with an object store, a copy may be there."""
        return self._store.folder / version.path

    def fetched(self, version: Version) -> Path:
        """Return the path of the version's checkpoint, where it is by then, with the files of its artifacts beside it.

        Raises CheckpointError if the object store has none, or a damaged one, and StoreUnavailable.
        """
        path, storage = self.path(version), self._store.storage
        if storage.copies is None:
            return path
        try:
            return storage.fetch_checkpoint(path, Record(**version.record))
        except UnwritableCopy as err:
            raise StoreUnavailable(str(err)) from err

    def add(
        self,
        connection: Connection,
        model: str,
        path: Path,
        record: Record,
        *,
        job: str | None,
        now: float,
    ) -> int:
        """Register the checkpoint at `path`, which must be in the store folder, under the next number."""
        top = connection.scalar(select(func.max(versions.c.version)).where(versions.c.model == model)) or 0
        connection.execute(
            versions.insert().values(
                model=model,
                version=top + 1,
                created_at=now,
                job=job,
                path=path.relative_to(self._store.folder).as_posix(),
                record=asdict(record),
            ),
        )
        append(connection, "version.registered", model, now, {"version": top + 1, "job": job})
        return int(top) + 1

    def count(self, connection: Connection, model: str) -> int:
        """Return how many versions a model has or had, in this transaction."""
        query = select(func.count()).select_from(versions).where(versions.c.model == model)
        return connection.scalar(query) or 0

    def versions(self, model: str, *, before: int | None = None, limit: int | None = None) -> Sequence[Version]:
        """Return the versions of a model that are not pruned, oldest first: all, or the newest `limit` of those older
        than `before`.
        """
        query = select(versions).where(versions.c.model == model, versions.c.pruned_at.is_(None))
        query = query.order_by(versions.c.version.desc()).limit(limit)
        query = query.where(versions.c.version < before) if before is not None else query
        with self._store.read() as connection:
            return [Version(**row) for row in connection.execute(query).mappings()][::-1]

    def version(self, model: str, number: int) -> Version:
        """Return one version. Raises NotFound, also if it is pruned or the number is out of the database's range."""
        with self._store.read() as connection:
            return self.required(connection, model, number)

    def required(self, connection: Connection, model: str, number: int) -> Version:
        """Return one version in this transaction. Raises NotFound as `version` does."""
        query = select(versions).where(versions.c.model == model, versions.c.version == number)
        row = connection.execute(query).mappings().one_or_none() if 0 < number < 2**31 else None
        if row is None:
            raise NotFound(f"{model} has no version {number}; GET /models/{model}/versions lists them")
        _require_files(model, number, row["pruned_at"])
        return Version(**row)

    def live(self) -> Mapping[str, int]:
        """Return the live version of every model that has one."""
        return self.live_with_last()[1]

    def live_with_last(self) -> tuple[int, Mapping[str, int]]:
        """Return the id of the last promotion, 0 if there is none, and the live version of every model that has one."""
        age = func.row_number().over(partition_by=promotions.c.model, order_by=promotions.c.id.desc()).label("age")
        found = select(promotions.c.id, promotions.c.model, promotions.c.version, age).subquery()
        with self._store.read() as connection:
            rows = connection.execute(select(found).where(found.c.age == 1)).all()
        return max((row.id for row in rows), default=0), {row.model: row.version for row in rows}

    def promoted_from(self, promotion: int) -> Sequence[Promotion]:
        """Return the promotion with that id, if it is there, and all later ones, in order."""
        query = select(promotions).where(promotions.c.id >= promotion).order_by(promotions.c.id)
        with self._store.read() as connection:
            return [Promotion(**row) for row in connection.execute(query).mappings()]

    def live_version(self, model: str) -> int | None:
        """Return the live version of `model`."""
        with self._store.read() as connection:
            return self.live_of(connection, model)

    def live_of(self, connection: Connection, model: str) -> int | None:
        """Return the live version of `model` in this transaction."""
        stack = self.stack(connection, model)
        return stack[-1] if stack else None

    def stack(self, connection: Connection, model: str) -> list[int]:
        """Return the versions that rollbacks could make live, one after the other; the last one is live."""
        return _replay(_rows(connection, model))

    def promoted(self, connection: Connection, model: str) -> set[int]:
        """Return the versions that have ever been live."""
        return {row.version for row in _rows(connection, model)}

    def promote(
        self,
        connection: Connection,
        model: str,
        version: int,
        *,
        by: str,
        reason: str,
        now: float,
    ) -> int | None:
        """Make `version` live and return the previous one. Promoting the live version adds no row.

        Aborts the model's open trial, whose live version would not be live any more. Raises NotFound if it is pruned.
        """
        found = versions.c.model == model, versions.c.version == version
        _require_files(model, version, connection.scalar(select(versions.c.pruned_at).where(*found)))
        previous = self.live_of(connection, model)
        if previous != version:
            abort_open(connection, model, by=by, reason=f"version {version} was promoted: {reason}", now=now)
            _append(connection, model=model, version=version, action="promote", at=now, by=by, reason=reason)
        return previous

    def expect_live(self, connection: Connection, model: str, expected: int | None) -> None:
        """Raise PreconditionFailed if another version than `expected` is live; None expects nothing."""
        live = None if expected is None else self.live_of(connection, model)
        if live != expected:
            raise PreconditionFailed(f"version {live} of {model} is live, not {expected}: nothing was changed")

    def rollback_target(self, model: str) -> int:
        """Return the version that a rollback would make live. Raises Conflict if there is none."""
        with self._store.read() as connection:
            return _below_top(model, _replay(_rows(connection, model)))

    def rollback(
        self, connection: Connection, model: str, *, by: str, reason: str, now: float, key: str | None = None
    ) -> tuple[int, int]:
        """Make the previous version live again, and abort the model's open trial. Returns (now live, previous).

        Raises Conflict if there is none.
        """
        stack = _replay(_rows(connection, model))
        target = _below_top(model, stack)
        abort_open(connection, model, by=by, reason=f"version {target} was made live again: {reason}", now=now)
        values = {"model": model, "version": target, "action": "rollback", "at": now, "by": by, "reason": reason}
        _append(connection, **values, idempotency_key=key)
        return target, stack[-1]

    def rolled_back(self, connection: Connection, model: str, key: str | None) -> tuple[int, int] | None:
        """Return the outcome that the rollback with this idempotency key has returned; None if there is none.

        Raises Invalid if it was of another model.
        """
        first = None if key is None else connection.execute(_with_key(key)).one_or_none()
        if first is None:
            return None
        if first.model != model:
            raise Invalid(f"this Idempotency-Key was sent with a rollback of {first.model}: send a new key")
        return first.version, _replay([row for row in _rows(connection, model) if row.id < first.id])[-1]

    def history(self, model: str, at: float | None = None) -> Sequence[Promotion]:
        """Return the promotions of a model, oldest first; with `at`, those until that time."""
        with self._store.read() as connection:
            rows = _rows(connection, model)
        return [row for row in rows if at is None or row.at <= at]


def _require_files(model: str, number: int, pruned_at: float | None) -> None:
    """Raise NotFound if a version is pruned."""
    if pruned_at is not None:
        day = datetime.fromtimestamp(pruned_at, UTC).date()
        raise NotFound(
            f"version {number} of {model} was pruned on {day}: its files are removed; "
            f"GET /models/{model}/versions lists those that are left"
        )


def _with_key(key: str) -> Select[tuple[Any, ...]]:
    return select(promotions).where(promotions.c.idempotency_key == key)


def _rows(connection: Connection, model: str) -> Sequence[Promotion]:
    query = select(promotions).where(promotions.c.model == model).order_by(promotions.c.id)
    return [Promotion(**row) for row in connection.execute(query).mappings()]


def _replay(rows: Sequence[Promotion]) -> list[int]:
    """Return the stack of versions; the last one is live."""
    stack: list[int] = []
    for row in rows:
        if row.action == "rollback":
            stack.pop()
        else:
            stack.append(row.version)
    return stack


def _below_top(model: str, stack: Sequence[int]) -> int:
    if len(stack) < 2:
        raise Conflict(f"{model} has nothing to roll back to: promote a version first")
    return stack[-2]


def _append(connection: Connection, **values: Any) -> None:
    connection.execute(promotions.insert().values(**values))
    kind = {"promote": "version.promoted", "rollback": "version.rolled_back"}[values["action"]]
    told = {name: values[name] for name in ("version", "by", "reason")}
    append(connection, kind, values["model"], values["at"], told)
