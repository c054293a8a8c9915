"""Plot of a running job, redrawn while it runs."""

import contextlib
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from torch import nn

from models.checkpoints.storage import Storage
from models.errors import ObjectsUnavailable
from models.messages import Fit
from training.recipe import Dataset, Progress, Recipe, TrainingError
from training.report import plots

EVERY_S = 2.0
_TIMES = 9  # as long as it takes to put a plot into an object store, a run goes on before the next one


class LivePlot:
    """The job's plot, redrawn at intervals while it runs: first after `every_s`, since many jobs have ended by then.

    A plot that cannot be written, or given to the object store of `storage`, does not stop the job.
    """

    def __init__(
        self,
        order: Fit,
        recipe: Recipe[Any],
        path: Path,
        every_s: float = EVERY_S,
        storage: Storage | None = None,
    ) -> None:
        self._every_s = every_s
        self._pause_s = every_s
        self._storage = storage
        self._title = f"{order.model}, job {order.job[:8]}"
        self._recipe = recipe
        self._path = path
        self._points = list(order.history)
        self._drawn_at = time.monotonic()

    def add(self, progress: Progress) -> None:
        while self._points and self._points[-1].step >= progress.step:  # a resumed run repeats some
            self._points.pop()
        self._points.append(progress)
        if time.monotonic() - self._drawn_at > self._pause_s:
            self.draw()

    @contextlib.contextmanager
    def whole_if_it_fails(self) -> Iterator[None]:
        """Draw the remaining points too if the run ends in a TrainingError."""
        try:
            yield
        except TrainingError:
            if self._points:
                self.draw()
            raise

    def draw(self, network: nn.Module | None = None, dataset: Dataset | None = None) -> None:
        began = time.monotonic()
        with contextlib.suppress(TrainingError, OSError, ObjectsUnavailable):
            plots.save(plots.draw(self._title, self._points, self._recipe, network, dataset), self._path)
            if self._storage is not None:
                self._storage.replace(self._path)
        self._drawn_at = time.monotonic()
        if self._storage is not None and self._storage.copies is not None:
            self._pause_s = max(self._every_s, _TIMES * (self._drawn_at - began))
