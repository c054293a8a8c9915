"""Remove versions and jobs that the rules do not keep, and files that nothing needs.

It may run while the service and workers do. Rows change first, in a transaction; files are removed after its commit,
in transactions that look once more whether a version needs them. If it is interrupted, the next run does the rest.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from itertools import islice
from pathlib import Path

from sqlalchemy import Connection

from models.checkpoints.code import code_digest
from models.checkpoints.storage import DAY_S
from models.errors import CheckpointError
from models.spec import ModelSpec
from service.data.uploads import Uploads
from service.delivery import retention
from service.delivery.registry import Registry, Version
from service.errors import Conflict
from service.jobs import retention as job_retention
from service.jobs.queue import FINAL
from service.settings import PREFIX
from service.store.database import Store
from service.upkeep.dataset_files import DatasetFiles
from service.upkeep.rules import Decided, Named, Pruned, Rules

_AT_ONCE = 20  # jobs, or files of versions, in one writing transaction: the others wait for its end
_BUSY = "a job of its model is running or a checkpoint is being uploaded: a later prune removes it"


class Pruner:
    """One run over a store. `known` are the specs by model; exports of other models stay."""

    def __init__(self, store: Store, known: Mapping[str, ModelSpec], rules: Rules, now: float) -> None:
        self._store = store
        self._storage = store.storage
        self._registry = Registry(store)
        self._datasets = DatasetFiles(store, known, rules, now)
        self._known = known
        self._rules = rules
        self._now = now
        self._codes: dict[str, str] = {}

    def plan(self) -> Pruned:
        """Return what `prune` would do. Writes nothing. Raises Conflict for a database of another store."""
        found = Pruned()
        folders = self._storage.job_ids()
        with self._store.read() as connection:
            self._require_own(connection)
            for model in self._models(connection):
                gone = self._outdated(connection, model)
                found.versions += [(one.model, one.version) for one in gone]
                self._sort(self._of_model(connection, model, gone), found)
            for model in self._datasets.models():
                self._sort(self._datasets.unneeded(connection, model), found)
            found.jobs = list(self._expired(connection))
            self._sort(self._of_jobs(folders, job_retention.states(connection), found.jobs), found)
        self._sort(self._temporary(found), found)
        return found

    def prune(self) -> Pruned:
        """Remove it. Raises Conflict for a database of another store, StoreUnavailable."""
        done = Pruned()
        with self._store.read() as connection:
            self._require_own(connection)
            names = self._models(connection)
        for model in names:
            with self._store.write() as connection:
                gone = self._outdated(connection, model)
                retention.mark_pruned(connection, gone, self._now)
            done.versions += [(one.model, one.version) for one in gone]
            self._remove_of_model(model, gone, done)
        for model in self._datasets.models():
            self._remove_in_turns(partial(self._datasets.unneeded, model=model), done)
        self._prune_jobs(done)
        self._prune_trials()
        self._remove(self._temporary(done), done)
        Uploads(self._store, max_bytes=0).sweep(self._now)
        return done

    def _prune_jobs(self, done: Pruned) -> None:
        folders = self._storage.job_ids()  # before the rows: a job's folder is newer than its row
        with self._store.read() as connection:
            expired = self._expired(connection)
            states = job_retention.states(connection)
        for at in range(0, len(expired), _AT_ONCE):
            with self._store.write() as connection:
                job_retention.remove(connection, expired[at : at + _AT_ONCE])
        done.jobs += expired
        self._remove(self._of_jobs(folders, states, expired), done)
        for job_id in set(folders) - {job for job, state in states.items() if state not in FINAL}:
            self._storage.remove_empty(job_id)

    def _prune_trials(self) -> None:
        days = self._rules.keep_jobs_days
        if days is not None:
            with self._store.write() as connection:
                retention.remove_evidence(connection, self._now - days * DAY_S)

    def _require_own(self, connection: Connection) -> None:
        """Raise Conflict if the store has weights and the database no version: it is probably another store's."""
        if not retention.models(connection) and any(map(self._storage.weights, self._storage.models())):
            raise Conflict(
                "the store folder has weights, but the database has no version: nothing is removed; "
                f"check {PREFIX}STORE and {PREFIX}DATABASE_URL"
            )

    def _models(self, connection: Connection) -> list[str]:
        return sorted({*retention.models(connection), *self._storage.models()})

    def _outdated(self, connection: Connection, model: str) -> Sequence[Version]:
        if self._rules.keep_versions is None:
            return []
        training = model in job_retention.training(connection)
        return retention.outdated(connection, self._registry, model, self._rules.keep_versions, training=training)

    def _expired(self, connection: Connection) -> Sequence[str]:
        days = self._rules.keep_jobs_days
        return [] if days is None else job_retention.expired(connection, self._now - days * DAY_S)

    def _of_model(self, connection: Connection, model: str, gone: Sequence[Version]) -> Iterator[Decided]:
        """Yield unneeded files of a model, and whether they are removed; `gone`: versions pruned in this run."""
        pruned = {one.version for one in gone}
        rows = retention.registered(connection, model)
        kept = [row for row in rows if row.pruned_at is None and row.version not in pruned]
        busy = model in job_retention.training(connection) or self._storage.receiving()
        try:
            needed = {path for row in kept for path in retention.files_of(self._registry, row)}
            others = [*gone, *(row for row in rows if row.pruned_at is not None and row.version not in pruned)]
            once = {path for row in others for path in retention.files_of(self._registry, row)}
        except CheckpointError as err:
            reason = f"a version of {model} cannot be understood: {err}"
            yield from ((self._named(path, reason), False) for path in self._storage.weights(model))
            return
        for path in self._storage.weights(model):
            if path not in needed:
                yield self._weights(path, was_registered=path in once, busy=busy, known=bool(rows))
        yield from self._exports(model, kept, gone, busy=busy)

    def _weights(self, path: Path, *, was_registered: bool, busy: bool, known: bool) -> Decided:
        """Return what to do with a file of weights or an artifact that no version needs."""
        old = self._storage.age_s(path, self._now) > DAY_S
        if was_registered:
            goes = old or not busy
            return self._named(path, "of a pruned version" if goes else _BUSY), goes
        if not known:
            return self._named(path, "the database has no version of this model"), False
        if not old:
            return self._named(path, "of no version, but less than a day old: a job may be about to register it"), False
        goes = self._rules.orphans
        return self._named(path, "of no version" if goes else "of no version: --orphans removes it"), goes

    def _exports(
        self, model: str, kept: Sequence[Version], gone: Sequence[Version], *, busy: bool
    ) -> Iterator[Decided]:
        files = self._storage.exports(model)
        if model not in self._known:
            reason = f"there is no model {model} here that could tell which exports it needs: check {PREFIX}PROJECT"
            yield from ((self._named(path, reason), False) for path in files)
            return
        code = self._code(model)
        needed, once = (
            {self._storage.export_by_code(retention.record_of(row), code) for row in rows} for rows in (kept, gone)
        )
        for path in (path for path in files if path not in needed):
            if self._storage.age_s(path, self._now) > DAY_S:
                yield self._named(path, "export of other code or of a pruned version"), True
            elif path in once:
                yield self._named(path, _BUSY if busy else "export of a pruned version"), not busy

    def _code(self, model: str) -> str:
        """Return the digest of a model's code, read once."""
        if model not in self._codes:
            self._codes[model] = code_digest(model, self._known[model])
        return self._codes[model]

    def _of_jobs(self, folders: Sequence[str], states: Mapping[str, str], expired: Iterable[str]) -> Iterator[Decided]:
        """Yield leftovers in the folders of jobs, and whether they go."""
        gone = set(expired)
        for job_id in folders:
            if job_id in gone:
                yield from ((self._named(path, "of a removed job"), True) for path in self._storage.job_files(job_id))
            elif job_id not in states:
                goes = self._rules.orphans
                why = "of no job" if goes else "of no job: --orphans removes it"
                yield from ((self._named(path, why), goes) for path in self._storage.job_files(job_id))
            elif states[job_id] in FINAL:
                points, drafts = self._storage.resume_points(job_id), self._storage.draft_files(job_id)
                yield from ((self._named(path, "resume point of a finished job"), True) for path in points)
                yield from ((self._named(path, "draft of a finished job"), True) for path in drafts)

    def _temporary(self, done: Pruned) -> Iterator[Decided]:
        """Yield temporary files, without those in the folders of jobs that are `done` already."""
        known = {file.path for file in done.files}
        paths = (*self._storage.abandoned(self._now), *self._storage.left_in_objects(self._now))
        found = (self._named(path, "temporary file") for path in paths)
        return ((file, True) for file in found if file.path not in known)

    def _named(self, path: Path, why: str) -> Named:
        return Named(path.relative_to(self._store.folder).as_posix(), self._storage.size(path), why)

    def _sort(self, found: Iterable[Decided], into: Pruned) -> None:
        for file, goes in found:
            (into.files if goes else into.left).append(file)

    def _remove_of_model(self, model: str, gone: Sequence[Version], done: Pruned) -> None:
        if model in self._known:
            self._code(model)  # outside of the transactions: it reads many files
        self._remove_in_turns(lambda connection: self._of_model(connection, model, gone), done)

    def _remove_in_turns(self, find: Callable[[Connection], Iterable[Decided]], done: Pruned) -> None:
        """Remove what `find` yields, some in each transaction: nothing is registered while one looks and removes."""
        tried: set[str] = set()
        more = True
        while more:
            with self._store.write() as connection:
                found = list(find(connection))
                todo = [(file, goes) for file, goes in found if goes and file.path not in tried]
                self._remove(islice(todo, _AT_ONCE), done)
                tried |= {file.path for file, _ in todo[:_AT_ONCE]}
                more = len(todo) > _AT_ONCE
        done.left += [file for file, goes in found if not goes]

    def _remove(self, found: Iterable[Decided], done: Pruned) -> None:
        for file, goes in found:
            if not goes:
                done.left.append(file)
                continue
            try:
                self._storage.remove(self._store.folder / file.path)
            except OSError as err:
                done.failed.append(Named(file.path, file.bytes, f"cannot be removed ({err.strerror})"))
            else:
                done.files.append(file)
