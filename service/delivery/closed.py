"""The models that are unloaded from /v2, for all web processes of a service."""

from collections.abc import Iterable
from pathlib import Path

from service.errors import StoreUnavailable


class Closed:
    """The models that are hidden from /v2: one file each, in the folder that all web processes of a service share.

    The paths are made from the names of the catalog, never from those of requests. Without a folder there is one
    process.
    """

    def __init__(self, models: Iterable[str], folder: Path | None) -> None:
        self._files = {name: folder / f"{name}.unloaded" for name in models} if folder is not None else None
        self._names: set[str] = set()

    def __contains__(self, model: str) -> bool:
        return model in self._names if self._files is None else self._files[model].exists()

    def add(self, model: str) -> None:
        """Hide a model. Raises StoreUnavailable if the folder cannot be written."""
        if self._files is None:
            self._names.add(model)
            return
        try:
            self._files[model].touch()
        except OSError as err:
            raise StoreUnavailable(f"{model} cannot be unloaded: {err.strerror}") from err

    def discard(self, model: str) -> None:
        """Show a model again."""
        self._names.discard(model)
        if self._files is not None:
            self._files[model].unlink(missing_ok=True)
