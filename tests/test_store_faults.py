"""Errors of the drivers are classified in one place, and a store that makes callers wait refuses the others at once."""

import errno
import logging
import sqlite3
from collections import Counter
from pathlib import Path

import psycopg
import pytest
from sqlalchemy import Engine, event, text
from sqlalchemy.exc import DBAPIError, SQLAlchemyError
from sqlalchemy.exc import TimeoutError as PoolTimeout

from service.errors import NotFound, StoreUnavailable
from service.store.database import Store
from service.store.faults import Condition, Kind, Part, classify
from service.store.postgres import NoAnswer
from tests.templates import migrated

STATES = sorted(
    {
        state
        for found in vars(psycopg.errors).values()
        if isinstance(found, type) and isinstance(state := getattr(found, "sqlstate", None), str)
    }
)
OF_THE_SERVER = ("08", "25006", "25P03", "40", "42501", "53", "55", "57", "58", "XX")
OF_THE_STATEMENT = ("21", "22", "23", "42", "0A")
RESULT_CODES = [name for name in dir(sqlite3) if name.startswith(("SQLITE_BUSY", "SQLITE_IOERR", "SQLITE_READONLY"))]


def wrapped(orig: BaseException, of: type[Exception]) -> SQLAlchemyError:
    found = DBAPIError.instance("SELECT 1", None, orig, of)
    assert isinstance(found, SQLAlchemyError)
    return found


def of_postgres(state: str) -> SQLAlchemyError:
    return wrapped(psycopg.errors.lookup(state)("the driver's words"), psycopg.Error)


def of_sqlite(name: str, kind: type[sqlite3.Error] = sqlite3.OperationalError) -> SQLAlchemyError:
    err = kind("the driver's words")
    err.sqlite_errorname = name
    return wrapped(err, sqlite3.Error)


@pytest.mark.parametrize("state", [state for state in STATES if state.startswith(OF_THE_SERVER)])
def test_every_fault_of_the_server_is_operational(state: str) -> None:
    fault = classify(of_postgres(state))
    assert fault is not None
    assert "driver" not in fault.detail


@pytest.mark.parametrize(
    "state", [state for state in STATES if state.startswith(OF_THE_STATEMENT) and state != "42501"]
)
def test_no_error_of_a_statement_or_its_data_is_operational(state: str) -> None:
    assert classify(of_postgres(state)) is None


@pytest.mark.parametrize("name", RESULT_CODES)
def test_every_fault_of_the_database_file_is_operational(name: str) -> None:
    assert classify(of_sqlite(name)) is not None


@pytest.mark.parametrize(
    ("err", "kind"),
    [
        (of_postgres("25006"), "read_only"),
        (of_postgres("53100"), "full"),
        (of_postgres("53300"), "connections"),
        (of_postgres("55P03"), "locked"),
        (of_postgres("57014"), "silent"),
        (of_postgres("57P01"), "unreachable"),
        (of_postgres("25P03"), "unreachable"),
        (of_postgres("XX001"), "damaged"),
        (of_postgres("42501"), "denied"),
        (wrapped(NoAnswer("x"), psycopg.Error), "silent"),
        (wrapped(psycopg.OperationalError("connection failed"), psycopg.Error), "unreachable"),
        (PoolTimeout("the pool is empty"), "connections"),
        (of_sqlite("SQLITE_FULL"), "full"),
        (of_sqlite("SQLITE_BUSY_SNAPSHOT"), "locked"),
        (of_sqlite("SQLITE_READONLY_DBMOVED"), "read_only"),
        (of_sqlite("SQLITE_CORRUPT", sqlite3.DatabaseError), "damaged"),
        (of_sqlite("SQLITE_NOTADB", sqlite3.DatabaseError), "damaged"),
        (of_sqlite("SQLITE_CANTOPEN"), "unreachable"),
        (of_sqlite("SQLITE_IOERR_WRITE"), "unreachable"),
    ],
)
def test_a_fault_has_its_kind(err: SQLAlchemyError, kind: Kind) -> None:
    fault = classify(err)
    assert fault is not None
    assert fault.kind == kind


class Clock:
    seconds = 0.0

    def __call__(self) -> float:
        return self.seconds


class Tried:
    """A condition with a clock set by hand, and counts of the accesses that were let through."""

    def __init__(self) -> None:
        self.clock = Clock()
        self.counted: Counter[str] = Counter()
        self.let_through = 0
        self.condition = Condition(lambda kind: self.counted.update([kind]), self.clock)

    def access(self, part: Part, err: Exception | None = None) -> None:
        with self.condition.watched(part):
            self.let_through += 1
            if err is not None:
                raise err


@pytest.mark.parametrize("part", ["reads", "writes"])
def test_while_the_database_is_silent_only_one_caller_at_a_time_waits(part: Part) -> None:
    tried, silent = Tried(), wrapped(NoAnswer("x"), psycopg.Error)
    for _ in range(100):
        for each in ("reads", "writes"):
            with pytest.raises(StoreUnavailable, match="does not answer"):
                tried.access(each if tried.let_through else part, silent)
    assert tried.let_through == 1
    tried.clock.seconds = 1.5
    with tried.condition.watched(part):
        for _ in range(100):
            with pytest.raises(StoreUnavailable, match="does not answer"):
                tried.access(part)
    tried.access(part)
    assert tried.let_through == 2
    assert part not in tried.condition.faults


def test_a_held_write_lock_refuses_writes_only() -> None:
    tried = Tried()
    with pytest.raises(StoreUnavailable):
        tried.access("writes", of_sqlite("SQLITE_BUSY"))
    with pytest.raises(StoreUnavailable, match="write lock"):
        tried.access("writes")
    tried.access("reads")
    assert tried.counted == {"locked": 2}


@pytest.mark.parametrize("kind", ["25006", "53100", "57P01"])
def test_faults_that_nobody_waits_for_let_every_caller_through(kind: str) -> None:
    tried = Tried()
    for _ in range(5):
        with pytest.raises(StoreUnavailable):
            tried.access("writes", of_postgres(kind))
    assert tried.let_through == sum(tried.counted.values()) == 5


def test_a_fault_is_logged_once_and_so_is_its_end(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    tried = Tried()
    for _ in range(3):
        with pytest.raises(StoreUnavailable):
            tried.access("writes", of_sqlite("SQLITE_FULL"))
    assert tried.condition.faults == {"writes": tried.condition.faults["writes"]}
    for _ in range(3):
        tried.access("writes")
    assert [record.getMessage() for record in caplog.records] == ["store unavailable", "store is back"]
    assert vars(caplog.records[0])["error"] == "the driver's words"
    assert tried.condition.faults == {}


def test_errors_of_the_caller_are_no_faults() -> None:
    tried = Tried()
    for err in (NotFound("x"), of_postgres("23505"), ZeroDivisionError(), OSError("in a transaction")):
        with pytest.raises(type(err)):
            tried.access("writes", err)
    assert tried.condition.faults == {}
    assert not tried.counted


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO, errno.EACCES, errno.ESTALE])
def test_every_error_of_the_store_folder_is_a_fault_of_files(number: int) -> None:
    tried = Tried()
    with pytest.raises(StoreUnavailable, match="store folder cannot be written") as raised:
        tried.access("files", OSError(number, "the reason", "/secret/path"))
    assert "/secret" not in raised.value.detail
    assert raised.value.headers == {"Retry-After": "2"}
    assert tried.counted == {"files": 1}
    assert set(tried.condition.faults) == {"files"}


def test_a_store_finds_out_that_it_can_be_written_again(store: Store) -> None:
    with pytest.raises(StoreUnavailable), store.files():
        raise OSError(errno.ENOSPC, "No space left on device")
    with pytest.raises(StoreUnavailable), store.write():
        raise of_sqlite("SQLITE_FULL")
    assert store.faults.keys() == {"files", "writes"}
    store.try_again()
    assert store.faults == {}
    assert not list(store.folder.glob(".*"))
    with store.read() as connection:
        assert connection.scalar(text("SELECT count(*) FROM alembic_version")) == 1


def test_a_full_database_stays_a_fault_until_there_is_room(tmp_path: Path) -> None:
    migrated(tmp_path)
    opened: list[sqlite3.Connection] = []

    def fill(connection: sqlite3.Connection, _: object) -> None:
        opened.append(connection)
        connection.execute("PRAGMA max_page_count=1")  # SQLite takes the present size instead

    event.listen(Engine, "connect", fill)
    full = Store(tmp_path)
    try:
        with pytest.raises(StoreUnavailable), full.write():
            raise of_sqlite("SQLITE_FULL")
        with pytest.raises(StoreUnavailable, match="full"):
            full.try_again()
        assert set(full.faults) == {"writes"}
        for connection in opened:
            connection.execute("PRAGMA max_page_count=1000000")
        full.try_again()
        assert full.faults == {}
    finally:
        event.remove(Engine, "connect", fill)
        full.close()


def test_a_folder_that_still_cannot_be_written_stays_a_fault(tmp_path: Path) -> None:
    counted: list[str] = []
    store = Store(tmp_path / "store", f"sqlite:///{tmp_path / 'elsewhere.db'}", counted.append)
    store.migrate()
    store.folder.rmdir()
    store.folder.write_text("a file where a folder should be")
    with pytest.raises(StoreUnavailable), store.files():
        raise OSError(errno.ENOSPC, "No space left on device")
    with pytest.raises(StoreUnavailable):
        store.try_again()
    assert set(store.faults) == {"files"}
    assert counted == ["files"], "a look counts as no failed write"
    store.close()
