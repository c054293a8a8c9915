"""Dataset versions: numbered by model and name, found by `name@version`, deleted.

A version's files are named by its digest and may be those of other versions, too. All changes to the files of a version
that jobs or other versions may use are made inside a writing transaction, so that no row names removed files.
"""

import re
import shutil
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from sqlalchemy import ColumnElement, Connection, and_, func, select, update

from models import dataset_manifest as manifest
from models.catalog import NAME
from models.errors import CheckpointError, shown
from models.messages import Ingested
from service.errors import Conflict, Invalid, NotFound, ObjectsAway
from service.store.database import Store
from service.store.feed import append
from service.store.tables import datasets, jobs, versions

_REFERENCE = re.compile(rf"({NAME.pattern})(?:@([1-9][0-9]{{0,8}}))?")
AT_WORK = ("queued", "running")
Declared = Mapping[str, Mapping[str, int]]  # data of a recipe -> examples by split


@dataclass(frozen=True, slots=True, kw_only=True)
class DatasetVersion:
    """One row. Times are seconds since 1970. `source` is the digest of the uploaded file, `parent` a name@version."""

    model: str
    name: str
    version: int
    created_at: float
    job: str
    sha256: str
    folder: str
    source: str
    parent: str | None
    summary: Mapping[str, Any]
    deleted_at: float | None
    erased: bool

    @property
    def label(self) -> str:
        """Return name@version."""
        return f"{self.name}@{self.version}"


@dataclass(frozen=True, slots=True, kw_only=True)
class BuiltIn:
    """Data of a recipe, which counts as version 1 of its name, and the model's versions that were trained on it.

    `created_at`: when the first of these was registered; `examples`: by split; empty if the recipe does not say.
    """

    name: str
    created_at: float | None
    examples: Mapping[str, int]
    trained: Sequence[int]

    @property
    def label(self) -> str:
        """Return name@1."""
        return f"{self.name}@1"


class Datasets:
    """The table of dataset versions. Methods with a connection take part in the caller's transaction."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._storage = store.storage

    def listed(self, model: str) -> Sequence[DatasetVersion]:
        """Return the versions of all datasets of a model that are not deleted, by name and number."""
        query = select(datasets).where(datasets.c.model == model, datasets.c.deleted_at.is_(None))
        with self._store.read() as connection:
            rows = connection.execute(query.order_by(datasets.c.name, datasets.c.version)).mappings()
            return [version_of(row) for row in rows]

    def get(self, model: str, name: str, number: int) -> DatasetVersion:
        """Return one version, also a deleted one, which versions of the model may have been trained on.

        Raises NotFound.
        """
        with self._store.read() as connection:
            found = _one(connection, model, name, number)
        if found is None:
            raise _unknown(model, f"{name}@{number}")
        return found

    def report_of(self, version: DatasetVersion, job_id: str) -> Mapping[str, Any]:
        """Return the report of a job that made this version: several jobs, if equal rows were sent again.

        Raises NotFound.
        """
        query = select(jobs.c.report).where(jobs.c.id == job_id, *_made(version))
        with self._store.read() as connection:
            report: Mapping[str, Any] | None = connection.scalar(query)
        if report is None:
            raise NotFound(f"job {job_id[:32]} did not make dataset {version.label}")
        return report

    def find(self, connection: Connection, model: str, reference: str) -> DatasetVersion:
        """Return the version that `reference` names, as name@version, or the newest of a bare name.

        Raises Invalid for another form, NotFound also if the version was deleted.
        """
        name, number = parsed(reference)
        if number is None:
            found = _newest(connection, model, name, datasets.c.deleted_at.is_(None))
        else:
            found = _one(connection, model, name, number)
        if found is None:
            raise _unknown(model, reference)
        if found.deleted_at is not None:
            raise NotFound(
                f"dataset {found.label} of {model} was deleted; GET /models/{model}/datasets lists the others"
            )
        return found

    def require(self, model: str, reference: str) -> None:
        """Raise as `find` does."""
        with self._store.read() as connection:
            self.find(connection, model, reference)

    def built_in(self, model: str, declared: Declared) -> Sequence[BuiltIn]:
        """Return the data of the model's recipe: the declared, and that which versions of the model were trained on."""
        query = select(versions).where(versions.c.model == model).order_by(versions.c.version)
        first = select(datasets.c.name).where(datasets.c.model == model, datasets.c.version == 1)
        with self._store.read() as connection:
            taken = set(connection.scalars(first))  # by users, before the recipe declared it
            found = {
                name: BuiltIn(name=name, created_at=None, examples=examples, trained=())
                for name, examples in declared.items()
                if name not in taken
            }
            for row in connection.execute(query):
                name = row.record.get("dataset", "")
                if NAME.fullmatch(name) and not row.record.get("dataset_sha256"):
                    known = found.get(name)
                    found[name] = BuiltIn(
                        name=name,
                        created_at=row.created_at if known is None or known.created_at is None else known.created_at,
                        examples=declared.get(name, {}),
                        trained=(*(known.trained if known else ()), row.version),
                    )
        return [found[name] for name in sorted(found)]

    def named_built_in(self, model: str, reference: str, declared: Declared) -> str | None:
        """Return the name of the recipe's data that `reference` means: as version 1, or as a bare name that no other
        dataset has. None if it means another dataset. Raises Invalid.
        """
        name, number = parsed(reference)
        if number not in {None, 1} or not any(found.name == name for found in self.built_in(model, declared)):
            return None
        with self._store.read() as connection:
            taken = number is None and _newest(connection, model, name) is not None
        return None if taken else name

    def trained(self, model: str) -> Mapping[str, Sequence[int]]:
        """Return the versions of the model that jobs trained on its datasets, by name@version."""
        known = and_(jobs.c.model == model, jobs.c.kind == "train", jobs.c.version.is_not(None))
        query = select(jobs.c.dataset, jobs.c.version).where(known, jobs.c.dataset.is_not(None))
        found: dict[str, list[int]] = {}
        with self._store.read() as connection:
            for row in connection.execute(query.order_by(jobs.c.version)):
                found.setdefault(row.dataset, []).append(row.version)
        return found

    def add(
        self,
        connection: Connection,
        model: str,
        name: str,
        made: Ingested,
        *,
        source: str,
        parent: str | None,
        job: str,
        now: float,
    ) -> DatasetVersion:
        """Register a version under the next number of its name; 2 at least if the recipe's data has the name.

        Returns the newest version instead, if it has the same rows.
        """
        newest = _newest(connection, model, name)
        if newest is not None and newest.deleted_at is None and newest.sha256 == made.sha256:
            return newest
        top = newest.version if newest else int(name in made.built_in or _is_built_in(connection, model, name))
        row: dict[str, Any] = {
            "model": model,
            "name": name,
            "version": top + 1,
            "created_at": now,
            "job": job,
            "sha256": made.sha256,
            "folder": made.folder,
            "source": source,
            "parent": parent,
            "summary": asdict(made.summary),
            "erased": False,
        }
        connection.execute(datasets.insert().values(row))
        added = DatasetVersion(**row, deleted_at=None)
        told = {"dataset": added.label, "job": job, "sha256": made.sha256}
        append(connection, "dataset.created", model, now, told)
        return added

    def delete(self, model: str, name: str, number: int, *, erase: bool, now: float) -> None:
        """Delete a version; with `erase`, also its files, even if it was deleted before.

        Raises NotFound, and Conflict if a job or another version needs it.
        """
        waste: list[Path] = []
        with self._store.write() as connection:
            found = _one(connection, model, name, number)
            if found is None or (found.deleted_at is not None and not erase):
                raise _unknown(model, f"{name}@{number}")
            _require_unused(connection, found, erase=erase)
            deleted_at = now if found.deleted_at is None else found.deleted_at
            values = {"deleted_at": deleted_at, "erased": erase or found.erased}
            connection.execute(update(datasets).where(_is(model, name, number)).values(**values))
            if not (erase and found.erased):
                kind = "dataset.erased" if erase else "dataset.deleted"
                append(connection, kind, model, now, {"dataset": found.label, "sha256": found.sha256})
            if erase:
                for job in _forget_rows(connection, found):
                    self._storage.remove(self._storage.report(model, job))
                    self._storage.remove(self._storage.refused_rows(model, job))
                waste = self._taken_away(connection, found)
        for path in waste:
            shutil.rmtree(path, ignore_errors=True)

    def drop_source(self, connection: Connection, model: str, sha256: str) -> None:
        """Remove an uploaded file that no version was made of, and no job waits for; if that fails, it stays."""
        with suppress(ObjectsAway):
            self._drop_sources(connection, model, {sha256})

    def _drop_sources(self, connection: Connection, model: str, sources: set[str]) -> None:
        for sha256 in sources - self.needed_originals(connection, model)[0]:
            with suppress(OSError):  # of a read-only store: the row is true all the same
                self._storage.remove(self._storage.original(model, sha256))

    def needed_originals(self, connection: Connection, model: str) -> tuple[set[str], bool]:
        """Return the digests of the files that versions were made of, or that jobs wait for, and whether the manifests
        of all versions could be read: of equal versions, and of those that have grown, they name files of other rows.
        """
        found, understood = used_sources(connection, model), True
        folders = select(datasets.c.folder).where(datasets.c.model == model, datasets.c.erased.is_(False)).distinct()
        for folder in connection.scalars(folders):
            named = self._originals(self._store.folder / folder)
            found |= named or set()
            understood &= named is not None
        return found, understood

    def _originals(self, folder: Path) -> set[str] | None:
        """Return the digests of the files that the rows of a version come from; None if its manifest cannot be read.

        Raises ObjectsAway.
        """
        try:
            content = self._storage.content(folder, manifest.FILE)
            return {original.sha256 for original in manifest.parsed(content).originals}
        except (OSError, ValueError, CheckpointError):
            return None

    def _taken_away(self, connection: Connection, erased: DatasetVersion) -> list[Path]:
        """Take away the files that only this version uses. Returns hidden folders, which are to be removed.

        Raises ObjectsAway.
        """
        same = select(func.count()).where(
            datasets.c.model == erased.model, datasets.c.sha256 == erased.sha256, datasets.c.erased.is_(False)
        )
        folder = self._store.folder / erased.folder
        named = {erased.source, *(self._originals(folder) or ())}
        self._drop_sources(connection, erased.model, named)  # an equal version may have been made of another file
        if connection.scalar(same):
            return []
        if self._storage.copies is not None:
            self._storage.copies.remove(folder)
        if not folder.is_dir():
            return []
        hidden = self._storage.erased(folder)
        folder.rename(hidden)
        return [hidden]


def parsed(reference: str) -> tuple[str, int | None]:
    """Split "field@4" into name and number; a bare name has None. Raises Invalid."""
    match = _REFERENCE.fullmatch(reference)
    if match is None:
        raise Invalid(
            f'dataset {shown(reference)!r}: write it as name@version, for example "field@4", or as the name alone for '
            "its newest version; names have lower-case letters, digits, - and _"
        )
    return match[1], int(match[2]) if match[2] else None


def may_mean(reference: str | None, label: str | None) -> bool:
    """Return whether a reference to a dataset may have been pinned to the name@version `label`; None: no dataset."""
    if reference is None or label is None:
        return reference == label
    name, number = parsed(reference)
    return label.partition("@")[0] == name if number is None else label == reference


def used_sources(connection: Connection, model: str) -> set[str]:
    """Return the digests of the uploaded files that versions were made of, or that jobs wait for."""
    made = select(datasets.c.source).where(datasets.c.model == model, datasets.c.erased.is_(False))
    waiting = select(jobs.c.ingest).where(jobs.c.model == model, jobs.c.kind == "ingest", jobs.c.state.in_(AT_WORK))
    return {*connection.scalars(made), *(parameters["source"] for parameters in connection.scalars(waiting))}


def version_of(row: Mapping[Any, Any]) -> DatasetVersion:
    return DatasetVersion(**{field.name: row[field.name] for field in fields(DatasetVersion)})


def _is(model: str, name: str, number: int) -> ColumnElement[bool]:
    return and_(datasets.c.model == model, datasets.c.name == name, datasets.c.version == number)


def _one(connection: Connection, model: str, name: str, number: int) -> DatasetVersion | None:
    if not 0 < number < 2**31 or not NAME.fullmatch(name):
        return None
    row = connection.execute(select(datasets).where(_is(model, name, number))).mappings().one_or_none()
    return None if row is None else version_of(row)


def _newest(connection: Connection, model: str, name: str, *conditions: ColumnElement[bool]) -> DatasetVersion | None:
    """Return the version with the highest number, deleted or not, of those that fulfil the conditions."""
    query = select(datasets).where(datasets.c.model == model, datasets.c.name == name, *conditions)
    row = connection.execute(query.order_by(datasets.c.version.desc()).limit(1)).mappings().one_or_none()
    return None if row is None else version_of(row)


def _is_built_in(connection: Connection, model: str, name: str) -> bool:
    records = connection.scalars(select(versions.c.record).where(versions.c.model == model))
    return any(record.get("dataset") == name and not record.get("dataset_sha256") for record in records)


def _require_unused(connection: Connection, version: DatasetVersion, *, erase: bool) -> None:
    """Raise Conflict if a job that has not ended uses the version, or another version has grown from it.

    A running ingest of the same name uses the files: their contents keep their splits.
    """
    model, label = version.model, version.label
    at_work = select(jobs.c.id, jobs.c.kind, jobs.c.state, jobs.c.dataset, jobs.c.ingest).where(
        jobs.c.model == model, jobs.c.state.in_(AT_WORK), jobs.c.dataset.is_not(None)
    )
    for job in connection.execute(at_work):
        reads = erase and job.kind == "ingest" and job.state == "running" and job.dataset == version.name
        if reads or job.dataset == label or (job.kind == "ingest" and job.ingest["parent"] == label):
            raise Conflict(f"job {job.id} uses {label}: wait for its end, or cancel it with POST /jobs/{job.id}/cancel")
    needs = datasets.c.erased.is_(False) if erase else datasets.c.deleted_at.is_(None)
    query = select(datasets).where(datasets.c.model == model, datasets.c.parent == label, needs)
    child = connection.execute(query.order_by(datasets.c.version)).mappings().first()
    if child is not None:
        verb = "erase" if erase else "delete"
        raise Conflict(f"{version_of(child).label} has grown from {label}: {verb} that version first")


def _made(version: DatasetVersion) -> tuple[ColumnElement[bool], ...]:
    """Return the conditions on jobs that made a version."""
    return jobs.c.model == version.model, jobs.c.kind == "ingest", jobs.c.dataset == version.label


def _forget_rows(connection: Connection, version: DatasetVersion) -> Sequence[str]:
    """Remove the values of refused rows from the summary of a version, and from the reports of the jobs that made it.

    Returns the ids of these jobs: several, if equal rows were sent again.
    """
    row = _is(version.model, version.name, version.version)
    connection.execute(update(datasets).where(row).values(summary=without_rows(version.summary)))
    found = connection.execute(select(jobs.c.id, jobs.c.report).where(*_made(version))).all()
    for job in found:
        if job.report is not None:
            connection.execute(update(jobs).where(jobs.c.id == job.id).values(report=without_rows(job.report)))
    return [version.job, *(job.id for job in found if job.id != version.job)]


def without_rows(summary: Mapping[str, Any]) -> dict[str, Any]:
    """Return a stored summary, or a report, without the refused rows themselves."""
    return {**summary, "by_reason": [{**reason, "first": []} for reason in summary["by_reason"]]}


def _unknown(model: str, reference: str) -> NotFound:
    return NotFound(f"{model} has no dataset {reference} made of a file; GET /models/{model}/datasets lists them")
