"""Versions that the web processes of one service have loaded, kept separately from the metrics."""

import logging
import os
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from itertools import chain
from pathlib import Path

import orjson

from service.telemetry.multiprocess import is_running

log = logging.getLogger(__name__)
ON_DEMAND = 0  # for a version, which is never 0
MIXED = -1  # for a stage of a trial, which is at least 0


@dataclass(slots=True, kw_only=True)
class Follower:
    """One web process: the version of each model that it answers with, the stage of each trial, and its work.

    The version of a model whose live version it loads when a request needs it is ON_DEMAND.
    """

    loaded: dict[str, int] = field(default_factory=dict)
    waiting: int = 0  # requests that wait for the device
    answered: int = 0  # predictions since its start
    trials: dict[str, int] = field(default_factory=dict)


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

    def write_trials(self, stages: Mapping[str, int]) -> None:
        """Record which stage of which open trials this process follows."""
        self._own.trials = dict(stages)
        self._share("stages of trials")

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

    def stages(self) -> dict[str, int]:
        """Return the stage of each trial that running processes follow; MIXED if not all of them follow the same."""
        return agreed_stages(self.running())


def agreed_stages(processes: Sequence[Follower]) -> dict[str, int]:
    """Return the stage of each trial that some of the processes follow; MIXED if not all follow the same."""
    found = {
        trial: {process.trials.get(trial, MIXED) for process in processes}
        for trial in chain.from_iterable(process.trials for process in processes)
    }
    return {trial: stages.pop() if len(stages) == 1 else MIXED for trial, stages in found.items()}


def _read(path: Path) -> Follower:
    return Follower(**orjson.loads(path.read_bytes()))
