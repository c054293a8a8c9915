"""Compare entries with statistics of the training data: find inputs that a network would answer, sure and wrong.

The numbers of an entry may lie within its bounds and still be of another scale or sign than the training data: pixels
in 0..1 for 0..255, black on white for white on black. A network answers such inputs with high confidence.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from numpy.typing import NDArray

from models.errors import InvalidInput

Entries = NDArray[Any]
Check = Callable[[Entries], Mapping[int, InvalidInput]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Bounds:
    """Bounds of a statistic of one entry: its range in the training data, with room on both sides.

    statistic  entries (N, *shape) -> (N,), vectorised: it runs on every request.
    low, high  None: not bounded.
    detail     value of the statistic out of bounds -> what is wrong and how to fix it; None to accept it.
    """

    statistic: Callable[[Entries], NDArray[Any]]
    low: float | None = None
    high: float | None = None
    detail: Callable[[float], str | None]

    def outside(self, values: NDArray[Any]) -> list[int]:
        """Return the positions of the values that are out of bounds."""
        below: list[int] = [] if self.low is None else (values < self.low).nonzero()[0].tolist()
        above: list[int] = [] if self.high is None else (values > self.high).nonzero()[0].tolist()
        return below + above


def accept_all(_: Entries) -> Mapping[int, InvalidInput]:
    """Accept every entry: the default of `ModelSpec.check`."""
    return {}


def within(*references: Bounds) -> Check:
    """Return a check that finds the entries with a statistic out of its bounds: the error of each, by position."""

    def check(entries: Entries) -> Mapping[int, InvalidInput]:
        errors: dict[int, InvalidInput] = {}
        for bounds in references:
            values = bounds.statistic(entries)
            for position in bounds.outside(values):
                detail = bounds.detail(float(values[position]))
                if detail is not None:
                    errors.setdefault(position, InvalidInput("Unlike the training data", detail))
        return errors

    return check
