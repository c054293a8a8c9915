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

_BRIEF_S = 0.004  # for so long the event loop may stand still: a thread beside it takes a tenth from the rate
_TRIES = 3  # of which the shortest counts: the first allocates, and other web processes load at the same time


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Loaded:
    """One version of a model, on the device, warmed up.

    `brief` samples take so little time that handing them to a thread would cost more.
    """

    model: str
    version: int
    spec: ModelSpec
    network: Network
    record: Record
    brief: int


class Engine:
    """Holds the network that answers, for each model, and computes with it: at once what takes less time than handing
    it to a thread and back would, the rest in one thread of its own.

    A batch takes the network once, before it starts; `swap` is one assignment. So no lock is needed, every answer of
    a batch comes from one version, and the old network lives on until its last batch is done.
    """

    def __init__(self, specs: Mapping[str, ModelSpec], backend: Backend, max_batch: int) -> None:
        self._specs = specs
        self._backend = backend
        self._max_batch = max_batch
        self._live: dict[str, Loaded] = {}
        self._thread: Executor = ThreadPoolExecutor(1, thread_name_prefix="engine")

    def loaded(self, model: str) -> Loaded | None:
        """The version that answers for `model` in this process."""
        return self._live.get(model)

    def live(self, model: str) -> Loaded:
        """The same. Raises NothingLive."""
        try:
            return self._live[model]
        except KeyError as err:
            raise NothingLive(f"{model} has no live version: train it (POST /train) or register a checkpoint") from err

    def load(self, model: str, version: int, path: Path, record: Record) -> Loaded:
        """Read a checkpoint, bring it onto the device and warm it up with the spec's example. Takes a while.

        Raises CheckpointError; what answers now goes on answering.
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
        """From the next batch on, `loaded` answers for its model."""
        self._live[loaded.model] = loaded

    async def compute(self, loaded: Loaded, samples: Array) -> Array:
        """Samples (N, ...) -> values (N, k) float32."""
        if len(samples) <= loaded.brief:
            return self._values(loaded, samples)
        return await asyncio.get_running_loop().run_in_executor(self._thread, self._values, loaded, samples)

    def close(self) -> None:
        """End the thread, after the batch in hand."""
        self._thread.shutdown()

    def _values(self, loaded: Loaded, samples: Array) -> Array:
        compute = loaded.network.run if len(samples) <= self._max_batch else loaded.network.bulk
        return loaded.spec.postprocess(compute(samples))


def _brief(run: Callable[[Array], Array], samples: Array, max_batch: int) -> int:
    """How many samples take at most _BRIEF_S, by a full batch of them; this warms that size up as well."""
    batch = np.resize(samples, (max_batch, *samples.shape[1:]))
    return int(max_batch * min(1.0, _BRIEF_S / min(_seconds(run, batch) for _ in range(_TRIES))))


def _seconds(run: Callable[[Array], Array], batch: Array) -> float:
    began = time.perf_counter()
    run(batch)
    return time.perf_counter() - began
