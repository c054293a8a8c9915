"""Retention of datasets: what their rows, and those of jobs, say about files in the store."""

from collections.abc import Sequence

from sqlalchemy import Connection, select

from service.data.datasets import AT_WORK, DatasetVersion, version_of
from service.store.tables import datasets, jobs


def models(connection: Connection) -> set[str]:
    """Return the models that have, or had, a dataset version."""
    return set(connection.scalars(select(datasets.c.model).distinct()))


def kept(connection: Connection, model: str) -> Sequence[DatasetVersion]:
    """Return the versions that have their files: those that are not erased, also deleted ones."""
    query = select(datasets).where(datasets.c.model == model, datasets.c.erased.is_(False))
    return [
        version_of(row) for row in connection.execute(query.order_by(datasets.c.name, datasets.c.version)).mappings()
    ]


def digests(connection: Connection, model: str) -> set[str]:
    """Return the digests of all versions, also of erased ones."""
    return set(connection.scalars(select(datasets.c.sha256).where(datasets.c.model == model)))


def sources(connection: Connection, model: str) -> set[str]:
    """Return the digests of all files that jobs were given, or versions were made of, also of erased ones."""
    made = connection.scalars(select(datasets.c.source).where(datasets.c.model == model))
    given = connection.scalars(select(jobs.c.ingest).where(jobs.c.model == model, jobs.c.kind == "ingest"))
    return {*made, *(parameters["source"] for parameters in given)}


def is_ingesting(connection: Connection, model: str) -> bool:
    """Return whether a job of the model is queued or running that may make a dataset version."""
    query = select(jobs.c.id).where(jobs.c.model == model, jobs.c.kind == "ingest", jobs.c.state.in_(AT_WORK))
    return connection.scalar(query.limit(1)) is not None


def pinned(connection: Connection, model: str) -> set[str]:
    """Return the digests of the dataset versions that queued and running jobs name."""
    query = select(jobs.c.dataset_sha256, jobs.c.ingest).where(jobs.c.model == model, jobs.c.state.in_(AT_WORK))
    rows = connection.execute(query).all()
    grown = {row.ingest["parent_sha256"] for row in rows if row.ingest}
    return ({row.dataset_sha256 for row in rows} | grown) - {None}
