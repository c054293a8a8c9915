"""Retention of versions: those that a rule prunes, and the files that versions need."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, delete, select, update

from models.checkpoints import artifact_files
from models.checkpoints.record import Record, record_path
from models.errors import CheckpointError
from service.delivery.registry import Registry, Version
from service.delivery.trial_rows import open_of
from service.store.feed import append
from service.store.tables import promotions, trial_counts, trial_differences, trial_keys, trials, versions


def models(connection: Connection) -> list[str]:
    """Return the models that have or had versions."""
    return sorted(connection.scalars(select(versions.c.model).distinct()))


def promoted_models(connection: Connection) -> list[str]:
    """Return the models with a history of promotions."""
    return sorted(connection.scalars(select(promotions.c.model).distinct()))


def registered(connection: Connection, model: str) -> Sequence[Version]:
    """Return all versions of a model, also the pruned ones, oldest first."""
    query = select(versions).where(versions.c.model == model).order_by(versions.c.version)
    return [Version(**row) for row in connection.execute(query).mappings()]


def outdated(connection: Connection, registry: Registry, model: str, keep: int, *, training: bool) -> Sequence[Version]:
    """Return the versions to prune: all but the newest `keep` of those that rollbacks could not make live and no open
    trial compares.

    While a job of the model is `training`, versions that have been live stay too: it may be comparing with one.
    """
    trial = open_of(connection, model)
    stays = {*registry.stack(connection, model), *(() if trial is None else (trial.version, trial.live))}
    free = [row for row in registered(connection, model) if row.pruned_at is None and row.version not in stays]
    spared = registry.promoted(connection, model) if training else set()
    return [row for row in free[: max(0, len(free) - keep)] if row.version not in spared]


def remove_evidence(connection: Connection, before: float) -> None:
    """Remove the counts, keys and differing samples of trials that had ended by then. Trials and their events stay."""
    ended = select(trials.c.id).where(trials.c.finished_at < before)
    for table in (trial_counts, trial_keys, trial_differences):
        connection.execute(delete(table).where(table.c.trial.in_(ended)))


def mark_pruned(connection: Connection, gone: Iterable[Version], now: float) -> None:
    """Say in their rows that these versions are pruned. Figures, hyperparameters and names of files stay there;
    artifacts in the record and its reference statistics, which may be megabytes, do not.
    """
    for one in gone:
        row = versions.c.model == one.model, versions.c.version == one.version
        record = {**one.record, "artifacts": _files_in(one), "reference": {}, "drift": {}}
        connection.execute(update(versions).where(*row).values(pruned_at=now, record=record))
        append(connection, "version.pruned", one.model, now, {"version": one.version})


def files_of(registry: Registry, version: Version) -> list[Path]:
    """Return the paths of a version's weights, of the record that its job wrote beside them, and of its large
    artifacts. Raises CheckpointError for a forged record.
    """
    weights = registry.path(version)
    return [weights, record_path(weights), *artifacts_of(registry, version)]


def artifacts_of(registry: Registry, version: Version) -> dict[Path, str]:
    """Return the SHA-256 of each file of a version's artifacts. Raises CheckpointError for a forged record."""
    folder = registry.path(version).parent
    return {folder / name: sha256 for name, sha256 in artifact_files.digests(record_of(version)).items()}


def _files_in(version: Version) -> Mapping[str, Any]:
    """Return the artifacts of a version that are files; none for a forged record."""
    try:
        return artifact_files.entries(record_of(version))
    except CheckpointError:
        return {}


def record_of(version: Version) -> Record:
    """Return a version's record. Raises CheckpointError if the row has another one."""
    try:
        return Record(**version.record)
    except TypeError as err:
        raise CheckpointError("the record has unknown fields, or lacks some") from err
