"""Register the shipped checkpoints as first versions of models that have none."""

import logging
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

from models.checkpoints import record as records
from models.checkpoints.record import Record
from models.checkpoints.storage import Storage
from models.errors import CheckpointError
from service.delivery.registry import Registry
from service.store.database import Store

log = logging.getLogger(__name__)
_FIRST = 1  # the number that the version will get


def register_shipped(
    store: Store,
    models: Iterable[str],
    folders: Sequence[Path],
    load: Callable[[str, int, Path, Record], object],
) -> Mapping[str, str]:
    """Register and promote NAME.pt of the first folder that has one, for every model without a version.

    Returns model -> error of its file.

    `load` tries a checkpoint (see Engine.load); a file that it refuses with CheckpointError is not registered.
    """
    registry = Registry(store)
    faults: dict[str, str] = {}
    for name in models:
        path = next((folder / f"{name}.pt" for folder in folders if records.exists(folder / f"{name}.pt")), None)
        if path is None or registry.versions(name):
            continue
        try:
            record = records.verify(name, path)
            load(name, _FIRST, path, record)
        except CheckpointError as err:
            faults[name] = str(err)
            log.error("shipped checkpoint not registered", extra={"model": name, "reason": str(err)})  # noqa: TRY400
        else:
            _register(store, registry, name, path, record)
    return faults


def _register(store: Store, registry: Registry, name: str, path: Path, record: Record) -> None:
    """Register a copy of the file as version 1, unless another process was first."""
    with store.write() as connection:
        if registry.count(connection, name):
            return
        with store.files():
            kept = Storage(store.folder).keep(name, path.read_bytes())
        now = time.time()
        version = registry.add(connection, name, kept, record, job=None, now=now)
        registry.promote(connection, name, version, by="start", reason="shipped with the service", now=now)
    log.info("shipped checkpoint registered", extra={"model": name, "version": version})
