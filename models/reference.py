"""Compare entries with statistics of the training data: find inputs that a network would answer, sure and wrong.

The numbers of an entry may lie within its bounds and still be of another scale or sign than the training data: pixels
in 0..1 for 0..255, black on white for white on black. A network answers such inputs with high confidence.

A spec names statistics. A run measures them on its training split; their ranges are the `reference` of the version's
record, and the version is served with bounds that follow from them. Without a reference, the spec's bounds apply.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol, Self

import numpy as np
from numpy.typing import NDArray

from models.errors import InvalidInput

Entries = NDArray[Any]
Check = Callable[[Entries], Mapping[int, InvalidInput]]
Room = Callable[[float, float], tuple[float, float]]
Range = Sequence[Any]  # least and greatest value: two numbers, or two lists of one number for each feature

_FEW = 8  # values that Python compares faster than NumPy
_CHUNK = 4096  # entries that are measured at once: bounds the memory


class Statistic(Protocol):
    """A statistic with bounds: `Bounds`, or `Features`."""

    @property
    def name(self) -> str:
        """Key of the statistic in a version's reference."""

    def values(self, entries: Entries) -> NDArray[Any]:
        """Compute the statistic of entries (N, *shape): (N,), or (N, K) for K features."""

    def bounded_by(self, found: Range) -> Self:
        """Return the statistic with the bounds that follow from its range in the training data."""

    def faults(self, entries: Entries) -> Mapping[int, str]:
        """Find the entries whose statistic is out of bounds: the fault of each, by position."""


def wider_by(share: float) -> Room:
    """Return a room of `share` of the range's width on both sides of the range."""
    return lambda low, high: (low - share * (high - low), high + share * (high - low))


_half_wider = wider_by(0.5)


@dataclass(frozen=True, slots=True, kw_only=True)
class Bounds:
    """Bounds of one number of each entry.

    name       key of the statistic in a version's reference.
    statistic  entries (N, *shape) -> (N,), vectorised: it runs on every request.
    low, high  bounds of a version without a reference; None: not bounded.
    room       least and greatest value in the training split -> bounds of a version with that reference. A side that
               is not to be bounded gets an infinity.
    detail     value of the statistic out of bounds -> the fault and how to fix it; None to accept it.
    """

    name: str
    statistic: Callable[[Entries], NDArray[Any]]
    low: float | None = None
    high: float | None = None
    room: Room = _half_wider
    detail: Callable[[float], str | None]

    def values(self, entries: Entries) -> NDArray[Any]:
        """See Statistic."""
        return self.statistic(entries)

    def bounded_by(self, found: Range) -> Self:
        """See Statistic."""
        low, high = self.room(float(found[0]), float(found[1]))
        return replace(self, low=low if math.isfinite(low) else None, high=high if math.isfinite(high) else None)

    def faults(self, entries: Entries) -> Mapping[int, str]:
        """See Statistic."""
        values = self.statistic(entries)
        if len(values) <= _FEW and not any(map(self._is_out, values.tolist())):
            return {}
        below: list[int] = [] if self.low is None else (values < self.low).nonzero()[0].tolist()
        above: list[int] = [] if self.high is None else (values > self.high).nonzero()[0].tolist()
        if not below and not above:
            return {}
        details = {position: self.detail(float(values[position])) for position in below + above}
        return {position: detail for position, detail in details.items() if detail is not None}

    def _is_out(self, value: float) -> bool:
        return (self.low is not None and value < self.low) or (self.high is not None and value > self.high)


@dataclass(frozen=True, slots=True, kw_only=True)
class Features:
    """Bounds of each number of an entry, the features of a row of a table: their ranges in the training data with room.

    A version without a reference has no bounds. A feature that is constant in the training data has none either.

    room   of the width of a feature's range, on both sides of it.
    names  of the features, for the words of errors; without names they are numbered from 0.
    found  the ranges: low (K,), high (K,).
    """

    name: str = "features"
    room: float = 1.0
    names: Sequence[str] = ()
    found: tuple[NDArray[np.float64], NDArray[np.float64]] | None = None

    def values(self, entries: Entries) -> NDArray[Any]:
        """See Statistic."""
        return entries.reshape(len(entries), -1)

    def bounded_by(self, found: Range) -> Self:
        """See Statistic."""
        low, high = (np.asarray(side, np.float64) for side in found)
        return replace(self, found=(low, high))

    def faults(self, entries: Entries) -> Mapping[int, str]:
        """See Statistic."""
        if self.found is None:
            return {}
        low, high = self.found
        room = np.where(high > low, self.room * (high - low), np.inf)
        values = self.values(entries)
        outside: NDArray[np.bool_] = (values < low - room) | (values > high + room)
        if not outside.any():
            return {}
        firsts = {int(position): int(outside[position].argmax()) for position in np.flatnonzero(outside.any(axis=1))}
        return {position: self._words(values[position, place], place) for position, place in firsts.items()}

    def _words(self, value: float, place: int) -> str:
        assert self.found
        name = self.names[place] if place < len(self.names) else f"feature {place}"
        low, high = (side[place] for side in self.found)
        return f"{name} is {value:g}: the training data has {low:g} to {high:g}"


@dataclass(frozen=True, slots=True)
class Reference:
    """A check of entries by statistics: groups of statistics, each with the function that prepares its entries.

    `clear` may say of entries (N, *shape) that each is within the bounds of every statistic, those of any version, in
    less time than the statistics take; it is asked if they are few. False: the statistics decide.
    """

    groups: tuple[tuple[Callable[[Entries], NDArray[Any]], tuple[Statistic, ...]], ...]
    clear: Callable[[Entries], bool] | None = None

    def __call__(self, entries: Entries) -> Mapping[int, InvalidInput]:
        """Find the entries with a statistic out of its bounds: the error of the first one, by position."""
        errors: dict[int, InvalidInput] = {}
        if self.clear is not None and len(entries) <= _FEW and self.clear(entries):
            return errors
        for prepared, statistics in self.groups:
            ready = prepared(entries)
            for statistic in statistics:
                for position, detail in statistic.faults(ready).items():
                    errors.setdefault(position, InvalidInput("Unlike the training data", detail))
        return errors

    def then(self, other: "Reference") -> "Reference":
        """Return a check by the statistics of both; an entry gets the error of the first that it is out of."""
        return replace(self, groups=self.groups + other.groups)

    def measured(self, entries: Entries) -> dict[str, Range]:
        """Return the range of each statistic over entries (N, *shape), by its name; only those that are finite."""
        found: dict[str, Range] = {}
        for prepared, statistics in self.groups:
            for statistic in statistics:
                low, high = _range(statistic, prepared, entries)
                if np.isfinite(low).all() and np.isfinite(high).all():
                    found[statistic.name] = [low.tolist(), high.tolist()]
        return found

    def bounded_by(self, reference: Mapping[str, Range]) -> "Reference":
        """Return the check with the bounds that follow from a version's reference; other statistics keep theirs."""
        groups = tuple(
            (
                prepared,
                tuple(one.bounded_by(reference[one.name]) if one.name in reference else one for one in group),
            )
            for prepared, group in self.groups
        )
        return replace(self, groups=groups)

    def unless(self, clear: Callable[[Entries], bool]) -> "Reference":
        """Return the check with this `clear`."""
        return replace(self, clear=clear)


def _range(
    statistic: Statistic, prepared: Callable[[Entries], NDArray[Any]], entries: Entries
) -> tuple[NDArray[Any], NDArray[Any]]:
    """Return the least and the greatest value, over chunks of the entries: float64 () or (K,)."""
    chunks = (entries[start : start + _CHUNK] for start in range(0, len(entries), _CHUNK))
    values = [statistic.values(prepared(chunk)).astype(np.float64) for chunk in chunks]
    return np.min([one.min(axis=0) for one in values], axis=0), np.max([one.max(axis=0) for one in values], axis=0)


def widened(one: Mapping[str, Range], other: Mapping[str, Range]) -> dict[str, Range]:
    """Return the ranges over the entries of both; statistics that one of them lacks were not finite."""
    return {
        name: [np.minimum(low, other[name][0]).tolist(), np.maximum(high, other[name][1]).tolist()]
        for name, (low, high) in one.items()
        if name in other
    }


def accept_all(_: Entries) -> Mapping[int, InvalidInput]:
    """Accept every entry: the default of `ModelSpec.check`."""
    return {}


def as_they_are(entries: Entries) -> Entries:
    """Return the entries: the default of what `within` prepares."""
    return entries


def within(*statistics: Statistic, of: Callable[[Entries], NDArray[Any]] = as_they_are) -> Reference:
    """Return a check that finds the entries with a statistic out of its bounds.

    `of` prepares the entries once for all of these statistics: they get its result.
    """
    return Reference(((of, statistics),))


def feature_ranges(*names: str, room: float = 1.0) -> Reference:
    """Return a check of rows of numbers: each feature must lie in its range in the training data.

    `room`, of the width of the range, is allowed on both sides. `names` of the features are for the words of errors.
    """
    return within(Features(names=names, room=room))
