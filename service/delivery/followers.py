"""Versions that the web processes of one service have loaded, kept separately from the metrics."""

import logging
import os
from pathlib import Path

import orjson

from service.telemetry.multiprocess import is_running

log = logging.getLogger(__name__)


class Followers:
    """One file for each process in a shared folder: the version of each model that it has loaded.

    Files are replaced atomically, so that a reader never sees half of one. Without a folder there is one process.
    """

    def __init__(self, folder: Path | None, pid: int | None = None) -> None:
        self._folder = folder
        self._pid = os.getpid() if pid is None else pid
        self._loaded: dict[str, int] = {}

    def write(self, model: str, version: int) -> None:
        """Record that this process answers with that version. For one thread."""
        self._loaded[model] = version
        if self._folder is None:
            return
        hidden = self._folder / f".{self._pid}.loaded"
        try:
            hidden.write_bytes(orjson.dumps(self._loaded))
            hidden.replace(self._folder / f"{self._pid}.loaded")
        except OSError as err:  # a full disk: promotions wait for this process until their time limit
            log.warning("loaded version not shared", extra={"model": model, "reason": err.strerror})

    def versions(self, model: str) -> set[int]:
        """Return the versions of a model that running processes have loaded: one, unless a swap is in progress."""
        if self._folder is None:
            return {self._loaded[model]} if model in self._loaded else set()
        running = [path for path in self._folder.glob("*.loaded") if path.stem.isdigit() and is_running(int(path.stem))]
        return {loaded[model] for loaded in map(_read, running) if model in loaded}


def _read(path: Path) -> dict[str, int]:
    loaded: dict[str, int] = orjson.loads(path.read_bytes())
    return loaded
