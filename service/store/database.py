"""The database: transactions and migrations. SQLite by default, PostgreSQL for several machines."""

import logging
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path
from typing import Any

from sqlalchemy import URL, Connection, Engine, ExceptionContext, create_engine, event, inspect, text
from sqlalchemy.exc import SQLAlchemyError

from models.checkpoints.files import write_whole
from models.checkpoints.location import CACHE_BYTES, StoreLocation
from models.checkpoints.objects import ObjectsRefused
from models.checkpoints.storage import Storage
from models.errors import ObjectsUnavailable
from service.errors import StoreUnavailable
from service.settings import PREFIX, Settings, SettingsError
from service.store.faults import Condition, Part, classify
from service.store.url import locate

log = logging.getLogger(__name__)
_SQLITE_LOCK_S = 8
_MIGRATIONS = Path(__file__).parent / "migrations"
_WRITER_LOCK = 0x746C6F6F70  # "tloop": the advisory lock that every writing transaction holds on PostgreSQL
_LOCK = text("SELECT pg_advisory_xact_lock(:key)")
_LOCK_NOT_DURABLE = text("SELECT set_config('synchronous_commit', 'off', true), pg_advisory_xact_lock(:key)")


class Store:
    """Transactions on one database, and the files that it names: their `storage`, and the folder of their paths.

    Only one transaction writes at a time, on both databases: all are short, and rows that a transaction has read are
    unchanged when it writes. Raises SettingsError for a bad URL, of the database or of the object store, and
    StoreUnavailable if the database cannot be reached.
    """

    def __init__(
        self,
        folder: Path,
        url: str = "",
        on_failed_write: Callable[[str], None] = lambda _: None,
        *,
        artifacts: str = "",
        cache_bytes: int = CACHE_BYTES,
    ) -> None:
        """`on_failed_write` is called, in any thread, with the kind of fault of each write that failed.

        `artifacts` and `cache_bytes` are the settings of that name.
        """
        self._condition = Condition(on_failed_write)
        self._probed = False
        self._refusal = ""  # why the object store cannot be used, whether it can be reached or not
        self.storage = self._storage(folder, artifacts, cache_bytes)
        self.folder = self.storage.root
        self._database_folder = folder
        self._url = locate(url, folder)
        self._sqlite = self._url.get_backend_name() == "sqlite"
        self._engine = _sqlite_engine(self._url) if self._sqlite else _postgres_engine(self._url)
        event.listen(self._engine, "handle_error", _reopen_if_read_only)

    @classmethod
    def of(cls, settings: Settings, on_failed_write: Callable[[str], None] = lambda _: None) -> "Store":
        """Open the store of the settings."""
        artifacts, cache_bytes = settings.artifacts, settings.cache_bytes
        return cls(settings.store, settings.database_url, on_failed_write, artifacts=artifacts, cache_bytes=cache_bytes)

    @property
    def faults(self) -> Mapping[Part, str]:
        """Return which parts of the store do not work at the moment, and why."""
        return self._condition.faults

    @contextmanager
    def read(self) -> Iterator[Connection]:
        """Open a read-only transaction."""
        with self._condition.watched("reads"), self._engine.connect() as connection, connection.begin():
            yield connection

    @contextmanager
    def write(self, *, patient: bool = False, counts: bool = True, durable: bool = True) -> Iterator[Connection]:
        """Open the single writing transaction; it commits at the end, or rolls back.

        `patient`: without time limits on PostgreSQL, for migrations. Not `durable`: PostgreSQL may lose the transaction
        if it crashes within the next half second, and the other writers do not wait until it is on disk.
        """
        with self._condition.watched("writes", counts=counts), self._writing() as connection, connection.begin():
            if not self._sqlite:
                with _without_limits(connection, patient=patient):
                    connection.execute(_LOCK if durable else _LOCK_NOT_DURABLE, {"key": _WRITER_LOCK})
                    yield connection
            else:
                yield connection

    @contextmanager
    def beat(self, key: int) -> Iterator[Connection]:
        """Open a transaction for a row that only its owner writes, whose processes take turns by `key` (63 bits).

        On PostgreSQL it takes no turn with other writers and does not wait for the disk: the row is written again in a
        second. Its outcome says nothing about the condition of the store, because a full disk still has room for it.
        """
        try:
            with self._writing() as connection, connection.begin():
                if not self._sqlite:
                    connection.execute(_LOCK_NOT_DURABLE, {"key": key})
                yield connection
        except SQLAlchemyError as err:
            fault = classify(err)
            if fault is None:
                raise
            raise StoreUnavailable(fault.detail) from err

    def files(self) -> AbstractContextManager[None]:
        """Watch writes to the store folder: OSError becomes StoreUnavailable, which is noted as a fault."""
        return self._condition.watched("files")

    def probe(self) -> None:
        """Require of the object store, if there is one, that it can be used: see Objects.probe.

        Raises SettingsError if not; then, and if it cannot be reached, it is noted as a fault.
        """
        if self.storage.copies is not None:
            with suppress(ObjectsUnavailable):
                try:
                    self.storage.copies.objects.probe()
                    self._probed = True
                except ObjectsRefused as err:
                    self._refusal = str(err)
                    with suppress(ObjectsUnavailable), self._objects():
                        pass  # noted as a fault
                    raise SettingsError(f"{PREFIX}ARTIFACTS: {err}") from err

    def rewrite(self) -> None:
        """Have SQLite write its file again (VACUUM): pages keep old copies of rows that were moved between them.

        Writers wait meanwhile. Raises StoreUnavailable.
        """
        if self._sqlite:
            with self._condition.watched("writes", counts=False), self._bare() as connection:
                connection.exec_driver_sql("VACUUM")

    def empty_log(self) -> bool:
        """Have SQLite move its log into its file, and empty it: until then, the log has deleted rows.

        Returns whether it is done; not if somebody reads or writes meanwhile. Raises StoreUnavailable.
        """
        if not self._sqlite:
            return True
        with self._condition.watched("writes", counts=False), self._bare() as connection:
            busy: int = connection.exec_driver_sql("PRAGMA wal_checkpoint(TRUNCATE)").first()[0]  # type: ignore[index]
        return not busy

    def try_again(self) -> None:
        """Write something to each part that failed to be written, to find out whether it works again.

        Raises StoreUnavailable if it does not.
        """
        if "writes" in self.faults:
            with self.write(counts=False) as connection:
                connection.execute(text("UPDATE alembic_version SET version_num = version_num"))
                if self._sqlite:
                    _take_room(connection)
        if "files" in self.faults:
            with self._condition.watched("files", counts=False):
                path = self.folder / ".probe"
                write_whole(b"written to find out whether the folder is writable", path)
                path.unlink(missing_ok=True)

    def try_objects_again(self) -> None:
        """Find out whether an object store that was away is back, and can be used. May take as long as its silence.

        Raises StoreUnavailable if not.
        """
        if self.storage.copies is None or "objects" not in self.faults:
            return
        self.storage.copies.objects.exists("probes/none")
        try:
            if not self._probed:
                self.probe()
        except SettingsError as err:
            raise StoreUnavailable(str(err)) from err

    def migrate(self) -> str | None:
        """Migrate the tables to the current schema. The first process does it; the others wait.

        Returns the revision that they had; None if there were none. Raises StoreUnavailable, also if they are of a
        later release.
        """
        try:
            for folder in {self._database_folder, self.folder}:
                folder.mkdir(parents=True, exist_ok=True)
        except OSError as err:
            raise StoreUnavailable(f"the store folder cannot be made ({err.strerror}): check TORCHLOOP_STORE") from err
        with self.write(patient=True) as connection:
            found, newest = _revision(connection), newest_revision()
            if found is not None and found > newest:
                raise StoreUnavailable(
                    f"the tables are of a later release (revision {found}, this one knows {newest}): start that "
                    "release, or restore a backup that was made before it"
                )
            if found != newest:
                _upgrade(connection)
        if found not in {None, newest}:
            log.info("database migrated", extra={"before": found, "revision": newest})
        return found

    def require_schema(self) -> None:
        """Raise StoreUnavailable if the tables are not there, or of another release. Changes nothing."""
        if self._sqlite and not Path(str(self._url.database)).exists():  # SQLite would create it
            raise StoreUnavailable(
                "there is no database in the store folder: check TORCHLOOP_STORE and TORCHLOOP_DATABASE_URL"
            )
        with self.read() as connection:
            found = _revision(connection)
        if found is None:
            raise StoreUnavailable("the database has no tables of Torchloop: check TORCHLOOP_DATABASE_URL")
        if found != newest_revision():
            raise StoreUnavailable(
                "the tables are of another release: start the service or a worker of this one, which migrates them"
            )

    def close(self) -> None:
        """Close all connections: idle ones now, those in use when they are returned."""
        event.listen(self._engine, "checkin", _close_returned)
        self._engine.dispose()

    def _storage(self, folder: Path, artifacts: str, cache_bytes: int) -> Storage:
        """Open the files. Raises SettingsError."""
        if "://" not in artifacts:
            return Storage(Path(artifacts) if artifacts else folder)
        try:
            location = StoreLocation(folder, artifacts, cache_bytes)
            return Storage.at(location, self._objects)
        except ObjectsRefused as err:
            raise SettingsError(f"{PREFIX}ARTIFACTS: {err}") from err

    @contextmanager
    def _objects(self) -> Iterator[None]:
        """Watch an access to the object store. Raises ObjectsAway."""
        with self._condition.watched("objects", counts=False):
            if self._refusal:
                raise ObjectsUnavailable(self._refusal)
            yield

    def _bare(self) -> Connection:
        """Open a connection without a transaction."""
        return self._engine.connect().execution_options(bare=True)

    def _writing(self) -> Connection:
        return self._engine.connect().execution_options(writes=True)


def _close_returned(connection: Any, _: object) -> None:
    """Close a connection that a thread returns after Store.close: no pool would do it."""
    if connection is not None:
        connection.close()


def newest_revision() -> str:
    """Return the revision of the newest migration, from its file's name: 0008 of s0008_pruned.py."""
    return max(path.name.partition("_")[0] for path in (_MIGRATIONS / "versions").glob("s*.py")).removeprefix("s")


def _revision(connection: Connection) -> str | None:
    """Return the revision of the tables; None without tables."""
    if not inspect(connection).has_table("alembic_version"):
        return None
    found: str | None = connection.execute(text("SELECT version_num FROM alembic_version")).scalar()
    return found


def _upgrade(connection: Connection) -> None:
    """Run the migrations that are missing."""
    from alembic import command  # noqa: PLC0415 - 0.1 s, at the first start of a release only
    from alembic.config import Config  # noqa: PLC0415

    config = Config()
    config.set_main_option("script_location", str(_MIGRATIONS).replace("%", "%%"))  # ConfigParser interpolates %
    config.attributes["connection"] = connection
    command.upgrade(config, "head")


def _reopen_if_read_only(context: ExceptionContext) -> None:
    """Have the pool replace its connections: after a fail-over the address leads to another server."""
    fault = None if context.sqlalchemy_exception is None else classify(context.sqlalchemy_exception)
    if fault is not None and fault.kind == "read_only":
        context.is_disconnect = True


@contextmanager
def _without_limits(connection: Connection, *, patient: bool) -> Iterator[None]:
    """If `patient`, lift the limits of this transaction on the wait for a lock and for an answer."""
    from service.store.postgres import Limited  # noqa: PLC0415 - see _postgres_engine

    driver = connection.connection.driver_connection
    assert isinstance(driver, Limited)
    limit_s = driver.silent_s
    if patient:
        driver.silent_s = None
        connection.execute(text("SET LOCAL lock_timeout = 0"))
    try:
        yield
    finally:
        driver.silent_s = limit_s


def _take_room(connection: Connection) -> None:
    """Take new pages of a SQLite file and free them again: a full one still accepts an update in place."""
    connection.execute(text("CREATE TABLE probe (content BLOB)"))
    connection.execute(text("INSERT INTO probe VALUES (zeroblob(65536))"))
    connection.execute(text("DROP TABLE probe"))


def _postgres_engine(url: URL) -> Engine:
    from service.store.postgres import postgres_engine  # noqa: PLC0415 - 0.1 s for the driver, which SQLite does not need

    return postgres_engine(url)


def _sqlite_engine(url: URL) -> Engine:
    """Return a SQLite engine in WAL mode: readers never wait. Transactions take the write lock at their start.

    Errors leave out the parameters of their statement: these may be what somebody sent, which belongs in no log.
    """
    engine = create_engine(url, connect_args={"timeout": _SQLITE_LOCK_S}, hide_parameters=True)

    @event.listens_for(engine, "connect")
    def _connected(connection: Any, _: Any) -> None:
        connection.isolation_level = None  # BEGIN is sent below, not by the driver
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("PRAGMA synchronous=NORMAL")
        connection.execute("PRAGMA secure_delete=ON")  # deleted rows are overwritten: see data/erasure.py

    @event.listens_for(engine, "begin")
    def _begun(connection: Connection) -> None:
        options = connection.get_execution_options()
        if not options.get("bare", False):
            connection.exec_driver_sql("BEGIN IMMEDIATE" if options.get("writes", False) else "BEGIN")

    return engine
