"""Files of datasets that nothing needs: versions without a row, originals of no version, samples decoded by other code.

A version that a row names stays, also a deleted one, until it is erased. So do files that an unfinished job may need.
"""

from collections.abc import Iterator, Mapping
from pathlib import Path

from sqlalchemy import Connection

from models import dataset_manifest as manifest
from models.checkpoints.code import cache_key
from models.checkpoints.storage import DAY_S
from models.errors import CheckpointError
from models.spec import ModelSpec
from service.data import retention
from service.data.datasets import Datasets, DatasetVersion
from service.settings import PREFIX
from service.store.database import Store
from service.upkeep.rules import Decided, Named, Rules

_BUSY = "a job of its model is queued or running: a later prune removes it"


class DatasetFiles:
    """The files of datasets in a store. `known` are the specs by model; decoded samples of other models stay."""

    def __init__(self, store: Store, known: Mapping[str, ModelSpec], rules: Rules, now: float) -> None:
        self._root = store.folder
        self._storage = store.storage
        self._datasets = Datasets(store)
        self._known = known
        self._rules = rules
        self._now = now
        self._keys: dict[str, str] = {}

    def models(self) -> list[str]:
        """Return the models that have files of datasets. Reads the code of the known ones."""
        found = self._storage.dataset_models()
        for model in found:
            if model in self._known:
                self._keys[model] = cache_key(model, self._known[model])
        return found

    def unneeded(self, connection: Connection, model: str) -> Iterator[Decided]:
        """Yield folders and files of a model's datasets that nothing needs, and whether they are removed."""
        kept = {self._root / version.folder: version for version in retention.kept(connection, model)}
        yield from self._versions(connection, model, kept)
        yield from self._originals(connection, model)
        pinned = retention.pinned(connection, model)
        for folder, version in sorted(kept.items()):
            yield from self._caches(folder, version, is_pinned=version.sha256 in pinned)

    def _versions(self, connection: Connection, model: str, kept: Mapping[Path, DatasetVersion]) -> Iterator[Decided]:
        """Yield folders without a row."""
        once = retention.digests(connection, model)
        known = model in retention.models(connection)
        is_busy = retention.is_ingesting(connection, model)
        for folder in self._storage.dataset_versions(model):
            if folder in kept:
                continue
            if is_busy:
                yield self._named(folder, _BUSY), False
            elif folder.name in once:
                yield self._named(folder, "of an erased dataset version"), True
            else:
                yield self._unknown(folder, "dataset version", known=known)

    def _originals(self, connection: Connection, model: str) -> Iterator[Decided]:
        """Yield uploaded files that no version was made of."""
        needed, understood = self._datasets.needed_originals(connection, model)
        once = retention.sources(connection, model)
        for path in self._storage.originals(model):
            if path.name in needed:
                continue
            if not understood:
                yield self._named(path, f"a dataset version of {model} cannot be read: see torchloop fsck"), False
            elif path.name in once:
                yield self._named(path, "original of no dataset version: its job has ended"), True
            else:
                yield self._unknown(path, "job and dataset version", known=bool(once))

    def _unknown(self, path: Path, what: str, *, known: bool) -> Decided:
        """Decide on a file or folder that this database has never known."""
        if not known:
            return self._named(path, "the database has no dataset of this model"), False
        if self._storage.age_s(path, self._now) <= DAY_S:
            return self._named(path, f"of no {what}, but less than a day old"), False
        goes = self._rules.orphans
        return self._named(path, f"of no {what}" if goes else f"of no {what}: --orphans removes it"), goes

    def _caches(self, folder: Path, version: DatasetVersion, *, is_pinned: bool) -> Iterator[Decided]:
        """Yield decoded samples that the present code decodes again from the originals."""
        for path in self._storage.caches(version.model, version.sha256):
            if path.name == self._keys.get(version.model) or self._storage.age_s(path, self._now) <= DAY_S:
                continue
            if version.model not in self._known:
                why = f"there is no model {version.model} here that could tell which samples it needs: "
                yield self._named(path, f"{why}check {PREFIX}PROJECT"), False
            elif not self._are_kept(folder, version.model):
                yield self._named(path, f"samples of {version.label}, whose originals are not all kept"), False
            elif is_pinned:
                yield self._named(path, _BUSY), False
            else:
                yield self._named(path, f"samples of {version.label}, decoded by other code"), True

    def _are_kept(self, folder: Path, model: str) -> bool:
        """Return whether the store has all files that the rows of a version come from."""
        try:
            found = manifest.parsed(self._storage.content(folder, manifest.FILE))
        except (OSError, ValueError, CheckpointError):
            return False
        digests = [original.sha256 for original in found.originals]
        return all(sha256 and self._storage.exists(self._storage.original(model, sha256)) for sha256 in digests)

    def _named(self, path: Path, why: str) -> Named:
        return Named(path.relative_to(self._root).as_posix(), self._storage.size(path), why)
