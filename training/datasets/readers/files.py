"""Files, also packed ones, read as streams: gzip, lines of bounded length, and limits on the unpacked size."""

import gzip
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, BinaryIO, cast

from training.datasets.errors import DatasetError

GZIP = b"\x1f\x8b"
MOST_UNPACKED = 2**36  # bytes, of one file
RATIO = 250  # of unpacked to packed bytes, beyond FREE; tables of text unpack to ten times their size
FREE = 2**28  # bytes
MOST_LINE = 2**24  # bytes
_BLOCK = 2**20


def limit_unpacked(packed: int) -> int:
    """Return how many bytes a file of `packed` bytes may unpack to."""
    return min(MOST_UNPACKED, max(FREE, RATIO * packed))


def require_unpacked(unpacked: int, packed: int) -> None:
    """Raise DatasetError for a decompression bomb."""
    if unpacked > limit_unpacked(packed):
        raise DatasetError(
            "Unpacks to too much",
            f"{packed:,} bytes unpack to more than {limit_unpacked(packed):,}: send the file in parts, or not packed",
        )


class Unpacked:
    """A binary stream of a file, unpacked if it is gzip. Counts the bytes read."""

    def __init__(self, path: Path) -> None:
        self._raw = path.open("rb")
        self.size = path.stat().st_size
        is_gzip = self._raw.peek(2)[:2] == GZIP
        self._file = cast(IO[bytes], gzip.GzipFile(fileobj=self._raw)) if is_gzip else self._raw
        self._packed = is_gzip
        self._given = 0

    def read(self, size: int = -1) -> bytes:
        """Read at most `size` bytes. Raises DatasetError for a damaged file or a bomb."""
        return self._counted(lambda: self._file.read(size))

    def readline(self, size: int) -> bytes:
        """Read a line of at most `size` bytes, with its end. Raises DatasetError."""
        return self._counted(lambda: self._file.readline(size))

    def progress(self) -> tuple[int, int]:
        """Return how many bytes of the file are read, and how many it has."""
        return (self.size if self._raw.closed else self._raw.tell()), self.size

    def close(self) -> None:
        """Close the file."""
        self._raw.close()

    def _counted(self, read: Callable[[], bytes]) -> bytes:
        try:
            content = read()
        except (EOFError, zlib.error, gzip.BadGzipFile) as err:
            raise DatasetError("Damaged file", "the gzip file is damaged or cut short: pack it again") from err
        self._given += len(content)
        if self._packed:
            require_unpacked(self._given, self.size)
        return content


def lines(file: Unpacked) -> Iterator[bytes]:
    """Yield the lines with their ends. Raises DatasetError for a line that is too long."""
    while line := file.readline(MOST_LINE + 1):
        if len(line) > MOST_LINE:
            raise DatasetError("Line too long", f"a line has more than {MOST_LINE:,} bytes: this is no file of rows")
        yield line


@contextmanager
def unpacked(path: Path) -> Iterator[Unpacked]:
    """Open a file, unpacked if it is gzip."""
    file = Unpacked(path)
    try:
        yield file
    finally:
        file.close()


def extract(file: BinaryIO | IO[bytes] | Unpacked, target: Path, packed: int) -> Path:
    """Write a stream to a file, in bounded memory. Raises DatasetError for a bomb."""
    written = 0
    with target.open("wb") as out:
        while block := file.read(_BLOCK):
            written += len(block)
            require_unpacked(written, packed)
            out.write(block)
    return target
