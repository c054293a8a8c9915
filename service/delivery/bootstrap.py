"""Register a shipped checkpoint as the first version of a model that has none."""

import logging
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar

from models.checkpoints import artifact_files
from models.checkpoints import record as records
from models.checkpoints.record import Record
from service.delivery.registry import Registry
from service.store.database import Store

log = logging.getLogger(__name__)
_FIRST = 1  # the number that the version will get
T = TypeVar("T")


def register_shipped(
    store: Store,
    model: str,
    folders: Sequence[Path],
    load: Callable[[str, int, Path, Record], T],
) -> T | None:
    """Register and promote MODEL.pt of the first folder that has one, if the model has no version yet.

    Returns what `load` made of the file (see Engine.load); None if there is no file, or the model has versions. Raises
    CheckpointError if the file is broken: then it is not registered.
    """
    registry = Registry(store)
    path = next((folder / f"{model}.pt" for folder in folders if records.exists(folder / f"{model}.pt")), None)
    if path is None:
        return None
    with store.read() as connection:
        if registry.count(connection, model):  # pruned ones too
            return None
    record = records.verify(model, path)
    loaded = load(model, _FIRST, path, record)
    return loaded if _register(store, registry, model, path, record) else None


def _register(store: Store, registry: Registry, name: str, path: Path, record: Record) -> bool:
    """Register a copy of the file as version 1. Returns False if another process was first."""
    # slow work is not done while others wait for the end of the transaction
    given = None if store.storage.copies is None else _keep(store, name, path, record)
    with store.write() as connection:
        if registry.count(connection, name):
            return False
        kept = given or _keep(store, name, path, record)
        now = time.time()
        version = registry.add(connection, name, kept, record, job=None, now=now)
        registry.promote(connection, name, version, by="start", reason="shipped with the service", now=now)
    log.info("shipped checkpoint registered", extra={"model": name, "version": version})
    return True


def _keep(store: Store, name: str, path: Path, record: Record) -> Path:
    """Copy a checkpoint to the store. Returns its path there."""
    with store.files():
        artifact_files.copy(record, path.parent, store.storage.checkpoints(name))
        kept = store.storage.keep(name, path.read_bytes())
        store.storage.publish_checkpoint(kept, record)
    return kept
