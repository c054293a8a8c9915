"""Retention of captures by age, count and bytes, in small steps; the thread that writes captures takes them."""

from collections.abc import Sequence

from sqlalchemy import Connection, bindparam, delete, func, select, update

from service.data import capture_settings
from service.data.capture_settings import Kept
from service.data.erasure import emptied
from service.data.feedback import STATES
from service.data.turns import yield_to_requests
from service.store.database import Store
from service.store.tables import capture_uses, captures, feedback

DAY_S = 86_400.0
UNMATCHED_DAYS = 30.0  # that feedback waits for its capture, or stays known of an answer that was not captured
MOST_AT_ONCE = 200  # rows in one transaction
_OLDEST = (
    select(captures.c.number, captures.c.at, captures.c.bytes)
    .where(captures.c.model == bindparam("of"), captures.c.state == bindparam("in_state"))
    .order_by(captures.c.number)
    .limit(MOST_AT_ONCE)
)


class CaptureRetention:
    """Removes captures beyond the limits of the settings. Raises StoreUnavailable."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def step(self, now: float) -> int:
        """Remove at most 200 captures of each model. Returns how many; of fewer than that nothing is left to remove."""
        removed = 0
        with self._store.read() as connection:
            kept = capture_settings.read(connection)
            due = [model for model, one in kept.items() if _surplus(connection, model, one, now)]
            unmatched = bool(_unmatched(connection, now))
        for model in due:
            with self._store.write(durable=False) as connection:
                numbers = _surplus(connection, model, capture_settings.read_one(connection, model), now)
                remove(connection, model, numbers, now)
            removed += len(numbers)
        if unmatched:
            with self._store.write(durable=False) as connection:
                connection.execute(delete(feedback).where(feedback.c.number.in_(_unmatched(connection, now))))
        return removed


def remove(connection: Connection, model: str, numbers: Sequence[int], now: float) -> None:
    """Remove captures with their feedback. Those that a dataset has leave a tombstone: an erasure names the dataset."""
    mine = captures.c.number.in_(numbers)
    yield_to_requests()
    examples, size = connection.execute(select(func.count(), func.sum(captures.c.bytes)).where(mine)).one()
    used = set(connection.scalars(select(capture_uses.c.capture).where(capture_uses.c.capture.in_(numbers))))
    if used:
        emptied_row = {**emptied(), "key": captures.c.key}
        connection.execute(update(captures).where(captures.c.number.in_(used)).values(**emptied_row, pruned_at=now))
    gone = [number for number in numbers if number not in used]
    yield_to_requests()
    connection.execute(delete(feedback).where(feedback.c.capture.in_(gone)))
    yield_to_requests()
    connection.execute(delete(captures).where(captures.c.number.in_(gone)))
    capture_settings.count(connection, model, -examples, -int(size or 0))
    if numbers:
        capture_settings.note_removed(connection, model, max(numbers))


def _surplus(connection: Connection, model: str, kept: Kept, now: float) -> Sequence[int]:
    """Return the next captures to be removed: those that are too old, then the oldest above count or bytes."""
    yield_to_requests()
    settings, old = kept.settings, now - kept.settings.days * DAY_S
    too_many, too_large = kept.examples - settings.max_examples, kept.bytes - settings.max_bytes
    found: list[int] = []
    for state in STATES:  # the first to go first
        rows = connection.execute(_OLDEST, {"of": model, "in_state": state}).all()
        for row in rows:
            if row.at >= old and too_many <= 0 and too_large <= 0:
                break
            found.append(row.number)
            too_many, too_large = too_many - 1, too_large - row.bytes
        else:
            if len(rows) == MOST_AT_ONCE:  # there may be more of these: those of the next state are not due yet
                break
    return found


def _unmatched(connection: Connection, now: float) -> Sequence[int]:
    """Return the oldest entries of feedback that have found no capture for too long."""
    query = select(feedback.c.number).where(feedback.c.capture.is_(None), feedback.c.at < now - UNMATCHED_DAYS * DAY_S)
    return connection.scalars(query.limit(MOST_AT_ONCE)).all()
