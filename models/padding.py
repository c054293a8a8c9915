"""Variable length: bring samples of different shapes into arrays, with a bound on the padding.

A batch is computed in buckets of samples of similar size: in each, the padded arrays have at most WASTE times as many
elements as the samples. A sample alone in its bucket needs no padding, so the bound holds for any batch. Arrays without
an entry in the spec's `padding` are never padded: only samples of equal shape share a bucket.
"""

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from models.samples import Batch, Column, Columns, rejoined
from models.signature import Array, Output, Padded
from models.spec import ModelSpec

WASTE = 2  # elements of the padded arrays, relative to those of the samples
Padding = Mapping[str, Padded]
Forward = Callable[[Mapping[str, Array]], Sequence[Array]]  # keyword arguments (N, ...) -> outputs (N, ...), in order
_Shape = tuple[int, ...]
_Fixed = tuple[_Shape, ...]  # by ragged array


def buckets(samples: Columns, padding: Padding) -> list[list[int]]:
    """Return the positions of the samples of each bucket; the largest samples first."""
    ragged = {name: column for name, column in samples.arrays.items() if isinstance(column, list)}
    if not ragged:
        return [list(range(len(samples)))]
    groups: dict[_Fixed, list[int]] = {}
    for row in range(len(samples)):
        groups.setdefault(_fixed(ragged, row, padding), []).append(row)
    padded = [column for name, column in ragged.items() if name in padding]
    order = [row for rows in groups.values() for row in sorted(rows, key=lambda row: -_size(padded, row))]
    found: list[list[int]] = []
    for row, (begins, _) in zip(order, _filling(samples, padding, order), strict=True):
        if begins:
            found.append([])
        found[-1].append(row)
    return found


def slice_of(samples: Columns, padding: Padding, start: int, most: float) -> tuple[int, int]:
    """Return how many samples from `start` on, at least one, have at most `most` elements when they are padded, and
    that number of elements, at least one. The samples are in the order of `buckets`.
    """
    full = last = 0  # elements of the buckets before the last one, and of that
    for count, (begins, elements) in enumerate(_filling(samples, padding, range(start, len(samples)))):
        before = full + last if begins else full
        if count and before + elements > most:
            return count, max(1, full + last)
        full, last = before, elements
    return len(samples) - start, max(1, full + last)


def stacked(samples: Columns, padding: Padding) -> dict[str, Array]:
    """Return the network's keyword arguments (N, ...) for the samples of one bucket: arrays, lengths and masks."""
    arrays: dict[str, Array] = {}
    for name, column in samples.arrays.items():
        how = padding.get(name)
        if how is None:
            arrays[name] = np.stack(column) if isinstance(column, list) else column
            continue
        arrays[name] = _filled(column, how.value)
        lengths = _lengths(column, how)
        if how.lengths:
            arrays[how.lengths] = lengths[:, 0] if len(how.axes) == 1 else lengths
        if how.mask:
            arrays[how.mask] = _mask(lengths, [arrays[name].shape[axis + 1] for axis in how.axes])
    return arrays


def computing(forward: Forward, spec: ModelSpec) -> Callable[[Any], Batch]:
    """Return a function that computes any samples of a model with named inputs or outputs, in their order.

    Named inputs are computed bucket by bucket. It returns named values if the spec names its outputs, else one array.
    """

    def one_tensor(samples: Array) -> Batch:
        return _named(forward({"samples": samples}), Columns({}), {}, spec.outputs)

    return by_bucket(forward, spec.padding, spec.outputs) if spec.inputs else one_tensor


def by_bucket(forward: Forward, padding: Padding, outputs: Mapping[str, Output]) -> Callable[[Columns], Batch]:
    """Return a function that computes samples bucket by bucket: one array, or named values if `outputs` has names."""

    def run(samples: Columns) -> Batch:
        rows = buckets(samples, padding)
        found = []
        for bucket in rows:
            part = samples if len(rows) == 1 else samples.take(bucket)
            found.append(_named(forward(stacked(part, padding)), part, padding, outputs))
        return found[0] if len(rows) == 1 else rejoined(found, rows)

    return run


def _named(arrays: Sequence[Array], samples: Columns, padding: Padding, outputs: Mapping[str, Output]) -> Batch:
    if not outputs:
        return arrays[0]
    named = zip(outputs.items(), arrays, strict=True)
    return Columns({name: _cut(array, samples, padding, output) for (name, output), array in named})


def _cut(array: Array, samples: Columns, padding: Padding, output: Output) -> Column:
    """Cut the padding off the variable axes of an output that is as long as one of the padded arrays."""
    if output.like is None:
        return array
    axes = [axis for axis, size in enumerate(output.shape) if size is None]
    lengths = _lengths(samples.arrays[output.like], padding[output.like])
    if (lengths == lengths[0]).all():
        return array[(slice(None), *_ends(axes, lengths[0]))]
    return [row[_ends(axes, ends)] for row, ends in zip(array, lengths, strict=True)]


def _ends(axes: Sequence[int], ends: Array) -> tuple[slice, ...]:
    slices = [slice(None)] * (max(axes, default=-1) + 1)
    for axis, end in zip(axes, ends, strict=True):
        slices[axis] = slice(int(end))
    return tuple(slices)


def _fixed(ragged: Mapping[str, list[Array]], row: int, padding: Padding) -> _Fixed:
    """Return the sizes that a sample has in common with all of its bucket; -1 for variable axes."""
    shapes = [(column[row].shape, padding.get(name)) for name, column in ragged.items()]
    return tuple(
        shape if how is None else tuple(-1 if axis in how.axes else size for axis, size in enumerate(shape))
        for shape, how in shapes
    )


def _filling(samples: Columns, padding: Padding, order: Iterable[int]) -> Iterator[tuple[bool, int]]:
    """Fill buckets whose padded arrays have at most WASTE times as many elements as the samples.

    Yield for each sample, in this order, whether it begins a bucket, and how many elements the bucket has then.
    """
    ragged = {name: column for name, column in samples.arrays.items() if isinstance(column, list)}
    padded = [column for name, column in ragged.items() if name in padding]
    others = [column for name, column in samples.arrays.items() if name not in ragged or name not in padding]
    fixed: _Fixed | None = None
    largest: list[_Shape] = []
    count = real = 0
    for row in order:
        its, shapes, size = _fixed(ragged, row, padding), [column[row].shape for column in padded], _size(padded, row)
        grown = [tuple(map(max, one, other)) for one, other in zip(largest, shapes, strict=True)] if count else shapes
        begins = its != fixed or (count + 1) * sum(map(math.prod, grown)) > WASTE * (real + size)
        if begins:
            fixed, grown, count, real = its, shapes, 0, 0
        largest, count, real = grown, count + 1, real + size
        yield begins, count * (sum(map(math.prod, largest)) + _size(others, row))


def _size(columns: Iterable[Column], row: int) -> int:
    """Return the number of elements of a sample."""
    return sum(column[row].size for column in columns)


def _lengths(column: Column, how: Padded) -> Array:
    """Return the sizes of the samples along their variable axes, int64 (N, axes)."""
    shapes = [row.shape for row in column] if isinstance(column, list) else [column.shape[1:]] * len(column)
    return np.array([[shape[axis] for axis in how.axes] for shape in shapes], np.int64).reshape(-1, len(how.axes))


def _filled(column: Column, value: float) -> Array:
    if not isinstance(column, list):
        return column
    shape = tuple(map(max, *(row.shape for row in column))) if len(column) > 1 else column[0].shape
    array = np.full((len(column), *shape), value, column[0].dtype)
    for place, row in enumerate(column):
        array[place][tuple(map(slice, row.shape))] = row
    return array


def _mask(lengths: Array, longest: Sequence[int]) -> Array:
    mask: Array = np.ones((len(lengths), *longest), bool)
    for axis, size in enumerate(longest):
        inside = np.arange(size) < lengths[:, axis, None]  # (N, size)
        mask &= inside.reshape(len(lengths), *(size if other == axis else 1 for other in range(len(longest))))
    return mask
