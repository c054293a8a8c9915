"""Clock of the database: one for all machines, whose own clocks may differ."""

from collections.abc import Mapping

from sqlalchemy import ColumnElement, literal_column

CLOCKS: Mapping[str, ColumnElement[float]] = {
    "sqlite": literal_column("(julianday('now') - 2440587.5) * 86400.0"),
    "postgresql": literal_column("extract(epoch FROM clock_timestamp())::double precision"),
}
