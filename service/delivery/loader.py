"""Load registered versions off the event loop."""

import asyncio
from functools import partial

from models.checkpoints.record import Record, verify
from models.errors import CheckpointError
from service.delivery.registry import Registry, Version
from service.errors import Conflict
from service.execution.threads import in_own_thread
from service.inference.engine import Engine, Loaded
from service.telemetry.metrics import Metrics


class Loader:
    """Loads versions for one process.

    `candidates` are the versions that open trials keep loaded, by model and number: they are not loaded twice, neither
    to answer requests for that version nor when they are promoted.
    """

    def __init__(self, registry: Registry, engine: Engine, metrics: Metrics) -> None:
        self.candidates: dict[tuple[str, int], Loaded] = {}
        self._registry = registry
        self._engine = engine
        self._metrics = metrics

    async def verified(self, model: str, number: int) -> Loaded:
        """Load and warm up a version. Raises NotFound, and Conflict if its checkpoint is broken.

        Of a candidate that is loaded, the file is verified: the other processes will need it.
        """
        version = await asyncio.to_thread(self._registry.version, model, number)
        try:
            if (model, number) in self.candidates:
                await in_own_thread(partial(self._verify, version))
            return await self.load(version)
        except CheckpointError as err:
            self._metrics.load_failures.labels(model).inc()
            raise Conflict(f"version {number} of {model} cannot be loaded, nothing was changed: {err}") from err

    async def load(self, version: Version) -> Loaded:
        """Load and warm up a version. Raises CheckpointError, StoreUnavailable."""
        if (candidate := self.candidates.get((version.model, version.version))) is not None:
            return candidate
        return await in_own_thread(partial(self._load, version))

    def _verify(self, version: Version) -> None:
        verify(version.model, self._registry.fetched(version), Record(**version.record))

    def _load(self, version: Version) -> Loaded:
        path, record = self._registry.fetched(version), Record(**version.record)
        return self._engine.load(version.model, version.version, path, record)
