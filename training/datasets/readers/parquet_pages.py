"""Pages of a Parquet file: how many rows fit into memory at once. Headers of pages say what pyarrow will allocate.

The footer's counts are not used, as they may be forged; pyarrow checks the content of a page against its header.
"""

from bisect import bisect_left
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib import import_module
from itertools import accumulate
from pathlib import Path
from typing import Any, BinaryIO

from training.datasets.errors import DatasetError
from training.datasets.readers.thrift import Damaged, read_struct

MOST_ROWS = 1_024  # at once
AT_ONCE = 2**26  # bytes of the values of a batch of several rows
MOST_VALUES = 2**28  # bytes of the values of one row, or of the lists of a row group
MOST_PAGE = 2**28  # bytes of a page and the dictionary of its column
MOST_HELD = 2**30  # bytes of these of all columns
_MOST_PARSED, _MOST_TEXTS = 2**26, 2**20  # bytes and values of a dictionary that is searched for its longest value
_HEADER, _MOST_HEADER = 2**12, 2**24  # bytes, the latter as in pyarrow
_DATA, _DICTIONARY, _DATA_V2 = 0, 2, 3  # types of pages
_FIELDS = {_DATA: (5, 2), _DICTIONARY: (7, 2), _DATA_V2: (8, 4)}  # type -> fields of its header, of its encoding
_WIDTHS = {"BOOLEAN": 1, "INT32": 4, "INT64": 8, "INT96": 12, "FLOAT": 4, "DOUBLE": 8, "BYTE_ARRAY": 8}
_PLAIN, _DELTA_LENGTH = 0, 6  # encodings in which each value has its own bytes
_BY_DICTIONARY = (2, 8)


@dataclass(frozen=True, slots=True)
class _Page:
    """A page: its type, where its content is, the bytes it has there and unpacks to, its values, their encoding."""

    type: int
    place: int
    packed: int
    size: int
    values: int
    encoding: int


def rows_at_once(path: Path, metadata: Any, schema: Any, group: int) -> int:
    """Return how many rows of a row group to read in a batch: 1 to MOST_ROWS.

    `metadata` and `schema` are those of pyarrow's ParquetFile. Raises DatasetError if even one row may be too large.
    """
    columns: list[_Column] = []
    with path.open("rb") as file:
        for place in range(metadata.num_columns):
            chunk = metadata.row_group(group).column(place)
            pages = list(_pages(file, chunk))
            columns.append(_Column(schema.column(place), pages, _longest(file, chunk, pages)))
    _require(max(column.held for column in columns), MOST_PAGE, "a page and its dictionary unpack")
    _require(sum(column.held for column in columns), MOST_HELD, "the pages of all columns, one of each, unpack")
    rows = MOST_ROWS
    while rows > 1 and sum(column.bytes_of(rows) for column in columns) > AT_ONCE:
        rows //= 2
    _require(
        sum(column.bytes_of(rows) for column in columns), MOST_VALUES, "a row, or the lists of a row group, unpack"
    )
    return rows


def _require(found: int, most: int, what: str) -> None:
    if found > most:
        raise DatasetError("Too large", f"{what} to more than {most:,} bytes: write smaller row groups and pages")


class _Column:
    """Pages of a column in a row group."""

    def __init__(self, schema: Any, pages: Sequence[_Page], longest: int) -> None:
        """`longest`: bytes of the longest value of its dictionary."""
        data = [page for page in pages if page.type != _DICTIONARY]
        self._width = max(int(schema.length or 0), _WIDTHS.get(schema.physical_type, 8))
        self._is_repeated = schema.max_repetition_level > 0
        is_text = schema.physical_type == "BYTE_ARRAY"
        dictionaries = sum(page.size for page in pages if page.type == _DICTIONARY)
        self.held = dictionaries + max((page.size for page in data), default=0)  # bytes of pages, at the same time
        grows = [page.size for page in data if page.encoding not in {_PLAIN, _DELTA_LENGTH, *_BY_DICTIONARY}]
        self._largest = max([longest, *grows]) if is_text else 0
        own = [page if is_text and page.encoding in {_PLAIN, _DELTA_LENGTH} else None for page in data]
        self._values = [0, *accumulate(page.values for page in data)]
        self._sizes = [0, *accumulate(0 if page is None else page.size for page in own)]

    def bytes_of(self, rows: int) -> int:
        """Return the most bytes that the values of this number of rows take; a row may have all values of a list."""
        if self._is_repeated:
            return self._values[-1] * (self._width + self._largest) + self._sizes[-1]
        return rows * (self._width + self._largest) + self._most_of_pages(rows)

    def _most_of_pages(self, rows: int) -> int:
        """Return the most bytes of pages that follow each other and have all values, the first one's last."""
        last = len(self._sizes) - 1
        return max(
            (
                self._sizes[min(last, bisect_left(self._values, self._values[place + 1] - 1 + rows))]
                - self._sizes[place]
                for place in range(last)
            ),
            default=0,
        )


def _pages(file: BinaryIO, chunk: Any) -> Iterator[_Page]:
    """Read the headers of the pages of a column in a row group. Raises DatasetError."""
    place = int(chunk.data_page_offset)
    if chunk.has_dictionary_page and 0 < chunk.dictionary_page_offset < place:
        place = int(chunk.dictionary_page_offset)
    end = place + int(chunk.total_compressed_size)
    while place < end:
        header, length = _header(file, place)
        place += length
        page = _page(header, place)
        if page is not None:
            yield page
        place += int(header[3])


def _header(file: BinaryIO, place: int) -> tuple[dict[int, Any], int]:
    """Return the fields of the header of a page, by number, and its length in bytes."""
    for most in (_HEADER, _MOST_HEADER):
        file.seek(max(0, place))
        content = file.read(most)
        try:
            header, length = read_struct(content)
            if min(header[2], header[3]) < 0:
                raise Damaged("a negative size")
        except (Damaged, KeyError, TypeError) as err:
            if most == _MOST_HEADER or len(content) < most:
                raise DatasetError(
                    "Damaged file", "the Parquet file cannot be read: the header of a page is damaged"
                ) from err
        else:
            return header, length
    raise AssertionError("unreachable")


def _page(header: dict[int, Any], place: int) -> _Page | None:
    """Return the fields of a header; None for pages that are skipped."""
    kind = header.get(1)
    if kind not in _FIELDS:
        return None
    field, encoding = _FIELDS[kind]
    inner = header.get(field, {})
    return _Page(kind, place, header[3], header[2], max(0, inner.get(1, 0)), inner.get(encoding, _PLAIN))


def _longest(file: BinaryIO, chunk: Any, pages: Sequence[_Page]) -> int:
    """Return the bytes of the longest text of the dictionaries of a column; their sizes, if they cannot be read."""
    found = 0
    for page in (page for page in pages if page.type == _DICTIONARY):
        file.seek(page.place)
        texts = page.size <= _MOST_PARSED and _unpacked(file.read(page.packed), chunk.compression, page.size)
        longest = _longest_of(texts) if texts else None
        found = max(found, page.size if longest is None else longest)
    return found


def _unpacked(content: bytes, codec: str, size: int) -> bytes | None:
    if codec == "UNCOMPRESSED":
        return content
    try:
        found: bytes = import_module("pyarrow").decompress(content, size, codec=codec.lower(), asbytes=True)
    except Exception:  # noqa: BLE001 - pyarrow raises many types; the dictionary's size is used instead
        return None
    return found


def _longest_of(texts: bytes) -> int | None:
    """Return the length of the longest text: each has its length, 4 bytes, before it. None if there are too many."""
    place = longest = 0
    for _ in range(_MOST_TEXTS):
        if place + 4 > len(texts):
            return min(longest, len(texts))
        length = int.from_bytes(texts[place : place + 4], "little")
        longest = max(longest, length)
        place += 4 + length
    return None
