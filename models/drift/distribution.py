"""A distribution of numbers over quantile bins, or of codes over labels: its bins and the counts in them."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Annotated, Any, Literal, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, ValidationError

BINS = 10
MOST_LABELS = 100  # an answer or a category with more of them is not counted
_MOST_EDGES = 2 * BINS + 2
_ROOM = 1e-6  # of the range, beyond its ends: edges are rounded
_BESIDE = 1e-5  # of the range
Kind = Literal["feature", "answer"]
Counts = NDArray[np.int64]


class _Form(BaseModel):
    """A distribution in a record."""

    model_config = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)

    kind: Kind
    name: str = Field(min_length=1, max_length=100)
    edges: list[float] = Field(default=[], max_length=_MOST_EDGES)
    labels: list[str] = Field(default=[], max_length=MOST_LABELS)
    counts: list[Annotated[int, Field(ge=0, le=2**53)]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Distribution:
    """Counts of one feature or answer in the data of a version.

    edges   k increasing numbers; the last bin includes its upper edge. Empty with labels.
    labels  names of the codes 0, 1, ...; empty with edges.
    counts  of numbers: below the edges, in each of k - 1 bins, above, not finite: k + 2; of labels: each, and others
    """

    kind: Kind
    name: str
    edges: tuple[float, ...] = ()
    labels: tuple[str, ...] = ()
    counts: tuple[int, ...]

    @classmethod
    def of_numbers(cls, kind: Kind, name: str, numbers: NDArray[Any]) -> Self | None:
        """Measure numbers (N,): BINS quantile bins, and a bin for each value that has the share of one.

        None if none of them is finite.
        """
        given = numbers.astype(np.float64)
        finite = given[np.isfinite(given)]
        if not len(finite):
            return None
        edges = _edges(finite)
        return cls(kind=kind, name=name, edges=edges, counts=tuple(_binned(edges, given).tolist()))

    @classmethod
    def of_codes(cls, kind: Kind, name: str, labels: Sequence[object], codes: NDArray[Any]) -> Self:
        """Measure codes (N,) of at most MOST_LABELS labels."""
        counts = tuple(_labelled(len(labels), codes).tolist())
        return cls(kind=kind, name=name, labels=tuple(str(label)[:100] for label in labels), counts=counts)

    @classmethod
    def of_json(cls, given: object) -> Self:
        """Return the distribution that `as_json` wrote. Raises ValueError for anything else."""
        try:
            form = _Form.model_validate(given)
        except ValidationError as err:
            raise ValueError(f"no distribution: {err.errors()[0]['msg']}") from err
        edges, labels = tuple(form.edges), tuple(form.labels)
        found = cls(kind=form.kind, name=form.name, edges=edges, labels=labels, counts=tuple(form.counts))
        increasing = all(low < high for low, high in pairwise(edges))
        if bool(edges) == bool(labels) or len(edges) == 1 or not increasing or len(found.counts) != found.size:
            raise ValueError(f"no distribution: the bins of {form.name} and their counts do not fit each other")
        return found

    @property
    def title(self) -> str:
        """Its name among those of all features and answers."""
        return self.name if self.kind == "feature" else f"answers: {self.name}"

    @property
    def size(self) -> int:
        """Number of bins."""
        return len(self.edges) + 2 if self.edges else len(self.labels) + 1

    def place(self, values: NDArray[Any]) -> Counts:
        """Count numbers, or codes, (N,) in the bins: int64 (size,)."""
        return _binned(self.edges, values.astype(np.float64)) if self.edges else _labelled(len(self.labels), values)

    def bins(self) -> list[tuple[str, float | None, float | None]]:
        """Return the name and the bounds of each bin; None: without a bound."""
        if self.labels:
            return [*((label, None, None) for label in self.labels), ("others", None, None)]
        low, high = self.edges[0], self.edges[-1]
        between = [(f"{a:.4g} to {b:.4g}", a, b) for a, b in pairwise(self.edges)]
        outside = ((f"below {low:.4g}", None, low), (f"above {high:.4g}", high, None))
        return [outside[0], *between, outside[1], ("not finite", None, None)]

    def as_json(self) -> Mapping[str, Any]:
        """Return it for the record."""
        bins = {"edges": list(self.edges)} if self.edges else {"labels": list(self.labels)}
        return {"kind": self.kind, "name": self.name, **bins, "counts": list(self.counts)}


def _binned(edges: Sequence[float], numbers: NDArray[np.float64]) -> Counts:
    finite = numbers[np.isfinite(numbers)]
    bounds = [*edges[:-1], math.nextafter(edges[-1], math.inf)]
    places = np.searchsorted(bounds, finite, side="right")
    counts = np.bincount(places, minlength=len(bounds) + 1)
    return np.append(counts, len(numbers) - len(finite)).astype(np.int64)


def _labelled(labels: int, codes: NDArray[Any]) -> Counts:
    known = np.where((codes >= 0) & (codes < labels), codes, labels)
    return np.bincount(known.astype(np.int64), minlength=labels + 1).astype(np.int64)


def _edges(numbers: NDArray[np.float64]) -> tuple[float, ...]:
    """Return the ends of the range, and between them a cut at each quantile, around a value that has its own bin.

    Cuts lie between two neighbouring values, and not beside many: other rounding moves no value to another bin.
    """
    ordered = np.sort(numbers)
    values, counts = np.unique(ordered, return_counts=True)
    below = np.cumsum(counts) / len(numbers)
    places = set()
    for part in range(1, BINS):
        at = int(np.searchsorted(below, part / BINS - 1e-12))
        is_atom = counts[at] >= len(numbers) / BINS
        places |= {at, at - 1} if is_atom else {at}
    low, high = float(values[0]), float(values[-1])
    room = _ROOM * max(high - low, abs(low), abs(high), 1e-9)
    cuts = {_cut(ordered, *map(float, values[at : at + 2])) for at in places if 0 <= at < len(values) - 1}
    return (_rounded(low - room), *sorted(cut for cut in cuts if low < cut <= high), _rounded(high + room))


def _cut(ordered: NDArray[np.float64], low: float, high: float) -> float:
    """Return a number between two values, or near them, that has the fewest values beside it."""
    middle, width = low + (high - low) / 2, float(ordered[-1] - ordered[0])
    aside = [middle, middle - 10 * _BESIDE * width, middle + 10 * _BESIDE * width]
    reach = _BESIDE * width
    masses = [np.diff(np.searchsorted(ordered, (cut - reach, cut + reach)))[0] for cut in aside]
    best = aside[int(np.argmin(masses))]
    short = _rounded(best)
    return short if low < short <= high or best != middle else best


def _rounded(number: float) -> float:
    return float(f"{number:.7g}")
