"""Parquet, by pyarrow, which the extra [parquet] installs. It is imported when such a file is read."""

from collections.abc import Iterator, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

from models.errors import in_one_line
from training.datasets.errors import DatasetError
from training.datasets.readers.columns import absent_inputs, meaning, require_inputs, row_of
from training.datasets.readers.files import require_unpacked
from training.datasets.readers.parquet_pages import rows_at_once
from training.datasets.source import Row, Source, Wanted, weight

_BUFFER = 2**16  # bytes of a column that are read at once
MOST_ROW = 2**24  # bytes of lists in a row, as of a line of text


def open_parquet(path: Path, wanted: Wanted) -> Source:
    """Open a Parquet file. Raises DatasetError, also if pyarrow is not installed."""
    parquet = _pyarrow()
    try:
        file = parquet.ParquetFile(path, buffer_size=_BUFFER)
        names = list(file.schema_arrow.names)
        total = int(file.metadata.num_rows)
    except Exception as err:  # pyarrow raises many types for damaged files
        raise _damaged(err) from err
    columns, spec = meaning(names, wanted), wanted.spec
    values = [name for name in names if columns.is_value(name)]
    ignored = require_inputs(values, spec) if spec.inputs else ()
    warnings = tuple(absent_inputs(values, spec))
    done = [0]

    def rows() -> Iterator[Row]:
        kept = [name for name in names if name not in ignored]
        unpacked = 0
        for record in _records(path, file, kept):
            done[0] += 1
            unpacked += sum(map(weight, record.values()))
            require_unpacked(unpacked, path.stat().st_size)
            yield row_of(done[0], record, columns, spec)

    return Source(
        format="parquet",
        rows=rows,
        progress=lambda: (done[0], max(total, done[0])),
        ignored=ignored,
        warnings=warnings,
    )


def _records(path: Path, file: Any, names: Sequence[str]) -> Iterator[dict[str, Any]]:
    """Yield the rows, a batch in memory at a time. Raises DatasetError."""
    try:
        for group in range(file.metadata.num_row_groups):
            rows = rows_at_once(path, file.metadata, file.schema, group)
            for batch in file.iter_batches(batch_size=rows, row_groups=[group], columns=names, use_threads=False):
                _require_short_lists(batch)
                yield from batch.to_pylist()
    except DatasetError:
        raise
    except Exception as err:  # pyarrow raises many types for damaged files
        raise _damaged(err) from err


def _require_short_lists(batch: Any) -> None:
    """Raise DatasetError if a row has lists that are not samples: a list of Python takes more memory than its bytes."""
    for column in batch.columns:
        if column.type.num_fields and column.nbytes > MOST_ROW:
            longest = max(column.slice(place, 1).nbytes for place in range(len(column)))
            if longest > MOST_ROW:
                raise DatasetError(
                    "Too large", f"the lists of a row have more than {MOST_ROW:,} bytes: this is no file of samples"
                )


def _pyarrow() -> Any:
    try:
        return import_module("pyarrow.parquet")
    except ImportError as err:
        raise DatasetError(
            "Parquet is not installed", "install the extra: pip install torchloop[parquet]; or send CSV or JSON Lines"
        ) from err


def _damaged(err: Exception) -> DatasetError:
    return DatasetError("Damaged file", f"the Parquet file cannot be read: {in_one_line(err)}")
