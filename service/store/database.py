"""The database: transactions and migrations. SQLite by default, PostgreSQL for several machines."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from alembic import command
from alembic.config import Config
from sqlalchemy import (
    Connection,
    Engine,
    create_engine,
    event,
    text,
)
from sqlalchemy.exc import DBAPIError, InterfaceError, OperationalError

from service.errors import StoreUnavailable
from service.store.url import locate

_FROZEN_MS = 3_000
_LOCK_MS = 15_000
_CUT_OFF = "25P03"  # SQLSTATE of a session that PostgreSQL ended for an idle transaction
_WRITER_LOCK = 0x746C6F6F70  # "tloop": the advisory lock that every writing transaction holds on PostgreSQL


class Store:
    """Transactions on one database, and the folder that its paths are relative to.

    Only one transaction writes at a time, on both databases: all are short, and rows that a transaction has read are
    unchanged when it writes. Raises SettingsError for a bad URL, StoreUnavailable if the database cannot be reached.
    """

    def __init__(self, folder: Path, url: str = "") -> None:
        self.folder = folder
        self._url = locate(url, folder)
        self._sqlite = self._url.get_backend_name() == "sqlite"
        self._engine = _sqlite_engine(self._url) if self._sqlite else _postgres_engine(self._url)

    @contextmanager
    def read(self) -> Iterator[Connection]:
        """Open a read-only transaction."""
        with _translated(), self._engine.connect() as connection, connection.begin():
            yield connection

    @contextmanager
    def write(self) -> Iterator[Connection]:
        """Open the single writing transaction; it commits at the end, or rolls back."""
        with _translated(), self._engine.connect().execution_options(writes=True) as connection, connection.begin():
            if not self._sqlite:
                connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": _WRITER_LOCK})
            yield connection

    def migrate(self) -> None:
        """Migrate the tables to the current schema. The first process does it; the others wait."""
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except OSError as err:
            raise StoreUnavailable(f"the store folder cannot be made ({err.strerror}): check TORCHLOOP_STORE") from err
        with self.write() as connection:
            config = Config()
            scripts = str(Path(__file__).parent / "migrations").replace("%", "%%")  # ConfigParser interpolates %
            config.set_main_option("script_location", scripts)
            config.attributes["connection"] = connection
            command.upgrade(config, "head")

    def close(self) -> None:
        """Close all connections."""
        self._engine.dispose()


@contextmanager
def _translated() -> Iterator[None]:
    try:
        yield
    except DBAPIError as err:
        away = isinstance(err, OperationalError | InterfaceError) or err.connection_invalidated
        if not away and getattr(err.orig, "sqlstate", None) != _CUT_OFF:
            raise
        raise StoreUnavailable("the database cannot be reached or written: it is tried again") from err


def _sqlite_engine(url: Any) -> Engine:
    """Return a SQLite engine in WAL mode: readers never wait. Transactions take the write lock at their start."""
    engine = create_engine(url, connect_args={"timeout": 30})

    @event.listens_for(engine, "connect")
    def _connected(connection: Any, _: Any) -> None:
        connection.isolation_level = None  # BEGIN is sent below, not by the driver
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("PRAGMA synchronous=NORMAL")

    @event.listens_for(engine, "begin")
    def _begun(connection: Connection) -> None:
        writes = connection.get_execution_options().get("writes", False)
        connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")

    return engine


def _postgres_engine(url: Any) -> Engine:
    """Return a PostgreSQL engine. The server ends a transaction that is idle for seconds, as it would block all
    writers.
    """
    options = f"-c idle_in_transaction_session_timeout={_FROZEN_MS} -c lock_timeout={_LOCK_MS}"
    arguments = {"connect_timeout": 3, "options": options}
    return create_engine(url, pool_pre_ping=True, pool_size=4, connect_args=arguments)
