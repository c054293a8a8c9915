"""Erasure of captures for good: contents are overwritten, and datasets and versions made from them are named.

The rows stay as tombstones, without content and key. The answers that trials have noted of these predictions go. SQLite
overwrites what is deleted (secure_delete), but not the old copies of rows that it has moved between pages: the file is
rewritten afterwards, and the log emptied. On PostgreSQL the space is free after a vacuum; the log archive and backups
keep the content.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from sqlalchemy import ColumnElement, Connection, and_, delete, func, null, or_, select, update

from service.data import capture_settings
from service.data.datasets import AT_WORK, Datasets
from service.data.erasures import key_digest
from service.store.database import Store
from service.store.tables import (
    capture_erasures,
    capture_uses,
    captures,
    datasets,
    feedback,
    jobs,
    trial_differences,
    trials,
)
from service.telemetry.ids import least_from

_AT_ONCE = 200  # rows in one transaction
_REMEMBERED_S = 86_400.0  # a capture may wait for that long to be written
_SCRUB_S = 60.0  # after which a process tries again that another one has begun


@dataclass(frozen=True, slots=True, kw_only=True)
class Which:
    """Captures to erase: those of a prediction, with a key, or of requests that began before a time."""

    id: str | None = None
    key: str | None = None
    until: float | None = None

    def conditions(self, model: str) -> list[ColumnElement[bool]]:
        """Return the conditions on the captures that are not erased yet."""
        chosen = [captures.c.model == model, captures.c.erased_at.is_(None)]
        if self.id is not None:
            chosen.append(captures.c.id == self.id)
        if self.key is not None:
            chosen.append(captures.c.key == self.key)
        if self.until is not None:
            chosen.append(captures.c.at < self.until)
        return chosen


@dataclass(slots=True)
class Erased:
    """How many captured samples were erased, the datasets that know them, and the versions trained on these.

    A dataset version is name@version; one that is being made is its name alone.
    """

    erased: int = 0
    in_datasets: list[str] = field(default_factory=list)
    trained: list[int] = field(default_factory=list)


class Erasure:
    """Erases captures of a store."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._datasets = Datasets(store)
        self._rewritten: Sequence[int] = ()  # erasures since which the file was rewritten, but the log not emptied
        self._begun_at = 0.0  # as the rows of these say

    def erase(self, model: str, which: Which, now: float) -> Erased:
        """Erase captures, in transactions of some hundred rows; those on their way are not written any more.

        Raises StoreUnavailable; a repeat then does the rest.
        """
        done, names = Erased(), set[str]()
        with self._store.write() as connection:
            key = None if which.key is None else key_digest(which.key)
            note = {"model": model, "id": which.id, "key": key, "until": which.until, "at": now}
            connection.execute(capture_erasures.insert().values(note))
            _forget_waiting(connection, model, which)
            _forget_differences(connection, model, which)
        numbers: Sequence[int] = [0]
        while numbers:
            with self._store.write() as connection:
                query = select(captures.c.number).where(*which.conditions(model)).order_by(captures.c.number)
                numbers = connection.scalars(query.limit(_AT_ONCE)).all()
                names |= _users(connection, numbers)
                _erase(connection, model, numbers, now)
            done.erased += len(numbers)
        with self._store.read() as connection:
            done.in_datasets = sorted(_with_descendants(connection, model, names))
        trained = self._datasets.trained(model)
        done.trained = sorted({version for name in done.in_datasets for version in trained.get(name, ())})
        return done

    def scrub(self, now: float) -> bool:
        """Rewrite the database's file if there were erasures since it was last done, by any process; empty its log.

        If this process ends in between, another one begins again. Returns whether nothing is left to be done. Raises
        StoreUnavailable.
        """
        table = capture_erasures
        if not self._rewritten:
            late = or_(table.c.scrub_begun_at.is_(None), table.c.scrub_begun_at < now - _SCRUB_S)
            due = select(table.c.number).where(table.c.scrubbed.is_(False), late)
            old = select(table.c.number).where(table.c.scrubbed.is_(True), table.c.at < now - _REMEMBERED_S)
            with self._store.read() as connection:
                is_due = connection.scalar(due.limit(1)) is not None
                is_old = connection.scalar(old.limit(1)) is not None
            if is_old:
                with self._store.write() as connection:
                    connection.execute(delete(table).where(table.c.number.in_(old)))
            if not is_due:
                return True
            with self._store.write() as connection:
                numbers = connection.scalars(due).all()
                self._begin(connection, numbers, now)
            if not numbers:
                return True
            self._store.rewrite()
            self._rewritten = numbers
        is_empty = self._store.empty_log()
        if is_empty or now - self._begun_at > _SCRUB_S / 2:
            with self._store.write() as connection:
                if is_empty:
                    connection.execute(update(table).where(table.c.number.in_(self._rewritten)).values(scrubbed=True))
                    self._rewritten = ()
                else:
                    self._begin(connection, self._rewritten, now)
        return is_empty

    def _begin(self, connection: Connection, numbers: Sequence[int], now: float) -> None:
        """Keep other processes from rewriting the file for these erasures, too."""
        connection.execute(
            update(capture_erasures).where(capture_erasures.c.number.in_(numbers)).values(scrub_begun_at=now)
        )
        self._begun_at = now


def emptied() -> dict[str, object]:
    """Return the columns of a capture that lose their content."""
    nothing = dict.fromkeys(("answer", "content", "original", "said", "key", "probability"), null())
    return {**nothing, "bytes": 0, "state": "gone", "media_type": ""}


def _erase(connection: Connection, model: str, numbers: Sequence[int], now: float) -> None:
    """Empty captures, and the feedback about them."""
    mine = captures.c.number.in_(numbers)
    held = select(func.count(), func.coalesce(func.sum(captures.c.bytes), 0)).where(mine, captures.c.state != "gone")
    examples, size = connection.execute(held).one()
    connection.execute(update(captures).where(mine).values(erased_at=now, **emptied()))
    connection.execute(update(feedback).where(feedback.c.capture.in_(numbers)).values(truth=null(), key=null(), by=""))
    capture_settings.count(connection, model, -examples, -int(size))


def _forget_waiting(connection: Connection, model: str, which: Which) -> None:
    """Remove feedback that waits for captures which are not written any more."""
    waiting = feedback.c.model == model, feedback.c.capture.is_(None)
    if which.id is not None:
        connection.execute(delete(feedback).where(*waiting, feedback.c.id == which.id))
    if which.key is not None:
        connection.execute(delete(feedback).where(*waiting, feedback.c.key == which.key))
    if which.until is not None:
        by_key = and_(feedback.c.id.is_(None), feedback.c.at < which.until)
        connection.execute(delete(feedback).where(*waiting, or_(feedback.c.id < least_from(which.until), by_key)))


def _forget_differences(connection: Connection, model: str, which: Which) -> None:
    """Remove the answers of predictions that trials have noted: of those that are captured, or are known by the id."""
    table = trial_differences.c
    chosen: list[ColumnElement[bool]] = [table.prediction.in_(select(captures.c.id).where(*which.conditions(model)))]
    if which.id is not None:
        chosen.append(table.prediction == which.id)
    if which.until is not None:
        chosen.append(table.prediction < least_from(which.until))
    mine = table.trial.in_(select(trials.c.id).where(trials.c.model == model))
    connection.execute(delete(trial_differences).where(mine, or_(*chosen)))


def _users(connection: Connection, numbers: Iterable[int]) -> set[str]:
    """Return the datasets that jobs have made, or make, of captures."""
    used = select(jobs.c.dataset).join(capture_uses, capture_uses.c.job == jobs.c.id)
    query = used.where(capture_uses.c.capture.in_(numbers), jobs.c.dataset.is_not(None)).distinct()
    lives = or_(jobs.c.state.in_(AT_WORK), jobs.c.dataset_sha256.is_not(None))
    return set(connection.scalars(query.where(lives)))


def _with_descendants(connection: Connection, model: str, names: set[str]) -> set[str]:
    """Return dataset versions, and those that have grown from them: they have the same rows."""
    columns = datasets.c.name, datasets.c.version, datasets.c.parent, datasets.c.erased
    rows = connection.execute(select(*columns).where(datasets.c.model == model).order_by(datasets.c.version)).all()
    gone = {f"{row.name}@{row.version}" for row in rows if row.erased}
    kept = [row for row in rows if not row.erased]
    found, before = set(names), -1
    while len(found) > before:
        before = len(found)
        found |= {f"{row.name}@{row.version}" for row in kept if row.parent in found}
    return found - gone
