"""The checkpoints that come with the models: the first version of a model that has none."""

import logging
import time
from collections.abc import Mapping
from pathlib import Path

from models import checkpoint
from models.checkpoint import CheckpointError
from models.record import Record
from models.spec import ModelSpec
from service.registry import Registry
from service.store import Store

log = logging.getLogger(__name__)


def register_shipped(store: Store, specs: Mapping[str, ModelSpec], folder: Path) -> Mapping[str, str]:
    """Register and promote `folder`/NAME.pt for every model without a version. Model -> what is wrong with its file."""
    registry = Registry(store)
    faults: dict[str, str] = {}
    for name, spec in specs.items():
        path = folder / f"{name}.pt"
        if not checkpoint.exists(path) or registry.versions(name):
            continue
        try:
            _, record = checkpoint.load(name, spec, path)
        except CheckpointError as err:
            faults[name] = str(err)
            log.error("shipped checkpoint not registered", extra={"model": name, "reason": str(err)})  # noqa: TRY400
        else:
            _register(store, registry, name, path, record)
    return faults


def _register(store: Store, registry: Registry, name: str, path: Path, record: Record) -> None:
    """A copy of the file becomes version 1, unless another process was quicker."""
    with store.write() as connection:
        if registry.count(connection, name):
            return
        kept = checkpoint.keep(path.read_bytes(), store.folder, name)
        now = time.time()
        version = registry.add(connection, name, kept, record, job=None, now=now)
        registry.promote(connection, name, version, by="start", reason="shipped with the service", now=now)
    log.info("shipped checkpoint registered", extra={"model": name, "version": version})
