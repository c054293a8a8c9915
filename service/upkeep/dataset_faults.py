"""Faults of dataset versions: files that are missing, damaged or orphaned. Only reads."""

from collections.abc import Iterable, Sequence
from pathlib import Path

from models import dataset_manifest as manifest
from models.errors import CheckpointError
from service.data import retention
from service.data.datasets import Datasets, DatasetVersion
from service.store.database import Store
from service.upkeep.found import PRUNES, RESTORE, Checked, Fault, Kind


class DatasetChecker:
    """One look at the files of datasets. The service may run: changes meanwhile are not faults."""

    def __init__(self, store: Store, checked: Checked) -> None:
        self._store = store
        self._storage = store.storage
        self._datasets = Datasets(store)
        self._checked = checked

    def check(self) -> None:
        """Add faults and counts to `checked`. Raises StoreUnavailable."""
        with self._store.read() as connection:
            models = {*self._storage.dataset_models(), *retention.models(connection)}
        for model in sorted(models):
            self._model(model)

    def _model(self, model: str) -> None:
        folders = self._storage.dataset_versions(model)  # before the rows: those registered meanwhile are known to them
        originals = self._storage.originals(model)
        with self._store.read() as connection:
            kept = retention.kept(connection, model)
            needed, understood = self._datasets.needed_originals(connection, model)
            once = retention.digests(connection, model), retention.sources(connection, model)
            is_busy = retention.is_ingesting(connection, model)
        self._checked.datasets += len(kept)
        by_folder: dict[Path, list[DatasetVersion]] = {}
        for version in kept:
            by_folder.setdefault(self._store.folder / version.folder, []).append(version)
        sources: dict[str, list[DatasetVersion]] = {}
        for folder, versions in by_folder.items():
            for sha256 in self._version(folder, versions):
                sources.setdefault(sha256, []).extend(versions)
        for sha256, versions in sources.items():
            self._file(self._storage.original(model, sha256), sha256, versions, "decoded again")
        if not is_busy:
            self._orphans((folder for folder in folders if folder not in by_folder), once[0], "dataset version")
        if understood:
            self._orphans((path for path in originals if path.name not in needed), once[1], "dataset version or job")

    def _version(self, folder: Path, versions: Sequence[DatasetVersion]) -> set[str]:
        """Check the files of a version's folder. Return the digests of the files that it was made of."""
        path = folder / manifest.FILE
        for version in versions:
            self._file(self._storage.report(version.model, version.job), "", [version], "reported on")
        sha256 = next(filter(None, (version.summary.get("manifest_sha256") for version in versions)), "")
        if not self._file(path, sha256, versions, "opened"):
            return set()
        try:
            found = manifest.parsed(self._storage.content(folder, manifest.FILE))
        except (OSError, ValueError, CheckpointError):
            self._add("damaged", path, f"it cannot be read, and {_named(versions)} cannot be opened: {RESTORE}")
            return set()
        for name, digest in found.files.items():
            self._file(folder / name, digest, versions, "opened")
        return {original.sha256 for original in found.originals if original.sha256}

    def _file(self, path: Path, sha256: str, versions: Sequence[DatasetVersion], loss: str) -> bool:
        """Return whether a file of versions has that digest; if it is empty, whether the file can be read."""
        try:
            found = self._storage.digest(path, sha256)
        except OSError as err:
            if self._are_kept(versions):  # not erased meanwhile
                kind: Kind = "missing" if isinstance(err, FileNotFoundError) else "damaged"
                self._add(kind, path, f"{err.strerror}, and {_named(versions)} cannot be {loss}: {RESTORE}")
            return False
        self._count(path)
        if sha256 and found != sha256:
            self._add("damaged", path, f"its digest is not that of {_named(versions)}: {RESTORE}")
            return False
        return True

    def _are_kept(self, versions: Sequence[DatasetVersion]) -> bool:
        with self._store.read() as connection:
            labels = {version.label for version in retention.kept(connection, versions[0].model)}
        return any(version.label in labels for version in versions)

    def _orphans(self, found: Iterable[Path], once: set[str], what: str) -> None:
        for path in found:
            if not self._storage.exists(path):
                continue
            self._count(path)
            way_out = PRUNES if path.name in once else f"{PRUNES} with --orphans, after a day"
            self._add("orphan", path, f"no {what} has it: {way_out}")

    def _add(self, kind: Kind, path: Path, detail: str) -> None:
        where = path.relative_to(self._store.folder).as_posix()
        self._checked.faults.append(Fault(kind, where, detail))

    def _count(self, path: Path) -> None:
        self._checked.files += 1
        self._checked.bytes += self._storage.size(path)


def _named(versions: Sequence[DatasetVersion]) -> str:
    return f"{', '.join(version.label for version in versions)} of {versions[0].model}"
