"""Parquet, by pyarrow, which the extra [parquet] installs. It is imported when such a file is read."""

from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

from models.errors import in_one_line
from training.datasets.errors import DatasetError
from training.datasets.readers.columns import meaning, require_inputs, row_of
from training.datasets.source import Row, Source, Wanted

_ROWS = 1_024  # read at once
_MOST_GROUP = 2**31  # bytes of a row group, unpacked: pyarrow reads its pages into memory


def open_parquet(path: Path, wanted: Wanted) -> Source:
    """Open a Parquet file. Raises DatasetError, also if pyarrow is not installed."""
    parquet = _pyarrow()
    try:
        file = parquet.ParquetFile(path)
        names = list(file.schema_arrow.names)
        total = int(file.metadata.num_rows)
        groups = [file.metadata.row_group(place).total_byte_size for place in range(file.metadata.num_row_groups)]
    except Exception as err:  # pyarrow raises many types for damaged files
        raise _damaged(err) from err
    if max(groups, default=0) > _MOST_GROUP:
        raise DatasetError("Too large", f"a row group unpacks to more than {_MOST_GROUP:,} bytes: write smaller ones")
    columns, spec = meaning(names, wanted), wanted.spec
    values = [name for name in names if columns.is_value(name)]
    ignored = require_inputs(values, spec) if spec.inputs else ()
    done = [0]

    def rows() -> Iterator[Row]:
        kept = [name for name in names if name not in ignored]
        try:
            for batch in file.iter_batches(batch_size=_ROWS, columns=kept):
                for record in batch.to_pylist():
                    done[0] += 1
                    yield row_of(done[0], record, columns, spec)
        except DatasetError:
            raise
        except (OSError, ValueError, MemoryError) as err:  # pyarrow's own errors are of these types
            raise _damaged(err) from err

    return Source(format="parquet", rows=rows, progress=lambda: (done[0], max(total, done[0])), ignored=ignored)


def _pyarrow() -> Any:
    try:
        return import_module("pyarrow.parquet")
    except ImportError as err:
        raise DatasetError(
            "Parquet is not installed", "install the extra: pip install torchloop[parquet]; or send CSV or JSON Lines"
        ) from err


def _damaged(err: Exception) -> DatasetError:
    return DatasetError("Damaged file", f"the Parquet file cannot be read: {in_one_line(err)}")
