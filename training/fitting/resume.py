"""Resume points: the saved state of a run after an epoch, from which another process can continue it exactly."""

import io
import pickle
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import torch

from models.checkpoints.files import write_whole
from training.recipe import Progress, TrainingError

State = Mapping[str, Any]  # tensors, numbers, strings, and lists and dicts of them
_EVERY_S = 1.0  # limits disk writes in runs with short epochs


@runtime_checkable
class Resumable(Protocol):
    """A Report that saves states to resume the run from."""

    def __call__(self, progress: Progress) -> None: ...

    def saved(self) -> State | None:
        """Last state that an earlier attempt at this run saved, or None."""

    def save(self, state: Callable[[], State]) -> None:
        """Save the state if the last save is old enough."""


class ResumePoints:
    """A Report with one file per attempt at a job: `folder`/resume-ATTEMPT.pt.

    A worker that lost its lease while it was frozen can still write, but only to the file of its attempt.
    """

    def __init__(self, folder: Path, attempt: int, tell: Callable[[Progress], None], every_s: float = _EVERY_S) -> None:
        self._folder = folder
        self._attempt = attempt
        self._tell = tell
        self._every_s = every_s
        self._written_at = time.monotonic()

    def __call__(self, progress: Progress) -> None:
        """Forward the progress."""
        self._tell(progress)

    def saved(self) -> State | None:
        """State of the latest attempt with a readable file; None: start from the beginning."""
        for attempt in range(self._attempt, 0, -1):
            try:
                content = self._path(attempt).read_bytes()
                state: State = torch.load(io.BytesIO(content), weights_only=True)
            except (OSError, pickle.UnpicklingError, RuntimeError, EOFError, ValueError):
                continue
            return state
        return None

    def save(self, state: Callable[[], State]) -> None:
        """Write the state atomically, unless the last one is younger than `every_s`."""
        if time.monotonic() - self._written_at < self._every_s:
            return
        buffer = io.BytesIO()
        torch.save(dict(state()), buffer)
        try:
            write_whole(buffer.getvalue(), self._path(self._attempt))
        except OSError as err:
            raise TrainingError(
                f"the resume point cannot be written ({err.strerror}): free some space in the store"
            ) from err
        self._written_at = time.monotonic()

    def _path(self, attempt: int) -> Path:
        return self._folder / f"resume-{attempt}.pt"
