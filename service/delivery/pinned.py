"""Versions requested by their number (`?version=`): the last few stay loaded."""

from collections import OrderedDict
from collections.abc import Awaitable, Callable

from service.inference.engine import Loaded

_MOST = 4


class Pinned:
    """A small cache of loaded versions, apart from the live ones."""

    def __init__(self, load: Callable[[str, int], Awaitable[Loaded]]) -> None:
        self._load = load
        self._loaded: OrderedDict[tuple[str, int], Loaded] = OrderedDict()

    def __len__(self) -> int:
        """Return how many versions are loaded."""
        return len(self._loaded)

    def ready(self, model: str, number: int) -> Loaded | None:
        """Return a version if it is loaded."""
        loaded = self._loaded.get((model, number))
        if loaded is not None:
            self._loaded.move_to_end((model, number))
        return loaded

    async def version(self, model: str, number: int) -> Loaded:
        """Return a version, loaded. Raises what `load` raises."""
        if (model, number) not in self._loaded:
            self._loaded[model, number] = await self._load(model, number)
            while len(self._loaded) > _MOST:
                self._loaded.popitem(last=False)
        self._loaded.move_to_end((model, number))
        return self._loaded[model, number]
