"""Leadership: one process of all machines does a kind of work at a time (lease in the database, attempt as fence)."""

from sqlalchemy import Connection, Row, insert, select, update

from service.store.clock import CLOCKS
from service.store.database import Store
from service.store.tables import leaders

LEASE_S = 3.0  # without a renewal: another process may take the lead
_HOLDER = 64


class LeadershipLost(Exception):
    """Another process leads by now: write nothing."""


class Leadership:
    """The lease of one kind of work, as one process sees it. Methods raise StoreUnavailable."""

    def __init__(self, store: Store, work: str, holder: str) -> None:
        """`holder` is unique among all processes."""
        self._store = store
        self._work = work
        self._holder = holder[:_HOLDER]

    def lead(self) -> int | None:
        """Renew the lease, or take it if its holder was not seen for LEASE_S. Returns the fencing token; None: another
        process leads.
        """
        with self._store.read() as connection:
            if self._is_others(self._row(connection)):
                return None
        with self._store.write(durable=False) as connection:
            row, clock = self._row(connection), CLOCKS[connection.dialect.name]
            if self._is_others(row):
                return None
            values = {"holder": self._holder, "seen_at": clock}
            if row is None:
                connection.execute(insert(leaders).values(work=self._work, attempt=1, **values))
                return 1
            attempt: int = row.attempt + (row.holder != self._holder)
            connection.execute(update(leaders).where(leaders.c.work == self._work).values(attempt=attempt, **values))
            return attempt

    def require(self, connection: Connection, attempt: int) -> None:
        """Raise LeadershipLost in a writing transaction if another process has taken the lead since `attempt`."""
        row = self._row(connection)
        if row is None or (row.holder, row.attempt) != (self._holder, attempt):
            raise LeadershipLost(self._work)

    def resign(self) -> None:
        """Let another process take the lead at once."""
        own = leaders.c.work == self._work, leaders.c.holder == self._holder
        with self._store.write(durable=False) as connection:
            connection.execute(update(leaders).where(*own).values(seen_at=0.0))

    def _row(self, connection: Connection) -> Row[tuple[str, int, float]] | None:
        silent_s = (CLOCKS[connection.dialect.name] - leaders.c.seen_at).label("silent_s")
        query = select(leaders.c.holder, leaders.c.attempt, silent_s).where(leaders.c.work == self._work)
        return connection.execute(query).one_or_none()

    def _is_others(self, row: Row[tuple[str, int, float]] | None) -> bool:
        """Whether another process leads. A row from the future is old: the clock has been set back since."""
        return row is not None and row.holder != self._holder and abs(row.silent_s) <= LEASE_S
