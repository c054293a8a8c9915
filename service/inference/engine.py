"""Networks on the device: load, warm up, swap, compute a batch."""

import asyncio
import time
from collections.abc import Callable, Mapping
from concurrent.futures import Executor, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from models.checkpoints.record import Record
from models.errors import CheckpointError
from models.spec import Array, ModelSpec
from service.errors import NothingLive
from service.inference.backends.backend import Backend, Network

_BRIEF_S = 0.004  # how long the event loop may block: handing a batch to a thread costs a tenth of the rate
_TRIES = 3  # the shortest counts: the first run allocates, and other web processes may be loading


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Loaded:
    """One version of a model, on the device and warmed up.

    A batch of up to `brief` samples is so fast that handing it to a thread would cost more.
    """

    model: str
    version: int
    spec: ModelSpec
    network: Network
    record: Record
    brief: int


class Engine:
    """Holds the live network of each model, and computes with it: short batches on the event loop, others in one
    thread.

    A batch takes the network once, before it starts; `swap` is one assignment. So no lock is needed, every answer of a
    batch comes from one version, and the old network stays alive until its last batch is done.
    """

    def __init__(self, specs: Mapping[str, ModelSpec], backend: Backend, max_batch: int) -> None:
        self._specs = specs
        self._backend = backend
        self._max_batch = max_batch
        self._live: dict[str, Loaded] = {}
        self._thread: Executor = ThreadPoolExecutor(1, thread_name_prefix="engine")

    def loaded(self, model: str) -> Loaded | None:
        """Return the version that is live in this process, or None."""
        return self._live.get(model)

    def live(self, model: str) -> Loaded:
        """Return the version that is live in this process. Raises NothingLive."""
        try:
            return self._live[model]
        except KeyError as err:
            raise NothingLive(f"{model} has no live version: train it (POST /train) or register a checkpoint") from err

    def load(self, model: str, version: int, path: Path, record: Record) -> Loaded:
        """Read a checkpoint, move it to the device and warm it up with the spec's example. Blocks for seconds.

        Raises CheckpointError. The live version is not affected.
        """
        spec = self._specs[model]
        network = self._backend.load(model, spec, path, record)
        try:
            samples = spec.preprocess(spec.example)
            values = spec.postprocess(network.run(samples))
            brief = _brief(network.run, samples, self._max_batch) if network.backend == "onnxruntime" else 0
        except (RuntimeError, ValueError, TypeError) as err:
            raise CheckpointError(f"{path.name} loads, but fails on the model's example: {err}") from err
        if not np.isfinite(values).all():
            raise CheckpointError(f"{path.name} loads, but answers the model's example with NaN or infinity")
        return Loaded(
            model=model,
            version=version,
            spec=spec,
            network=network,
            record=record,
            brief=brief,
        )

    def swap(self, loaded: Loaded) -> None:
        """Make `loaded` the live version of its model, from the next batch on."""
        self._live[loaded.model] = loaded

    async def compute(self, loaded: Loaded, samples: Array) -> Array:
        """Compute values (N, k) float32 of samples (N, ...)."""
        if len(samples) <= loaded.brief:
            return self._values(loaded, samples)
        return await asyncio.get_running_loop().run_in_executor(self._thread, self._values, loaded, samples)

    def close(self) -> None:
        """Stop the thread after the current batch."""
        self._thread.shutdown()

    def _values(self, loaded: Loaded, samples: Array) -> Array:
        compute = loaded.network.run if len(samples) <= self._max_batch else loaded.network.bulk
        return loaded.spec.postprocess(compute(samples))


def _brief(run: Callable[[Array], Array], samples: Array, max_batch: int) -> int:
    """Return how many samples take at most _BRIEF_S, from the time of a full batch, which warms up that size too."""
    batch = np.resize(samples, (max_batch, *samples.shape[1:]))
    return int(max_batch * min(1.0, _BRIEF_S / min(_seconds(run, batch) for _ in range(_TRIES))))


def _seconds(run: Callable[[Array], Array], batch: Array) -> float:
    began = time.perf_counter()
    run(batch)
    return time.perf_counter() - began
