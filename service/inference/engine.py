"""Networks on the device: load, warm up, swap, compute a batch."""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from weakref import WeakValueDictionary

from models.artifacts import Artifacts
from models.catalog import Specs
from models.checkpoints import artifact_files
from models.checkpoints.record import Record
from models.coding import Coder
from models.errors import CheckpointError, InvalidInput
from models.outputs import description, postprocessing
from models.reference import Check, Reference
from models.samples import Batch, Columns, joined, rejoined
from models.spec import Array, ModelSpec, Prediction
from service.errors import NothingLive, ServiceError, StillLoading
from service.execution.daemon_thread import DaemonThread
from service.inference.backends.backend import Backend, Network
from service.inference.pace import RaggedPace
from service.inference.rehearsal import rehearse

_CLOSE_S = 10.0  # that the end waits for a batch


@dataclass(frozen=True, slots=True, kw_only=True, eq=False, weakref_slot=True)
class Loaded:
    """One version of a model, on the device and warmed up."""

    model: str
    version: int
    spec: ModelSpec
    network: Network
    record: Record
    artifacts: Artifacts
    coder: Coder | None  # of a model with named inputs
    postprocess: Callable[[Any], Any]
    describe: Callable[[Any], Sequence[Prediction]]


class Engine:
    """Holds the live network of each model, and computes with it, in the caller's thread or in its own.

    A batch takes the network once, before it starts; `swap` is one assignment. So no lock is needed, every answer of a
    batch comes from one version, and the old network stays alive until its last batch is done.

    `loading` are the models whose live version is being looked up or loaded, at first all; `faults` says of a model why
    its version could not be loaded. The rollout keeps both; they decide how a request for a model without a network is
    refused.
    """

    def __init__(self, specs: Mapping[str, ModelSpec], backend: Backend, max_batch: int) -> None:
        self._specs = specs
        self._backend = backend
        self._max_batch = max_batch
        self._live: dict[str, Loaded] = {}
        self._unloaded: WeakValueDictionary[str, Loaded] = WeakValueDictionary()  # those that batches still use
        self.loading = set(specs)
        self.faults: dict[str, str] = {}
        self._thread = DaemonThread("engine")

    def loaded(self, model: str) -> Loaded | None:
        """Return the version that is live in this process, or None."""
        return self._live.get(model)

    def live(self, model: str) -> Loaded:
        """Return the version that is live in this process. Raises NothingLive or StillLoading."""
        try:
            return self._live[model]
        except KeyError as err:
            if (unloaded := self._unloaded.get(model)) is not None:
                return unloaded
            raise self.absence(model) from err

    def absence(self, model: str) -> ServiceError:
        """Say why no version of a model is loaded."""
        if model in self.faults:
            return NothingLive(f"{model} could not be loaded: {self.faults[model]}")
        if model in self.loading:
            return StillLoading(model)
        return NothingLive(f"{model} has no live version: train it (POST /train) or register a checkpoint")

    def served(self) -> Specs:
        """Return the specs, each with the check of the version that is live when it is called."""
        faults = self._specs.faults if isinstance(self._specs, Specs) else {}
        checked = {
            name: replace(spec, check=self.check_of(name)) if spec.entry else spec for name, spec in self._specs.items()
        }
        return Specs(checked, faults)

    def check_of(self, model: str) -> Check:
        """Return the check of the version that is live when it is called, or that of the spec."""
        spec = self._specs[model]

        def check(entries: Array) -> Mapping[int, InvalidInput]:
            loaded = self._live.get(model)
            return (spec if loaded is None else loaded.spec).check(entries)

        return check

    def load(self, model: str, version: int, path: Path, record: Record) -> Loaded:
        """Read a checkpoint, move it to the device and try the whole path with the spec's example. Blocks for seconds.

        Raises CheckpointError. The live version is not affected.
        """
        spec = _bounded(self._specs[model], path, record)
        artifacts = artifact_files.load(record.artifacts, path.parent)
        coder = Coder(spec, artifacts) if spec.inputs else None
        network = self._backend.load(model, spec, path, record, coder)
        rehearse(model, spec, network.run, artifacts, coder)
        return Loaded(
            model=model,
            version=version,
            spec=spec,
            network=network,
            record=record,
            artifacts=artifacts,
            coder=coder,
            postprocess=postprocessing(spec, artifacts),
            describe=description(spec, artifacts),
        )

    def swap(self, loaded: Loaded) -> None:
        """Make `loaded` the live version of its model, from the next batch on."""
        self._live[loaded.model] = loaded
        self._unloaded.pop(loaded.model, None)

    def unload(self, model: str) -> None:
        """Give up the network of a model; a batch that waits for the device with it is still computed."""
        self._unloaded[model] = self._live.pop(model)

    def compute_now(self, loaded: Loaded, samples: Batch) -> Any:
        """Compute values of N samples, float32 (N, k) or named arrays, in this thread."""
        compute = loaded.network.run if len(samples) <= self._max_batch else loaded.network.bulk
        return loaded.postprocess(compute(samples))

    def compute_aside(self, loaded: Loaded, samples: Batch, low: Executor) -> Any:
        """Compute values of N samples in slices of bounded time, for work that no caller waits for: `low` runs the
        network, this thread does the rest.
        """
        network, pace = loaded.network, loaded.network.pace
        run = network.aside or network.run
        order = pace.order(samples) if isinstance(pace, RaggedPace) and isinstance(samples, Columns) else None
        ordered = samples if order is None or not isinstance(samples, Columns) else samples.take(order)
        parts, row = [], 0
        while row < len(ordered):
            size = min(pace.cut(ordered, row)[0], self._max_batch)
            parts.append(loaded.postprocess(low.submit(run, ordered[row : row + size]).result()))
            row += size
        values = parts[0] if len(parts) == 1 else joined(parts)
        return values if order is None else rejoined([values], [order])

    def compute(self, loaded: Loaded, samples: Batch) -> "asyncio.Future[Any]":
        """Compute values of N samples in the engine's thread."""
        return asyncio.get_running_loop().run_in_executor(self._thread, self.compute_now, loaded, samples)

    def leave_thread(self) -> None:
        """Compute in a new thread from now on; the one that hangs ends when its network returns."""
        self._thread.shutdown()
        self._thread = DaemonThread("engine")

    def close(self) -> None:
        """Stop the thread after the current batch, and those of the backend."""
        self._thread.shutdown()
        self._thread.join(_CLOSE_S)
        self._backend.close()


def _bounded(spec: ModelSpec, path: Path, record: Record) -> ModelSpec:
    """Return the spec with the bounds that follow from the record's reference. Raises CheckpointError."""
    if not record.reference or not isinstance(spec.check, Reference):
        return spec
    try:
        check = spec.check.bounded_by(record.reference)
        check(spec.example)
    except (ValueError, TypeError, LookupError) as err:
        raise CheckpointError(f"the reference in the record of {path.name} does not fit the model's check") from err
    return replace(spec, check=check)
