"""Samples and values of a batch: one array (N, ...), or several named ones. Needs no torch."""

from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise

import numpy as np

from models.signature import Array

Column = Array | list[Array]  # (N, ...), or N arrays of different shapes


class Columns:
    """Named arrays of N samples each; a list of N arrays if their shapes differ.

    `columns[2:5]` are some of the samples; those of equal shapes are one array again, whatever the others are.
    """

    __slots__ = ("_count", "arrays")

    def __init__(self, arrays: Mapping[str, Column]) -> None:
        self.arrays = arrays
        self._count = len(next(iter(arrays.values()))) if arrays else 0

    @classmethod
    def of(cls, samples: Sequence[Mapping[str, Array]]) -> "Columns":
        """Stack the arrays of samples that were coded one by one. float64 becomes float32, as networks expect."""
        return cls.stacked({name: [_narrow(np.asarray(sample[name])) for sample in samples] for name in samples[0]})

    @classmethod
    def stacked(cls, rows: Mapping[str, list[Array]]) -> "Columns":
        """Stack N arrays under each name, if their shapes are equal."""
        return cls({name: _stacked(arrays) for name, arrays in rows.items()})

    def __len__(self) -> int:
        return self._count

    def __iter__(self) -> Iterator[str]:
        return iter(self.arrays)

    def __getitem__(self, rows: slice) -> "Columns":
        return Columns({name: _sliced(column, rows) for name, column in self.arrays.items()})

    def take(self, rows: Sequence[int]) -> "Columns":
        """Return the samples at these positions, in this order, stacked if their shapes are equal."""
        return Columns({name: _taken(column, rows) for name, column in self.arrays.items()})

    def sample(self, row: int) -> dict[str, Array]:
        """Return the arrays of one sample."""
        return {name: column[row] for name, column in self.arrays.items()}

    def of_equal_shapes(self) -> list[list[int]]:
        """Return the positions of the samples in groups in which each name has arrays of equal shapes."""
        ragged = [column for column in self.arrays.values() if isinstance(column, list)]
        if not ragged:
            return [list(range(len(self)))]
        groups: dict[tuple[tuple[int, ...], ...], list[int]] = {}
        for row in range(len(self)):
            groups.setdefault(tuple(column[row].shape for column in ragged), []).append(row)
        return list(groups.values())

    @property
    def size(self) -> int:
        """Number of elements of all arrays, without padding."""
        columns = self.arrays.values()
        return sum(sum(row.size for row in one) if isinstance(one, list) else one.size for one in columns)

    @property
    def nbytes(self) -> int:
        """Size of all arrays."""
        columns = self.arrays.values()
        return sum(sum(row.nbytes for row in one) if isinstance(one, list) else one.nbytes for one in columns)

    def finite_rows(self) -> Array:
        """Return which samples have only finite numbers, bool (N,)."""
        finite = np.ones(len(self), bool)
        for column in self.arrays.values():
            if isinstance(column, list):
                finite &= [bool(np.isfinite(row).all()) for row in column]
            else:
                finite &= np.isfinite(column).reshape(len(column), -1).all(axis=1)
        return finite


Batch = Array | Columns  # samples as the network takes them, and the values that it gives


def joined(parts: Sequence[Batch]) -> Batch:
    """Concatenate the samples of several callers."""
    first = parts[0]
    if not isinstance(first, Columns):
        return np.concatenate(parts)  # type: ignore[arg-type]  # all parts are of the same kind
    columns = [part for part in parts if isinstance(part, Columns)]
    return Columns({name: _chained([part.arrays[name] for part in columns]) for name in first})


def rejoined(parts: Sequence[Batch], rows: Sequence[Sequence[int]]) -> Batch:
    """Join parts of a batch that have the samples at these positions, in the order of the batch."""
    places = np.argsort(np.concatenate(rows)).tolist()
    if not isinstance(parts[0], Columns):
        array: Array = np.concatenate([np.asarray(part) for part in parts])
        ordered: Array = array[places]
        return ordered
    names = parts[0].arrays
    columns = [part.arrays for part in parts if isinstance(part, Columns)]
    chained = {name: [row for part in columns for row in part[name]] for name in names}
    return Columns.stacked({name: [values[place] for place in places] for name, values in chained.items()})


def split(samples: Batch, parts: int) -> list[Batch]:
    """Cut samples into `parts` parts whose sizes differ by at most one."""
    if not isinstance(samples, Columns):
        return list(np.array_split(samples, parts))
    ends = [len(samples) * part // parts for part in range(parts + 1)]
    return [samples[begin:end] for begin, end in pairwise(ends)]


def resized(samples: Batch, count: int) -> Batch:
    """Repeat samples until there are `count`, or return the first `count`."""
    rows = [row % len(samples) for row in range(count)]
    return samples.take(rows) if isinstance(samples, Columns) else samples[rows]


def all_finite(values: Batch) -> bool:
    """Return whether there is no NaN and no infinity."""
    return bool(values.finite_rows().all() if isinstance(values, Columns) else np.isfinite(values).all())


def finite_rows(values: Batch) -> Array:
    """Return which samples have only finite numbers, bool (N,)."""
    if isinstance(values, Columns):
        return values.finite_rows()
    return np.asarray(np.isfinite(values).reshape(len(values), -1).all(axis=1))


def _narrow(array: Array) -> Array:
    return array.astype(np.float32) if array.dtype == np.float64 else array


def _stacked(rows: list[Array]) -> Column:
    shape = rows[0].shape
    return np.stack(rows) if all(row.shape == shape for row in rows) else rows


def _sliced(column: Column, rows: slice) -> Column:
    found = column[rows]
    return _stacked(found) if isinstance(found, list) and found else found


def _taken(column: Column, rows: Sequence[int]) -> Column:
    return _stacked([column[row] for row in rows]) if isinstance(column, list) else column[list(rows)]


def _chained(columns: Sequence[Column]) -> Column:
    """Concatenate; the result is a list if a part is one, or if the samples' shapes differ."""
    arrays = [column for column in columns if not isinstance(column, list)]
    if len(arrays) == len(columns) and all(array.shape[1:] == arrays[0].shape[1:] for array in arrays):
        return np.concatenate(arrays)
    return [row for column in columns for row in column]
