"""Interface of a backend: load a checkpoint, get a network to run."""

from collections.abc import Callable
from concurrent.futures import Executor
from dataclasses import dataclass, field
from itertools import chain
from math import ceil
from pathlib import Path
from typing import Any, Literal, Protocol

from models.checkpoints.record import Record
from models.coding import Coder
from models.samples import Batch, joined, split
from models.spec import ModelSpec
from service.inference.backends.forms import AnyForm, Switched
from service.inference.pace import Pace

Run = Callable[[Any], Any]  # samples -> outputs, N of each: a Batch; an array for most models
Name = Literal["eager", "onnxruntime", "compile"]


@dataclass(frozen=True, slots=True, eq=False)
class Network:
    """A loaded network: `run` computes outputs (N, ...) of samples (N, ...), both on the host; `bulk` those of more
    than one batch. `aside` computes as `run` does, but in the calling thread alone, if the backend has such a function:
    with the priority of that thread. `reason` says why it is not in ONNX Runtime, if that was tried.

    Up to `brief` samples are so fast that the event loop may compute them, even while a thread computes others: handing
    them to a thread would cost more.
    `switched` is `run` with its numeric forms; None if the backend has none.
    """

    run: Run
    bulk: Run
    backend: Name
    reason: str = ""
    brief: int = 0
    pace: Pace = field(default_factory=Pace)
    aside: Run | None = None
    switched: Switched | None = None

    def form_of(self, size: int, began: float) -> AnyForm | None:
        """Return the numeric form that has computed a batch of `size` samples; None if it is not known, or if the
        backend has no forms. See Switched.form_of.
        """
        if self.switched is None:
            return None
        return self.switched.form_of(size, began, whole=size <= min(self.brief, self.pace.at_once))


class Backend(Protocol):
    """Loads networks."""

    def load(self, model: str, spec: ModelSpec, path: Path, record: Record, coder: Coder | None = None) -> Network:
        """Load the checkpoint at `path`, ready to compute. Named inputs are encoded by `coder`, that of the version.

        Raises CheckpointError.
        """
        ...

    def close(self) -> None:
        """Stop the backend's own threads."""
        ...


def in_slices(
    run: Run,
    max_batch: int,
    pool: Executor | None = None,
    at_once: int = 1,
) -> Run:
    """Compute any number of samples in slices of at most `max_batch`: in this thread, or in `at_once` threads, which
    are this one and those of `pool`.

    The number of slices is a multiple of `at_once` and their sizes differ by at most one sample, so that all threads
    finish together. Slices taken from a shared queue would make the threads wait for each other at every slice.
    """

    def compute(share: Batch, slices: int) -> list[Batch]:
        return [run(part) for part in split(share, slices)]

    def bulk(samples: Batch) -> Batch:
        slices = ceil(len(samples) / (max_batch * at_once))  # samples per thread
        first, *rest = split(samples, at_once)
        others = [pool.submit(compute, share, slices) for share in rest] if pool else []
        outputs = compute(first, slices)
        return joined([*outputs, *chain.from_iterable(other.result() for other in others)])

    return bulk
