"""The whole way of a prediction, from top to bottom:

body -> `Decoder`: samples, bad ones fail alone (400, 413, 415, 422)
     -> `Admission`: load shedding before work is queued (429)
     -> `WorkingSet`: the network of an unloaded model, loaded again on demand (503, 504)
     -> `Batcher`: a bounded queue per lane, micro-batches, deadlines (504)
     -> `Engine`: forward passes of one network, taken once per batch; postprocessing (503 if nothing is live or loaded)
     -> `Answer`: values of one version, and the time that each stage took

Every protocol uses it: /predict through ASGI and through the fast path, and /v2. Requests differ in how they are read
and answered; nothing between differs.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable, Hashable
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from models.samples import Batch
from service.errors import DeadlineExceeded
from service.inference.admission import Admission
from service.inference.batcher import Answer, Batcher, Forward, Hold, Receiver, Take
from service.inference.decoding import Decoder, Samples
from service.inference.engine import Engine, Loaded
from service.inference.working_set import WorkingSet
from service.telemetry.metrics import Metrics


class Lane(NamedTuple):
    """The queue that a request waits in: that of the live version, or of one version: requested by its number, or the
    one that the samples were encoded for.
    """

    model: str
    pinned: Loaded | None


@dataclass(slots=True)
class Stopwatch:
    """Times of one request, in seconds of `time.perf_counter`."""

    arrived: float = field(default_factory=time.perf_counter)
    decoded: float = 0.0
    cold_s: float = 0.0  # until the network was loaded

    def stages(self, answer: Answer) -> tuple[float, float, float, float]:
        """Return the seconds spent on decode, queue, forward, and in total until now."""
        total_s = time.perf_counter() - self.arrived
        return self.decoded - self.arrived - self.cold_s, answer.queue_s, answer.forward_s, total_s


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Pipeline:
    """The stages of a prediction, wired to each other."""

    decoder: Decoder
    admission: Admission
    batcher: Batcher
    metrics: Metrics
    timeout_s: float
    networks: WorkingSet

    async def live(self, model: str, watch: Stopwatch | None = None) -> Loaded:
        """Return the live version of a model; if it is unloaded, load it first. The wait counts for the deadline.

        Raises QueueFull, DeadlineExceeded, NothingLive, StillLoading, StoreUnavailable.
        """
        if model not in self.networks.unloaded:
            return await self.networks.network(model)
        began = time.perf_counter()
        with self.admission:
            try:
                async with asyncio.timeout(self.timeout_s):
                    loaded = await self.networks.network(model)
            except TimeoutError as err:
                late = f"{model} was not loaded within {self.timeout_s:g} s: it is being loaded, try again"
                raise DeadlineExceeded(late) from err
        if watch is not None:
            watch.cold_s = time.perf_counter() - began
        return loaded

    async def predict(
        self,
        lane: Lane,
        decode: Callable[[], Awaitable[Samples]],
        watch: Stopwatch,
        timeout_s: float | None = None,
    ) -> tuple[Samples, Answer]:
        """Decode the body of one request and compute its samples.

        Raises QueueFull, DeadlineExceeded, NothingLive, StillLoading, or what `decode` or the network raised.
        """
        with self.admission:
            samples = await decode()
            watch.decoded = time.perf_counter()
            left_s = (self.timeout_s if timeout_s is None else timeout_s) - watch.cold_s
            answer = await self.batcher.submit(lane, samples.good, left_s)
        return samples, answer

    def start(self, lane: Lane, samples: Samples, receiver: Receiver) -> None:
        """Queue decoded samples without a task: `receiver` gets the answer, and must call `finish` then.

        Raises QueueFull.
        """
        self.admission.enter()
        self.batcher.enqueue(lane, samples.good, self.timeout_s, receiver)

    def finish(self, *, answered: bool) -> None:
        """Free the place of a request that `start` queued. `answered`: it was not refused with QueueFull."""
        self.admission.leave(answered=answered)


class _Forward:
    """See Forward. Counts each batch."""

    __slots__ = ("_engine", "_loaded", "_metrics", "brief", "pace", "version")

    def __init__(self, loaded: Loaded, engine: Engine, metrics: Metrics) -> None:
        self._loaded = loaded
        self._engine = engine
        self._metrics = metrics
        self.version = loaded.version
        self.brief = loaded.network.brief
        self.pace = loaded.network.pace

    def now(self, samples: Batch) -> Any:
        self._metrics.batch(self._loaded.model, len(samples))
        return self._engine.compute_now(self._loaded, samples)

    def later(self, samples: Batch) -> Awaitable[Any]:
        self._metrics.batch(self._loaded.model, len(samples))
        return self._engine.compute(self._loaded, samples)


def networks_of(engine: Engine, metrics: Metrics) -> Take:
    """Return the batcher's function that takes the network of a lane: the version asked for, else the live one."""

    def take(lane: Hashable) -> Forward:
        assert isinstance(lane, Lane)
        return _Forward(lane.pinned or engine.live(lane.model), engine, metrics)

    return take


def held_by(networks: WorkingSet) -> Hold | None:
    """Return the batcher's function that has the network of a lane loaded; None if all of them stay loaded."""
    if networks.limit is None:
        return None

    async def hold(lane: Hashable) -> object:
        assert isinstance(lane, Lane)
        return lane.pinned or await networks.network(lane.model)

    return hold
