"""Resume points: the state of a run after an epoch, from which another process can continue it."""

import io
import logging
import pickle
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import torch

from models.checkpoints.files import write_whole
from models.checkpoints.storage import Storage
from models.errors import CheckpointError, ObjectsUnavailable
from training.recipe import Progress, Report, TrainingError

log = logging.getLogger(__name__)
State = Mapping[str, Any]  # tensors, numbers, strings, and lists and dicts of them
_EVERY_S = 1.0  # limits disk writes in runs with short epochs
_TIMES = 9  # as long as it takes to put a point into an object store, a run goes on before the next one


@runtime_checkable
class Resumable(Protocol):
    """A Report that saves a state from which the run can continue."""

    def __call__(self, progress: Progress) -> None: ...

    def saved(self) -> State | None:
        """Return the last state that an earlier attempt at this run saved."""

    def save(self, state: Callable[[], State]) -> None:
        """Save this state if it is time to."""


class ResumePoints:
    """A Report with a file for each attempt at a job.

    A worker that was suspended while another took over can still write, but only to the file of its attempt. With
    `storage`, the files of attempts on other machines are found in its object store. While that is away, the run goes
    on and only this machine has the newest point; a run that begins waits.
    """

    def __init__(
        self,
        path: Callable[[int], Path],
        attempt: int,
        tell: Report,
        every_s: float = _EVERY_S,
        storage: Storage | None = None,
    ) -> None:
        self._path = path
        self._storage = storage
        self._attempt = attempt
        self._tell = tell
        self._every_s = every_s
        self._pause_s = every_s
        self._written_at = time.monotonic()

    def __call__(self, progress: Progress) -> None:
        """Pass the progress on."""
        self._tell(progress)

    def saved(self) -> State | None:
        """Return the state of the latest attempt that left a readable one; None: start from the beginning."""
        for attempt in range(self._attempt, 0, -1):
            try:
                path = self._path(attempt)
                content = (path if self._storage is None else self._storage.newest(path)).read_bytes()
                state: State = torch.load(io.BytesIO(content), weights_only=True)
            except (OSError, CheckpointError, pickle.UnpicklingError, RuntimeError, EOFError, ValueError):
                continue
            return state
        return None

    def save(self, state: Callable[[], State]) -> None:
        """Write the state atomically, unless the last one is younger than `every_s`, or took long to be put."""
        began = time.monotonic()
        if began - self._written_at < self._pause_s:
            return
        buffer = io.BytesIO()
        torch.save(dict(state()), buffer)
        path = self._path(self._attempt)
        try:
            write_whole(buffer.getvalue(), path)
            if self._storage is not None:
                self._storage.hasty.replace(path)
        except ObjectsUnavailable as err:
            log.warning("resume point on this machine only", extra={"reason": str(err)})
        except OSError as err:
            raise TrainingError(
                f"the resume point cannot be written ({err.strerror}): free some space in the store"
            ) from err
        self._written_at = time.monotonic()
        if self._storage is not None and self._storage.copies is not None:
            self._pause_s = max(self._every_s, _TIMES * (self._written_at - began))
