"""Interface of a backend: load a checkpoint, get a network to run."""

from collections.abc import Callable
from concurrent.futures import Executor
from dataclasses import dataclass
from itertools import chain
from math import ceil
from pathlib import Path
from typing import Literal, Protocol

import numpy as np

from models.checkpoints.record import Record
from models.spec import Array, ModelSpec

Name = Literal["eager", "onnxruntime", "compile"]


@dataclass(frozen=True, slots=True, eq=False)
class Network:
    """`run` computes outputs (N, ...) of samples (N, ...), both on the host; `bulk` those of more than one batch."""

    run: Callable[[Array], Array]
    bulk: Callable[[Array], Array]
    backend: Name


class Backend(Protocol):
    """Loads networks."""

    def load(self, model: str, spec: ModelSpec, path: Path, record: Record) -> Network:
        """The network of the checkpoint at `path`, ready to compute. Raises CheckpointError."""
        ...


def in_slices(
    run: Callable[[Array], Array],
    max_batch: int,
    pool: Executor | None = None,
    at_once: int = 1,
) -> Callable[[Array], Array]:
    """Any number of samples, in slices of at most `max_batch`: in this thread or, each with a share, in `at_once`: this
    one and threads of `pool`.

    Their number is a multiple of `at_once`, and they differ by one sample at most, so that all threads end together.
    Were they to take slices as they come, they would wait for each other at each.
    """

    def compute(share: Array, slices: int) -> list[Array]:
        return [run(part) for part in np.array_split(share, slices)]

    def bulk(samples: Array) -> Array:
        slices = ceil(len(samples) / (max_batch * at_once))  # of each share
        first, *rest = np.array_split(samples, at_once)
        others = [pool.submit(compute, share, slices) for share in rest] if pool else []
        outputs = compute(first, slices)
        return np.concatenate([*outputs, *chain.from_iterable(other.result() for other in others)])

    return bulk
