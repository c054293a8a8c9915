"""Faults of a store: files that are missing, damaged or orphaned, and rows that contradict each other. Only reads."""

from collections.abc import Sequence
from pathlib import Path

from models.checkpoints import onnx_file
from models.checkpoints.record import record_path
from models.checkpoints.storage import DAY_S
from models.errors import CheckpointError
from service.delivery import retention
from service.delivery.registry import Registry, Version
from service.jobs import retention as job_retention
from service.store.database import Store
from service.upkeep.dataset_faults import DatasetChecker
from service.upkeep.found import PRUNES, RESTORE, Checked, Fault, Kind

Needed = dict[Path, tuple[str, list[int]]]  # digest and versions of each file
_AGAIN = "delete it; it is made again when the version is next loaded"


class Checker:
    """One look at a store. The service may run: changes meanwhile are not faults."""

    def __init__(self, store: Store, now: float) -> None:
        self._store = store
        self._storage = store.storage
        self._registry = Registry(store)
        self._now = now
        self._checked = Checked()

    def check(self) -> Checked:
        """Look at everything. Raises StoreUnavailable."""
        found = {model: self._storage.weights(model) for model in self._storage.models()}
        jobs_found = self._storage.job_ids()  # before the rows: jobs registered meanwhile are known to them
        with self._store.read() as connection:
            stacks = {model: self._registry.stack(connection, model) for model in retention.promoted_models(connection)}
            rows = {model: retention.registered(connection, model) for model in retention.models(connection)}
            training = job_retention.training(connection)
            jobs = job_retention.states(connection)
        for model in sorted({*found, *rows, *stacks}):
            versions = rows.get(model, [])
            self._promotions(model, versions, stacks.get(model, []))
            needed, pruned, understood = self._files(versions)
            self._digests(needed, model)
            if understood:
                busy = model in training or self._storage.receiving()
                known = needed.keys() | {record_path(path) for path in needed}
                paths = [path for path in found.get(model, []) if path not in known]
                self._orphans(paths, pruned, busy=busy)
            self._exports(model)
        DatasetChecker(self._store, self._checked).check()
        for job_id in sorted(set(jobs_found) - set(jobs)):
            for path in self._storage.job_files(job_id):
                self._add("orphan", self._path(path), f"there is no such job: {PRUNES} with --orphans")
        return self._checked

    def _add(self, kind: Kind, where: str, detail: str) -> None:
        self._checked.faults.append(Fault(kind, where, detail))

    def _promotions(self, model: str, versions: Sequence[Version], stack: Sequence[int]) -> None:
        """Find promoted versions, those that could be live again, without a row or without files."""
        known = {row.version: row for row in versions}
        for number in sorted(set(stack)):
            live = "is live" if number == stack[-1] else "could be rolled back to"
            if number not in known:
                self._add("row", f"version {number} of {model}", f"it {live} but has no row: {RESTORE}")
            elif known[number].pruned_at is not None:
                self._add("row", f"version {number} of {model}", f"it {live} but is pruned: {RESTORE}")

    def _files(self, versions: Sequence[Version]) -> tuple[Needed, set[Path], bool]:
        """Return the files that versions need, those of pruned ones, and whether all records could be understood."""
        needed: Needed = {}
        pruned: set[Path] = set()
        understood = True
        for row in versions:
            try:
                files = {self._registry.path(row): retention.record_of(row).sha256}
                files |= retention.artifacts_of(self._registry, row)
            except CheckpointError as err:
                self._add("row", f"version {row.version} of {row.model}", f"its record is damaged ({err}): {RESTORE}")
                understood = False
                continue
            if row.pruned_at is not None:
                pruned |= {*files, record_path(self._registry.path(row))}
                continue
            self._checked.versions += 1
            for file, sha256 in files.items():
                needed.setdefault(file, (sha256, []))[1].append(row.version)
        return needed, pruned, understood

    def _digests(self, needed: Needed, model: str) -> None:
        """Find files of versions that are missing or damaged."""
        for path, (sha256, numbers) in needed.items():
            whose = f"version{'s' if len(numbers) > 1 else ''} {', '.join(map(str, numbers))} of {model}"
            try:
                same = self._storage.digest(path, sha256) == sha256
            except OSError as err:
                if self._still_needed(model, numbers):  # not pruned meanwhile
                    kind: Kind = "missing" if isinstance(err, FileNotFoundError) else "damaged"
                    self._add(kind, self._path(path), f"{err.strerror}, and {whose} cannot be loaded: {RESTORE}")
                continue
            self._count(path)
            if not same:
                self._add("damaged", self._path(path), f"its digest is not that of {whose}: {RESTORE}")

    def _still_needed(self, model: str, numbers: Sequence[int]) -> bool:
        with self._store.read() as connection:
            rows = retention.registered(connection, model)
        return any(row.version in numbers and row.pruned_at is None for row in rows)

    def _orphans(self, found: Sequence[Path], pruned: set[Path], *, busy: bool) -> None:
        """Find weights and artifacts that no version needs, but not those that a job may be about to register."""
        for path in found:
            age = self._storage.age_s(path, self._now)
            if not self._storage.exists(path) or (busy and age < DAY_S):
                continue
            self._count(path)
            if path in pruned:
                self._add("orphan", self._path(path), f"its versions are pruned: {PRUNES}")
            else:
                self._add("orphan", self._path(path), f"no version has it: {PRUNES} with --orphans, after a day")

    def _exports(self, model: str) -> None:
        for path in self._storage.exports(model):
            if self._is_damaged(path):
                self._add("damaged", self._path(path), f"this export cannot be read: {_AGAIN}")
            else:
                self._count(path)

    def _is_damaged(self, export: Path) -> bool:
        if self._storage.copies is not None:
            return any(self._storage.copies.damaged(self._storage.copies.name(export)))
        return onnx_file.read(export) is None and export.exists()

    def _count(self, path: Path) -> None:
        self._checked.files += 1
        self._checked.bytes += self._storage.size(path)

    def _path(self, path: Path) -> str:
        return path.relative_to(self._store.folder).as_posix()
