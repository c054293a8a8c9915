"""Networks on the device: load, warm up, swap, compute a batch."""

import asyncio
from collections.abc import Callable, Mapping
from concurrent.futures import Executor, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import nn

from models import checkpoint
from models.checkpoint import CheckpointError
from models.record import Record
from models.spec import Array, ModelSpec
from service.errors import NothingLive


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Loaded:
    """One version of a model, on the device, warmed up."""

    model: str
    version: int
    spec: ModelSpec
    network: nn.Module
    record: Record


class Engine:
    """Holds the network that answers, for each model, and computes with it in one thread of its own.

    A batch takes the network once, before it starts; `swap` is one assignment. So no lock is needed, every answer of
    a batch comes from one version, and the old network lives on until its last batch is done.
    """

    def __init__(self, specs: Mapping[str, ModelSpec], device: torch.device, max_batch: int) -> None:
        self.device = device
        self._specs = specs
        self._max_batch = max_batch
        self._live: dict[str, Loaded] = {}
        if device.type == "cpu":  # networks this small gain nothing from a second thread, and lose when training has it
            torch.set_num_threads(1)
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

    async def load(self, model: str, version: int, path: Path, record: Record) -> Loaded:
        """Read a checkpoint, bring it onto the device and warm it up with the spec's example, off the event loop.

        Raises CheckpointError; what answers now goes on answering.
        """
        return await asyncio.to_thread(self._load, model, version, path, record)

    def swap(self, loaded: Loaded) -> None:
        """From the next batch on, `loaded` answers for its model."""
        self._live[loaded.model] = loaded

    async def compute(self, loaded: Loaded, samples: Array) -> Array:
        """Samples (N, ...) -> values (N, k) float32, in slices of at most max_batch samples."""
        return await self._in_thread(lambda: self._values(loaded, samples))

    def close(self) -> None:
        """End the thread, after the batch in hand."""
        self._thread.shutdown()

    async def _in_thread(self, function: Callable[[], Array]) -> Array:
        return await asyncio.get_running_loop().run_in_executor(self._thread, function)

    def _load(self, model: str, version: int, path: Path, record: Record) -> Loaded:
        spec = self._specs[model]
        network, record = checkpoint.load(model, spec, path, record)
        try:
            network = network.to(self.device)
            loaded = Loaded(model=model, version=version, spec=spec, network=network, record=record)
            values = self._values(loaded, spec.preprocess(spec.example))
        except (RuntimeError, ValueError, TypeError) as err:
            raise CheckpointError(f"{path.name} loads, but fails on the model's example: {err}") from err
        if not np.isfinite(values).all():
            raise CheckpointError(f"{path.name} loads, but answers the model's example with NaN or infinity")
        return loaded

    def _values(self, loaded: Loaded, samples: Array) -> Array:
        tensor = torch.from_numpy(samples if samples.flags.writeable else samples.copy())
        with torch.inference_mode():
            slices = [
                loaded.network(tensor[start : start + self._max_batch].to(self.device)).cpu()
                for start in range(0, len(samples), self._max_batch)
            ]
        outputs = slices[0] if len(slices) == 1 else torch.cat(slices)
        return loaded.spec.postprocess(outputs.numpy())
