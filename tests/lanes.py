"""Fake networks for the batcher."""

from collections.abc import Awaitable, Callable, Hashable
from dataclasses import dataclass, field

from models.spec import Array
from service.inference.pace import Pace

Compute = Callable[[Hashable, Array], Awaitable[Array]]  # lane, samples (N, ...) -> values (N, k)


class Steady(Pace):
    """A pace that learns nothing."""

    def __init__(self, at_once: int) -> None:
        super().__init__()
        self.at_once = at_once

    def learn(self, samples: int, seconds: float) -> None:
        """Learn nothing."""


@dataclass
class Fake:
    """A Forward whose slices an async function computes, and whose brief batches a function computes."""

    lane: Hashable
    compute: Compute
    version: int = 7
    brief: int = 0
    pace: Pace = field(default_factory=lambda: Steady(1000))
    at_once: Callable[[Array], Array] | None = None
    left: int = 0  # threads that hung

    def now(self, samples: Array) -> Array:
        """See Forward."""
        assert self.at_once
        return self.at_once(samples)

    def leave_thread(self) -> None:
        """See Forward."""
        self.left += 1

    def later(self, samples: Array) -> Awaitable[Array]:
        """See Forward."""
        return self.compute(self.lane, samples)
