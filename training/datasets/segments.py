"""Decoded samples of one original file on disk, in the order of its rows: written in chunks, read memory-mapped.

SEGMENT/numbers.npy   int64 (N,), ascending: the number of each row in the original
SEGMENT/samples.npy   (N, ...) samples as the network takes them, of a one-tensor model
SEGMENT/rows.bin      samples by name, of a model with named inputs, one after the other
SEGMENT/ends.npy      int64 (N,): where each of them ends
"""

import mmap
from collections.abc import Sequence
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from models.packed_rows import packed_row, unpacked_row
from models.spec import Array

_AROUND = 2**16  # bytes that Linux maps around a page that is read
_KEPT = 2**26  # bytes of mapped pages that a reader keeps resident


class Growing:
    """A .npy file that grows by rows of one shape and dtype; its header is completed at the end."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("wb")
        self._form: tuple[np.dtype[Any], tuple[int, ...]] | None = None
        self._count = 0

    def add(self, rows: Array) -> None:
        """Append rows (n, ...). Raises ValueError if they differ from earlier ones in shape or dtype."""
        rows = np.ascontiguousarray(rows)
        if self._form is None:
            self._form = (rows.dtype, rows.shape[1:])
            self._write_header()
        if self._form != (rows.dtype, rows.shape[1:]):
            raise ValueError("the rows have different shapes or dtypes")
        self._file.write(rows.tobytes())
        self._count += len(rows)

    def close(self) -> None:
        """Complete the file; without rows it is an array of no numbers."""
        if self._form is None:
            self._form = (np.dtype(np.float32), ())
        self._file.seek(0)
        self._write_header()
        self._file.close()

    def _write_header(self) -> None:
        assert self._form
        dtype, shape = self._form
        header = {"descr": np.lib.format.dtype_to_descr(dtype), "fortran_order": False, "shape": (self._count, *shape)}
        np.lib.format.write_array_header_1_0(self._file, header)  # leaves room for a longer count


class SegmentWriter:
    """Writes a segment."""

    def __init__(self, folder: Path, *, named: bool) -> None:
        folder.mkdir(parents=True)
        self._numbers = Growing(folder / "numbers.npy")
        self._rows: BinaryIO | None = (folder / "rows.bin").open("wb") if named else None
        self._values = Growing(folder / ("ends.npy" if named else "samples.npy"))
        self._end = 0

    def add(self, numbers: Sequence[int], samples: Sequence[Any]) -> None:
        """Append samples, at least one: arrays, or mappings of values by name."""
        self._numbers.add(np.asarray(numbers, np.int64))
        if self._rows is None:
            self._values.add(np.stack(samples))
            return
        ends = []
        for sample in samples:
            content = packed_row(sample)
            self._rows.write(content)
            self._end += len(content)
            ends.append(self._end)
        self._values.add(np.asarray(ends, np.int64))

    def close(self) -> None:
        """Complete the files."""
        self._numbers.close()
        self._values.close()
        if self._rows is not None:
            self._rows.close()


class MappedFile:
    """A file mapped into memory, of which only so much stays resident."""

    def __init__(self, path: Path) -> None:
        self.size = path.stat().st_size
        self._touched = 0
        with path.open("rb") as file:
            self.memory = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) if self.size else None

    def read(self, size: int) -> None:
        """Count bytes that were read; give pages back to the page cache now and then."""
        self._touched += size
        if self._touched > _KEPT and self.memory is not None:
            self.memory.madvise(mmap.MADV_DONTNEED)
            self._touched = 0


class Samples:
    """The samples of a segment of a one-tensor model."""

    def __init__(self, folder: Path) -> None:
        path = folder / "samples.npy"
        with path.open("rb") as file:
            np.lib.format.read_magic(file)
            shape, _, dtype = np.lib.format.read_array_header_1_0(file)
            begin = file.tell()
        self._mapped = MappedFile(path)
        self.dtype, self.shape = dtype, shape[1:]
        content = self._mapped.memory if self._mapped.memory is not None else b""
        self._array = np.frombuffer(content, dtype, int(np.prod(shape)), begin).reshape(shape)
        self.row_bytes = dtype.itemsize * int(np.prod(shape[1:]))

    def take(self, places: Array) -> Array:
        """Copy the samples at these places."""
        found = self._array[places]
        if len(places):
            span = int(places.max() - places.min() + 1) * self.row_bytes
            self._mapped.read(min(span, len(places) * (self.row_bytes + _AROUND)))
        return found


class Rows:
    """The samples of a segment of a model with named inputs."""

    def __init__(self, folder: Path) -> None:
        self._ends = np.load(folder / "ends.npy", mmap_mode="r")
        self._mapped = MappedFile(folder / "rows.bin")

    @property
    def nbytes(self) -> int:
        """Size of all rows."""
        return self._mapped.size

    def row(self, place: int) -> dict[str, Any]:
        """Return the values of one sample by name."""
        begin = int(self._ends[place - 1]) if place else 0
        end = int(self._ends[place])
        assert self._mapped.memory is not None
        content = self._mapped.memory[begin:end]
        self._mapped.read(len(content) + _AROUND)
        return unpacked_row(content)


def numbers_of(folder: Path) -> Array:
    """Return the numbers of the rows of a segment, ascending."""
    found: Array = np.load(folder / "numbers.npy", mmap_mode="r")
    return found
