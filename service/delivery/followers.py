"""Versions that the web processes of one service have loaded, kept separately from the metrics."""

import logging
import os
from collections.abc import Collection, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

import orjson

from service.telemetry.multiprocess import is_running

log = logging.getLogger(__name__)
ON_DEMAND = 0  # for a version, which is never 0


@dataclass(slots=True, kw_only=True)
class Follower:
    """One web process: the version of each model that it answers with, and its work.

    The version of a model whose live version it loads when a request needs it is ON_DEMAND.
    """

    loaded: dict[str, int] = field(default_factory=dict)
    waiting: int = 0  # requests that wait for the device
    answered: int = 0  # predictions since its start


class Followers:
    """One file for each process in a shared folder.

    Files are replaced atomically, so that a reader never sees half of one. Without a folder there is one process.
    """

    def __init__(self, folder: Path | None, pid: int | None = None) -> None:
        self.folder = folder
        self._pid = os.getpid() if pid is None else pid
        self._own = Follower()

    def write(self, model: str, version: int) -> None:
        """Record that this process answers with that version."""
        self._own.loaded[model] = version
        self._share("loaded version", model=model)

    def write_unloaded(self, models: Collection[str]) -> None:
        """Record that this process loads the live versions of models on demand."""
        self._own.loaded |= dict.fromkeys(models, ON_DEMAND)
        self._share("unloaded versions")

    def count(self, waiting: int, answered: int) -> None:
        """Record how many requests wait, and how many predictions were answered since the start."""
        if (waiting, answered) != (self._own.waiting, self._own.answered):
            self._own.waiting, self._own.answered = waiting, answered
            self._share("load")

    def _share(self, what: str, **fields: str) -> None:
        """Write the file of this process. For one thread."""
        if self.folder is None:
            return
        hidden = self.folder / f".{self._pid}.loaded"
        try:
            hidden.write_bytes(orjson.dumps(asdict(self._own)))
            hidden.replace(self.folder / f"{self._pid}.loaded")
        except OSError as err:  # a full disk: promotions wait for this process until their time limit
            log.warning("%s not shared", what, extra={**fields, "reason": err.strerror})

    def running(self) -> Sequence[Follower]:
        """Return the processes that run."""
        if self.folder is None:
            return [self._own]
        paths = self.folder.glob("*.loaded")
        return [_read(path) for path in paths if path.stem.isdigit() and is_running(int(path.stem))]

    def versions(self, model: str) -> set[int]:
        """Return the versions of a model that running processes have loaded: one, unless a swap is in progress, or
        it is loaded on demand.
        """
        return {process.loaded[model] for process in self.running() if model in process.loaded} - {ON_DEMAND}


def _read(path: Path) -> Follower:
    return Follower(**orjson.loads(path.read_bytes()))
