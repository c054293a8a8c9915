"""Arrays: .npz, .npy and MNIST's IDX files, memory-mapped."""

import math
import mmap
import struct
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from models.entries import npy_header
from models.errors import InvalidInput, shown
from models.spec import Array, ModelSpec
from training.datasets.errors import DatasetError
from training.datasets.readers.columns import GROUPS, LABELS, SAMPLES, SPLITS, meaning, row_of
from training.datasets.readers.files import extract, unpacked
from training.datasets.source import Row, Source, Wanted

NPY_MAGIC = b"\x93NUMPY"
_MOST_SAMPLE = 2**27  # bytes
_KEPT = 2**26  # bytes of mapped pages that are kept resident
_IDX_TYPES = {8: ">u1", 9: ">i1", 11: ">i2", 12: ">i4", 13: ">f4", 14: ">f8"}
_PARTS = {"": None, "train": "train", "val": "validation", "valid": "validation", "validation": "validation",
          "test": "test"}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Part:
    """Arrays (N, ...) with a target for each sample: of a whole file, or of one split."""

    values: Mapping[str, Array]
    targets: Array | None
    splits: Array | None = None
    groups: Array | None = None
    split: str | None = None


def mapped_npy(path: Path) -> Array:
    """Map a .npy file. Raises DatasetError for a damaged one and for Python objects."""
    size = path.stat().st_size
    with path.open("rb") as file:
        try:
            shape, fortran, dtype = npy_header(file)
        except InvalidInput as err:
            raise DatasetError(err.title, err.detail) from err
        begin = file.tell()
    if min(shape, default=0) < 0:
        raise DatasetError("Wrong shape", f"the header of {shown(path.name)} has a negative axis")
    if math.prod(shape) * dtype.itemsize != size - begin or not dtype.itemsize:
        promised = math.prod(shape) * dtype.itemsize
        raise DatasetError(
            "Wrong length",
            f"the header of {shown(path.name)} promises {promised:,} bytes of data, it has {size - begin:,}",
        )
    return _mapped(path, dtype, shape, begin, fortran=fortran)


def _mapped(
    path: Path, dtype: np.dtype[Any], shape: tuple[int, ...], begin: int = 0, *, fortran: bool = False
) -> Array:
    """Map an array; one without numbers may still have axes that no array of NumPy can have. Raises DatasetError."""
    order: Any = "F" if fortran else "C"
    try:
        if not math.prod(shape):
            return np.empty(shape, dtype)
        return np.memmap(path, dtype, mode="r", offset=begin, shape=shape, order=order)
    except ValueError as err:
        raise DatasetError("Wrong shape", "the header of an array has too many axes, or too long ones") from err


def mapped_idx(path: Path, name: str, packed: int) -> Array:
    """Map an IDX file, unpacked first if it is gzip. `packed` is the size of the archive it came in.

    Raises DatasetError.
    """
    with unpacked(path) as file:
        head = file.read(4)
        if len(head) < 4 or head[:2] != b"\0\0" or head[2] not in _IDX_TYPES or not 1 <= head[3] <= 4:
            raise DatasetError("No IDX file", f"{shown(name)} does not begin as an IDX file does")
        dtype = np.dtype(_IDX_TYPES[head[2]])
        counts = file.read(4 * head[3])
        if len(counts) < 4 * head[3]:
            raise DatasetError("Wrong length", f"{shown(name)} is cut short within its header")
        shape = struct.unpack(f">{head[3]}I", counts)
        target = path.with_name(f"{path.name}.values")
        extract(file, target, packed)
    promised, there = math.prod(shape) * dtype.itemsize, target.stat().st_size
    if promised != there:
        raise DatasetError(
            "Wrong length", f"the header of {shown(name)} promises {promised:,} bytes of data, it has {there:,}"
        )
    return _mapped(target, dtype, shape)


def open_npy(path: Path, wanted: Wanted) -> Source:
    """Open a .npy file: a structured array with columns, or rows of numbers with the target at their end."""
    array = mapped_npy(path)
    if array.dtype.names:
        return _structured(array, wanted)
    shape = () if wanted.spec.inputs else wanted.spec.tensor.shape
    if len(shape) != 1 or array.shape[1:] != (shape[0] + 1,):
        raise DatasetError(
            "No targets",
            f"the array has the shape {list(array.shape)} and no targets: write an .npz file with numpy.savez(file, "
            "x=samples, y=targets)",
        )
    return open_parts("npy", [Part({"x": array[:, :-1]}, array[:, -1])], wanted)


def _structured(array: Array, wanted: Wanted) -> Source:
    assert array.dtype.names
    columns = meaning(array.dtype.names, wanted)
    done = [0]

    def rows() -> Iterator[Row]:
        for number, record in enumerate(array):
            done[0] = number
            values = {name: _plain(record[name]) for name in array.dtype.names or ()}
            yield row_of(number, values, columns, wanted.spec)

    return Source(format="npy", rows=rows, progress=lambda: (done[0], len(array)))


def open_arrays(form: str, arrays: Mapping[str, Array], wanted: Wanted) -> Source:
    """Open arrays by their names: x and y, x_train and y_train, or each input by its own. Raises DatasetError."""
    parts = []
    for ending, split in _PARTS.items():
        named = {_without(name, ending): array for name, array in arrays.items() if _without(name, ending)}
        if part := _part(named, split, wanted):
            parts.append(part)
    if not parts:
        listed = ", ".join(f"{shown(name)} {list(array.shape)}" for name, array in arrays.items())
        inputs = ", ".join(wanted.spec.inputs) or "x"
        raise DatasetError("No samples", f"the arrays are {listed or 'none'}; save {inputs} and the targets y")
    return open_parts(form, parts, wanted)


def _without(name: str, ending: str) -> str:
    """Return a name without its ending `_train`; empty if it has none, or another one."""
    stem, _, last = name.lower().rpartition("_")
    if ending:
        return stem if last == ending else ""
    return "" if stem and last in _PARTS else name


def _part(arrays: Mapping[str, Array], split: str | None, wanted: Wanted) -> Part | None:
    spec, options = wanted.spec, wanted.options
    by_name = {name.lower(): array for name, array in arrays.items() if name not in spec.inputs}

    def first(chosen: str | None, usual: Sequence[str]) -> Array | None:
        if chosen:
            return arrays.get(chosen)
        return next((by_name[name] for name in usual if name in by_name), None)

    values = {name: arrays[name] for name in spec.inputs if name in arrays}
    if not values:
        sample = first(None, SAMPLES)
        if sample is None:
            return None
        values = {next(iter(spec.inputs)) if len(spec.inputs) == 1 else "x": sample}
    return Part(
        values,
        first(options.label_column, LABELS),
        first(options.split_column, SPLITS),
        first(options.group_column, GROUPS),
        split,
    )


def open_parts(form: str, parts: Sequence[Part], wanted: Wanted) -> Source:
    """Return the rows of arrays. Raises DatasetError if they do not belong together."""
    for part in parts:
        if part.targets is None:
            raise DatasetError("No targets", "the arrays have no targets: save them as y, one for each sample")
        given = [*part.values.values(), part.targets, part.splits, part.groups]
        shapes = [list(array.shape) for array in given if array is not None]
        if len({tuple(shape[:1]) for shape in shapes}) != 1 or not shapes[0]:
            listed = ", ".join(map(str, shapes))
            raise DatasetError(
                "Unequal counts",
                "the first axis of each array is the samples, as many in all of them; the arrays of samples, targets, "
                f"splits and groups have the shapes {listed}",
            )
    done = [0]

    def rows() -> Iterator[Row]:
        for part in parts:
            arrays = list(part.values.values())
            often = max(1, _KEPT // max(1, sum(array[:1].nbytes for array in arrays)))  # rows
            for place in range(len(arrays[0])):
                try:
                    yield _row(done[0], part, place, wanted.spec)
                except (SystemError, ValueError):  # NumPy's, for characters above U+10FFFF
                    yield Row(done[0], fault=InvalidInput("Wrong text", "the row has a text that is not Unicode"))
                done[0] += 1
                if place % often == often - 1:
                    _forget(arrays)

    total = sum(len(next(iter(part.values.values()))) for part in parts)
    return Source(format=form, rows=rows, progress=lambda: (done[0], total))


def _forget(arrays: Sequence[Array]) -> None:
    """Give the pages of mapped files back to the page cache: they would count as memory of this process."""
    for array in arrays:
        owner: Any = array
        while isinstance(owner, np.ndarray):
            owner = owner.base
        if isinstance(owner, mmap.mmap):
            owner.madvise(mmap.MADV_DONTNEED)


def _row(number: int, part: Part, place: int, spec: ModelSpec) -> Row:
    assert part.targets is not None
    if sum(array[:1].nbytes for array in part.values.values()) > _MOST_SAMPLE:
        return Row(number, fault=InvalidInput("Too large", f"the sample has more than {_MOST_SAMPLE:,} bytes"))
    values: Any = {name: _plain(array[place]) for name, array in part.values.items()}
    if not spec.inputs:
        values = np.asarray(part.values["x"][place])
    return Row(
        number,
        values,
        _plain(part.targets[place]),
        part.split if part.splits is None else _plain(part.splits[place]),
        None if part.groups is None else _plain(part.groups[place]),
    )


def _plain(value: Any) -> Any:
    """Return a scalar of NumPy as one of Python, bytes as text; arrays as they are."""
    array = np.asarray(value)
    if array.ndim:
        return array
    found = array.item()
    return found.decode(errors="replace") if isinstance(found, bytes) else found


def is_idx(head: bytes) -> bool:
    """Return whether a file begins as an IDX file does."""
    return len(head) >= 4 and head[:2] == b"\0\0" and head[2] in _IDX_TYPES and 1 <= head[3] <= 4
