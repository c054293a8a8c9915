"""Source of rows: the interface of all readers."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from models.errors import InvalidInput
from models.messages import DatasetOptions
from models.spec import ModelSpec

_PART = 512
_CONTAINER = 64  # bytes of an empty list
_PART_BYTES = 2**24


@dataclass(frozen=True, slots=True)
class Row:
    """One row of a file, not checked yet.

    number  its position: from 1 in texts and pictures, from 0 in arrays
    values  a sample as a body of /predict has it: a mapping by name, nested lists, an array, or bytes of a picture
    target  as the file has it; None if it has none
    place   the name of its file in an archive
    fault   why it cannot even be read
    """

    number: int
    values: Any = None
    target: Any = None
    split: Any = None
    group: Any = None
    place: str | None = None
    fault: InvalidInput | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """A file that was opened: its format, its columns, and its rows.

    progress  how much is read, of how much: bytes or rows
    ignored   columns that are not inputs of the model
    columns   names of the numbers of an entry in a table, for reports
    warnings  about the file as a whole
    """

    format: str
    rows: Callable[[], Iterator[Row]]
    progress: Callable[[], tuple[int, int]]
    ignored: tuple[str, ...] = ()
    columns: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """The purpose of a read: a model, the columns with a meaning, and a folder for unpacked files."""

    spec: ModelSpec
    options: DatasetOptions
    scratch: Path


def weight(values: Any) -> int:
    """Return about how many bytes of memory the texts, pictures, arrays and lists of a sample take."""
    if isinstance(values, bytes | str):
        return len(values)
    if isinstance(values, dict):
        return _CONTAINER + sum(map(weight, values.values()))
    if isinstance(values, list):
        return _CONTAINER + sum(map(weight, values))
    return values.nbytes if isinstance(values, np.ndarray) else 8


def in_parts(rows: Iterator[Row]) -> Iterator[list[Row]]:
    """Cut a stream into lists of at most 512 rows, and of few bytes: pictures and texts are large."""
    part: list[Row] = []
    size = 0
    for row in rows:
        part.append(row)
        size += weight(row.values) + weight(row.target) + weight(row.split) + weight(row.group)
        if len(part) == _PART or size > _PART_BYTES:
            yield part
            part, size = [], 0
    if part:
        yield part
