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
import logging
import time
from collections.abc import Awaitable, Callable, Hashable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol, TypeVar

from models.errors import InvalidInput
from models.samples import Batch
from service.errors import DeadlineExceeded, ServiceError
from service.inference.admission import Admission
from service.inference.batcher import Batcher, Hold, Take
from service.inference.callers import Answer, Forward, Receiver
from service.inference.decoding import Decoder, Samples
from service.inference.engine import Engine, Loaded
from service.inference.working_set import WorkingSet
from service.telemetry.metrics import Metrics
from service.telemetry.served import Observers

log = logging.getLogger(__name__)
Show = Callable[[Samples, Answer | Exception], None]  # show the outcome of decoded samples to observers
_T = TypeVar("_T")


class Lane(NamedTuple):
    """The queue that a request waits in: that of the live version, or of one version: requested by its number, or the
    one that the samples were encoded for.
    """

    model: str
    pinned: Loaded | None
    by_number: bool = False  # the request names its version, so a trial neither chooses it nor counts the request


class Canary(Protocol):
    """A candidate version that answers a share of a model's requests. Its methods raise nothing."""

    def candidate_for(self, headers: Mapping[bytes, bytes], stem: str) -> Loaded | None:
        """Return the candidate if it answers this request; None: the live version does."""
        ...

    def ended(
        self,
        pinned: Loaded | None,
        headers: Mapping[bytes, bytes],
        stem: str,
        samples: Samples,
        outcome: Answer | Exception,
    ) -> None:
        """Count a request that named no version and has ended; `pinned` is the version of its lane."""
        ...


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
    canaries: dict[str, Canary] = field(default_factory=dict)  # by model; the trials keep it
    observers: Observers = field(default_factory=Observers)

    def candidate(self, model: str, headers: Mapping[bytes, bytes], stem: str) -> Loaded | None:
        """Return the candidate of an open trial if it answers a request that names no version."""
        canary = self.canaries.get(model)
        return None if canary is None else canary.candidate_for(headers, stem)

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
        show: Show | None = None,
    ) -> tuple[Samples, Answer]:
        """Decode the body of one request and compute its samples. `show` is called with an error of the network; the
        caller shows the rest, see `reply_then_show`.

        Raises QueueFull, DeadlineExceeded, NothingLive, StillLoading, or what `decode` or the network raised.
        """
        with self.admission:
            samples = await decode()
            watch.decoded = time.perf_counter()
            left_s = (self.timeout_s if timeout_s is None else timeout_s) - watch.cold_s
            try:
                answer = await self.batcher.submit(lane, samples.good, left_s)
            except Exception as err:
                if show is not None:
                    show(samples, err)
                raise
        return samples, answer

    def start(self, lane: Lane, samples: Samples, receiver: Receiver, timeout_s: float | None = None) -> None:
        """Queue decoded samples without a task: `receiver` gets the answer, and must call `finish` then.

        `timeout_s`: None for that of the service. Raises QueueFull.
        """
        self.admission.enter()
        self.batcher.enqueue(lane, samples.good, self.timeout_s if timeout_s is None else timeout_s, receiver)

    def finish(self, *, answered: bool) -> None:
        """Free the place of a request that `start` queued. `answered`: it was not refused with QueueFull."""
        self.admission.leave(answered=answered)


async def reply_then_show(show: Show | None, samples: Samples, answer: Answer, reply: Awaitable[_T]) -> _T:
    """Await the reply to samples, and show the outcome: the answer, or what describing it raised.

    An answer that is refused, as with NaN, or that a client does not wait for, is an answer all the same.
    """
    outcome: Answer | Exception = answer
    try:
        return await reply
    except Exception as err:
        outcome = outcome_of(answer, err)
        raise
    finally:
        if show is not None:
            show(samples, outcome)


def outcome_of(answer: Answer, err: Exception) -> Answer | Exception:
    """Return the outcome of a request whose answer was not sent because of an error: the error, if the version raised
    it, else the answer.
    """
    return answer if isinstance(err, InvalidInput | ServiceError) else err


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

    def leave_thread(self) -> None:
        log.error(
            "network hangs: its thread is left alone", extra={"model": self._loaded.model, "version": self.version}
        )
        self._engine.leave_thread()


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
