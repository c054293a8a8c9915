"""Working set: of many models, the networks of those that were used last are kept loaded (LRU), the others are unloaded
and loaded again on demand.

A request for an unloaded model waits for its network, until its deadline; one load serves all requests that wait.
"""

import asyncio
from collections import OrderedDict
from collections.abc import Awaitable, Callable

from service.inference.engine import Engine, Loaded


class WorkingSet:
    """The models in the order of their use. Without a `limit` all networks stay loaded, and uses are not recorded.

    `unloaded` are the models with a live version that is not loaded, to save memory. The rollout keeps this set, and
    gives `load`: it loads the live version of an unloaded model, or raises a ServiceError.
    """

    def __init__(self, engine: Engine, limit: int | None = None) -> None:
        self.limit = limit
        self.unloaded: set[str] = set()
        self.load: Callable[[str], Awaitable[Loaded]]
        self._engine = engine
        self._uses: OrderedDict[str, None] = OrderedDict()  # of loaded models; the last one was used last
        self._loads: dict[str, asyncio.Future[Loaded]] = {}

    def used(self, model: str) -> None:
        """Record a use of a loaded model."""
        if self.limit is not None:
            self._uses[model] = None
            self._uses.move_to_end(model)

    def has_room(self, coming: int = 0) -> bool:
        """Return whether another network may be loaded, besides `coming` ones."""
        return self.limit is None or len(self._uses) + coming < self.limit

    def unload_surplus(self) -> list[str]:
        """Unload the least recently used networks above the limit. Returns their models.

        Batches in progress keep their network until they are done. If the live version of a model could not be loaded,
        its older one stays loaded: no other could answer.
        """
        surplus = 0 if self.limit is None else len(self._uses) - self.limit
        models = [model for model in self._uses if model not in self._engine.faults][: max(0, surplus)]
        for model in models:
            del self._uses[model]
            self.unloaded.add(model)
            self._engine.unload(model)
        return models

    async def network(self, model: str) -> Loaded:
        """Return the live version of a model, as soon as it is loaded. Raises ServiceError."""
        if model not in self.unloaded:
            loaded = self._engine.live(model)
            self.used(model)
            return loaded
        loading = self._loads.get(model)
        if loading is None:
            loading = self._loads[model] = asyncio.ensure_future(self.load(model))
            loading.add_done_callback(lambda ended: self._ended(model, ended))
        return await asyncio.shield(loading)  # a request that is cancelled does not stop the load for the others

    def _ended(self, model: str, loading: "asyncio.Future[Loaded]") -> None:
        del self._loads[model]
        if not loading.cancelled():
            loading.exception()  # the requests that waited for it may have ended

    async def close(self) -> None:
        """Cancel the loads in progress."""
        loads = list(self._loads.values())
        for loading in loads:
            loading.cancel()
        await asyncio.gather(*loads, return_exceptions=True)
