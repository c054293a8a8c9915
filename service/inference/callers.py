"""Callers that wait for the same network, and those whose samples are computed together."""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from models.samples import Batch, Columns, joined, rejoined
from service.errors import DeadlineExceeded
from service.inference.pace import Pace, RaggedPace


class Forward(Protocol):
    """The network of a lane, taken once for a whole batch: all its slices are computed by one version."""

    @property
    def version(self) -> int:
        """The number that answers carry."""
        ...

    @property
    def brief(self) -> int:
        """How many samples `now` may compute; 0 if the device computes one batch at a time."""
        ...

    @property
    def pace(self) -> Pace:
        """The network's estimated time per sample; learns from each slice."""
        ...

    def now(self, samples: Any) -> Any:
        """Compute values (N, k) of samples (N, ...), and block the event loop meanwhile."""
        ...

    def later(self, samples: Any) -> Awaitable[Any]:
        """Compute values (N, k) of samples (N, ...) in a thread."""
        ...

    def leave_thread(self) -> None:
        """Compute later batches in another thread: the present one hangs."""
        ...


@dataclass(frozen=True, slots=True)
class Answer:
    """Values of one caller's N samples, all computed by one version, and the seconds spent.

    `values` is a Batch: an array (N, k), or named arrays.

    `finite`: the whole batch has only finite values. Otherwise some value is NaN or infinite, perhaps another caller's.
    """

    version: int
    values: Any
    finite: bool
    queue_s: float
    forward_s: float
    batch_size: int


class Receiver(Protocol):
    """The destination of an answer: a future, or an object that is called directly. Its methods raise nothing."""

    def done(self) -> bool:
        """Return whether an answer was set, or is no longer wanted."""
        ...

    def set_result(self, result: Answer, /) -> None:
        """Set the answer."""
        ...

    def set_exception(self, exception: Exception, /) -> None:
        """Set the error."""
        ...


@dataclass(slots=True, eq=False)
class Caller:
    samples: Batch
    receiver: Receiver
    arrived: float
    timeout_s: float
    alone: bool = False  # computed without others, because their batch failed

    @property
    def deadline(self) -> float:
        return self.arrived + self.timeout_s


@dataclass(slots=True, eq=False)
class Callers:
    """Callers whose samples are computed together by one network, and the values computed so far.

    Samples of different lengths are computed in another order than that of the callers: `order` has their positions.
    """

    callers: list[Caller]
    samples: Batch
    forward: Forward
    order: Sequence[int] | None = None
    parts: list[Batch] = field(default_factory=list)
    row: int = 0  # the first one that is not computed
    forward_s: float = 0.0
    computing: "asyncio.Future[Any] | None" = None
    hangs: bool = False

    @classmethod
    def of(cls, callers: list[Caller], forward: Forward) -> "Callers":
        """Put the callers' samples together, in the order of computing."""
        samples, pace = together(callers), forward.pace
        if isinstance(pace, RaggedPace) and isinstance(samples, Columns) and len(samples) > 1:
            order = pace.order(samples)
            return cls(callers, samples.take(order), forward, order)
        return cls(callers, samples, forward)

    @property
    def values(self) -> Batch:
        """The values of all samples, in the order of the callers."""
        values = self.parts[0] if len(self.parts) == 1 else joined(self.parts)
        return values if self.order is None else rejoined([values], [self.order])

    @property
    def is_wanted(self) -> bool:
        """Whether any caller still waits for it."""
        return any(not caller.receiver.done() for caller in self.callers)

    @property
    def left(self) -> int:
        """Number of samples still to be computed; 0 if no caller wants them any more."""
        return len(self.samples) - self.row if self.is_wanted else 0

    async def compute_slice(self, now: Callable[[], float]) -> None:
        """Compute the next slice. Raises DeadlineExceeded if it was given up."""
        size, cost = self.forward.pace.cut(self.samples, self.row)
        began = now()
        self.computing = asyncio.ensure_future(self.forward.later(self.samples[self.row : self.row + size]))
        try:
            self.parts.append(await self.computing)
        except asyncio.CancelledError as err:
            if self.hangs:
                raise DeadlineExceeded("the network hangs") from err
            raise
        finally:
            self.computing = None
        spent_s = now() - began
        self.forward.pace.learn(cost, spent_s)
        self.forward_s += spent_s
        self.row += size

    def give_up(self) -> None:
        """Wait no longer for the slice that is being computed, if there is one."""
        if self.computing is not None and not self.computing.done():
            self.hangs = True
            self.forward.leave_thread()
            self.computing.cancel()


def first(queue: deque[Caller], limit: int) -> list[Caller]:
    """Remove the first callers, with at most `limit` samples or alone; drop those that are done."""
    callers: list[Caller] = []
    size = 0
    while queue and (not callers or (size + len(queue[0].samples) <= limit and not queue[0].alone)):
        caller = queue.popleft()
        if not caller.receiver.done():
            callers.append(caller)
            size += len(caller.samples)
            if caller.alone:
                break
    return callers


def together(callers: list[Caller]) -> Batch:
    return callers[0].samples if len(callers) == 1 else joined([caller.samples for caller in callers])


def fail_or_retry(queue: deque[Caller], callers: list[Caller], err: Exception) -> None:
    """Fail a caller whose batch failed; of several, compute each again by itself, so that the others are answered."""
    waiting = [caller for caller in callers if not caller.receiver.done()]
    if len(callers) == 1:
        fail(waiting, err)
        return
    for caller in waiting:
        caller.alone = True
    queue.extendleft(reversed(waiting))


def fail(callers: Iterable[Caller], err: Exception) -> None:
    for caller in callers:
        if not caller.receiver.done():
            caller.receiver.set_exception(err)
