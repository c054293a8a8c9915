"""Dialects of the databases, imported for the database in use: that of PostgreSQL takes 80 ms."""

from collections.abc import Mapping, Sequence
from importlib import import_module
from typing import Any

from sqlalchemy import Connection, Dialect, Table, bindparam


def insert_of(dialect: str) -> Any:
    """Return the function that makes INSERT statements with ON CONFLICT for a kind of database."""
    return import_module(f"sqlalchemy.dialects.{dialect}").insert


class Insertion:
    """An INSERT of rows, compiled once: SQLAlchemy would prepare each row again at each call.

    A whole group of `at_once` rows takes one statement. The driver of SQLite frees the interpreter's lock while it runs
    one, so that other threads interrupt a group once and not at each row.
    """

    def __init__(self, dialect: Dialect, table: Table, columns: Sequence[str], at_once: int) -> None:
        self._columns = [
            (column.name, column.type.dialect_impl(dialect).bind_processor(dialect))
            for column in table.c
            if column.name in columns
        ]
        self._at_once = at_once
        self._one, self._group = self._compiled(dialect, table, 1), self._compiled(dialect, table, at_once)

    def execute(self, connection: Connection, rows: Sequence[Mapping[str, Any]]) -> None:
        """Insert at most a group of rows, each with all the columns."""
        if len(rows) == self._at_once:
            statement, names = self._group
            connection.exec_driver_sql(statement, self._parameters(rows, names))
        else:
            statement, names = self._one
            connection.exec_driver_sql(statement, [self._parameters([row], names) for row in rows])

    def _compiled(self, dialect: Dialect, table: Table, count: int) -> tuple[str, Sequence[str] | None]:
        """Return the statement for `count` rows, and the names of its parameters; None if they are taken in order."""
        rows = [
            {name: bindparam(f"{name}_{number}", type_=table.c[name].type) for name, _ in self._columns}
            for number in range(count)
        ]
        compiled = table.insert().values(rows).compile(dialect=dialect)
        names = [parameter.key for row in rows for parameter in row.values()]
        assert compiled.positiontup in (None, names)
        return str(compiled), names if compiled.positiontup is None else None

    def _parameters(self, rows: Sequence[Mapping[str, Any]], names: Sequence[str] | None) -> Any:
        values = [
            row[name] if process is None else process(row[name]) for row in rows for name, process in self._columns
        ]
        return tuple(values) if names is None else dict(zip(names, values, strict=True))
