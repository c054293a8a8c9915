"""CSV and JSON Lines, plain or gzip."""

import csv
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import orjson

from models.coding import value_of_text
from models.errors import InvalidInput, shown
from models.signature import Number
from models.spec import ModelSpec
from training.datasets.errors import DatasetError
from training.datasets.readers.columns import Meaning, absent_inputs, meaning, require_inputs, row_of
from training.datasets.readers.files import Unpacked, lines, unpacked
from training.datasets.source import Row, Source, Wanted

_DELIMITERS = ",;\t|"
_HEAD = 20  # lines in which the first JSON object is looked for; the lines before it are refused rows
_UTF16 = (b"\xff\xfe", b"\xfe\xff")
_BOM = b"\xef\xbb\xbf"
_SEP = re.compile(rb"sep=([,;\t|])")  # first line that Excel writes and reads


class Progress:
    """How far a source is read; the file is open only while its rows are."""

    def __init__(self, size: int) -> None:
        self.file: Unpacked | None = None
        self._size = size

    def __call__(self) -> tuple[int, int]:
        """Return bytes read and bytes in all."""
        return self.file.progress() if self.file else (0, self._size)


def open_csv(path: Path, wanted: Wanted) -> Source:
    """Open a CSV file: the first row names the columns. Raises DatasetError."""
    with unpacked(path) as file:
        found = lines(file)
        header = next(found, b"")
        named = _SEP.fullmatch(header.removeprefix(_BOM).strip())
        header = next(found, b"") if named else header
    if header.startswith(_UTF16):
        raise DatasetError("Not UTF-8", "the file is UTF-16: save it as CSV UTF-8")
    delimiter = named[1].decode() if named else delimiter_of(header.decode(errors="replace"))
    names = _header(header, delimiter)
    columns, spec = meaning(names, wanted), wanted.spec
    features = [name for name in names if columns.is_value(name)]
    ignored: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    if spec.inputs:
        ignored = require_inputs(features, spec)
        warnings = tuple(absent_inputs(features, spec))
    else:
        _require_width(features, columns.label, spec)
    progress = Progress(path.stat().st_size)

    def rows() -> Iterator[Row]:
        with unpacked(path) as file:
            progress.file = file
            found = lines(file)
            if named:
                next(found)
            for number, cells in enumerate(_cells(found, delimiter)):
                if number:
                    yield _csv_row(number, cells, names, columns, spec)

    return Source(
        format="csv", rows=rows, progress=progress, ignored=ignored, columns=tuple(features), warnings=warnings
    )


def delimiter_of(header: str) -> str:
    """Return the sign that separates the cells of a line: the most frequent one."""
    return max(_DELIMITERS, key=header.count)


def _header(line: bytes, delimiter: str) -> list[str]:
    try:
        names = next(csv.reader([line.removeprefix(_BOM).decode()], delimiter=delimiter), [])
    except (UnicodeDecodeError, csv.Error) as err:
        raise DatasetError(
            "No CSV file", "the first line is no list of column names in UTF-8: save the file as CSV UTF-8"
        ) from err
    names = [name.strip() for name in names]
    if not names or all(_is_number(name) for name in names):
        raise DatasetError("No header", "the first row of a CSV file must be the names of its columns")
    if repeated := next((name for name, count in Counter(names).items() if count > 1), None):
        raise DatasetError("Repeated column", f"two columns have the name {shown(repeated)!r}")
    return names


def _require_width(features: Sequence[str], label: str, spec: ModelSpec) -> None:
    size = 1
    for length in spec.tensor.shape:
        size *= length
    if len(features) != size:
        listed = ", ".join(shown(name) for name in features[:20]) or "none"
        raise DatasetError(
            "Wrong columns",
            f"the model takes {size} numbers a sample, but the file has {len(features)} columns besides label "
            f"({shown(label)}), split and group: {listed}; leave out those that are no inputs, add those that lack, "
            "or name the label with label_column (--label-column)",
        )


def _cells(found: Iterator[bytes], delimiter: str) -> Iterator[list[str] | InvalidInput]:
    """Yield the cells of each row, or why they cannot be read. Empty rows are left out."""
    texts = _Texts(found)
    reader = csv.reader(texts, delimiter=delimiter)
    while True:
        begin = texts.line
        try:
            cells = next(reader)
        except StopIteration:
            return
        except csv.Error as err:
            if texts.line - begin > 1:
                raise _open_quote(begin + 1) from err
            yield InvalidInput("Broken row", f"the row cannot be read: {err}")
            continue
        if texts.has_ended and texts.line - begin > 1:  # else the reader would not have asked for more
            raise _open_quote(begin + 1)
        if cells:
            yield cells


def _open_quote(line: int) -> DatasetError:
    return DatasetError(
        "Open quote",
        f"a quote in the row that begins in line {line:,} is not closed there: the lines after it would be lost",
    )


class _Texts(Iterator[str]):
    """Lines as texts, counted."""

    def __init__(self, found: Iterator[bytes]) -> None:
        self._found = found
        self.line = 0
        self.has_ended = False

    def __next__(self) -> str:
        try:
            line = next(self._found)
        except StopIteration:
            self.has_ended = True
            raise
        self.line += 1
        return (line if self.line > 1 else line.removeprefix(_BOM)).decode(errors="surrogateescape")


def _csv_row(
    number: int,
    cells: Sequence[str] | InvalidInput,
    names: Sequence[str],
    columns: Meaning,
    spec: ModelSpec,
) -> Row:
    if isinstance(cells, InvalidInput):
        return Row(number, fault=cells)
    if len(cells) != len(names):
        fault = InvalidInput("Wrong number of cells", f"the row has {len(cells)} cells, the header {len(names)}")
        return Row(number, fault=fault)
    record: dict[str, Any] = dict(zip(names, cells, strict=True))
    if broken := next((name for name in names if not record[name].isprintable() and _not_utf8(record[name])), None):
        return Row(number, fault=InvalidInput("Not UTF-8", f"{shown(broken)}: save the file as UTF-8", broken))
    target = record[columns.label]
    split = record[columns.split] if columns.split else None
    group = record[columns.group] if columns.group else None
    values: Any
    if spec.inputs:
        values = {name: _value(cell, spec, name) for name, cell in record.items() if name in spec.inputs}
    else:
        values = [_number(cell) for name, cell in record.items() if columns.is_value(name)]
    return Row(number, values, target, split, group)


def _not_utf8(text: str) -> bool:
    return any("\udc80" <= letter <= "\udcff" for letter in text)


def _value(cell: str, spec: ModelSpec, name: str) -> Any:
    kind = spec.inputs[name]
    if isinstance(kind, Number):
        return _number(cell) if cell.strip() else None
    return value_of_text(cell, kind)


def _number(cell: str) -> float | str:
    """Return a cell's number; the cell itself if it is none."""
    try:
        return cell if "_" in cell else float(cell)
    except ValueError:
        return cell


def _is_number(cell: str) -> bool:
    return isinstance(_number(cell), float)


def open_jsonl(path: Path, wanted: Wanted) -> Source:
    """Open a file with a JSON object in each line. Raises DatasetError."""
    with unpacked(path) as file:
        head = [_record(line.removeprefix(_BOM)) for line in islice(filter(bytes.strip, lines(file)), _HEAD)]
    record = next((record for record in head if not isinstance(record, InvalidInput)), None)
    if record is None:
        fault = head[0].detail if head and isinstance(head[0], InvalidInput) else "there is none"
        raise DatasetError("No JSON Lines", f"each line must be a JSON object; the first one is not: {fault}")
    columns = meaning(list(record), wanted, whole=False)
    progress = Progress(path.stat().st_size)

    def rows() -> Iterator[Row]:
        with unpacked(path) as file:
            progress.file = file
            for number, line in enumerate((line for line in lines(file) if line.strip()), 1):
                found = _record(line.removeprefix(_BOM) if number == 1 else line)
                if isinstance(found, InvalidInput):
                    yield Row(number, fault=found)
                else:
                    yield row_of(number, found, columns, wanted.spec)

    return Source(format="jsonl", rows=rows, progress=progress)


def _record(line: bytes) -> Mapping[str, Any] | InvalidInput:
    try:
        found = orjson.loads(line)
    except orjson.JSONDecodeError as err:
        return InvalidInput("Malformed JSON", f"the line is not valid JSON: {err}")
    if not isinstance(found, dict):
        return InvalidInput("Wrong row", "the line is no JSON object")
    return found
