"""Dialects of the databases, imported for the database in use: that of PostgreSQL takes 80 ms."""

from importlib import import_module
from typing import Any


def insert_of(dialect: str) -> Any:
    """Return the function that makes INSERT statements with ON CONFLICT for a kind of database."""
    return import_module(f"sqlalchemy.dialects.{dialect}").insert
