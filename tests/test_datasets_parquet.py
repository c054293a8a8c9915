"""Parquet files with forged counts, huge pages, texts and lists: refused with words, or read in bounded memory."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from models.outputs import Value, describe_values, values
from models.signature import Text
from models.spec import ModelSpec
from tests.dataset_files import line_rows, made, write_csv
from tests.fakes import LINE, ROOT
from training.datasets.errors import DatasetError
from training.datasets.ingest import Request, ingest
from training.datasets.readers import files, parquet_pages
from training.datasets.readers.thrift import Damaged, read_struct

pyarrow: Any = pytest.importorskip("pyarrow")
parquet: Any = pytest.importorskip("pyarrow.parquet")

MB = 2**20
ZEROS: dict[str, Any] = {"compression": "zstd", "use_dictionary": False}


def write(path: Path, x: Any, rows: int = 1, **options: Any) -> None:
    """Write a table of x and value. Its dictionaries are as long as they come."""
    table = pyarrow.table({"x": x, "value": np.arange(rows, dtype=np.float64)})
    parquet.write_table(table, path, store_schema=False, **{"dictionary_pagesize_limit": 2**30, **options})


def page(path: Path) -> None:
    write(path, ["a" * 40 * MB], **ZEROS)


def dictionary(path: Path) -> None:
    """4 GB in a few kB."""
    places = pyarrow.array(np.zeros(4_096, np.int32))
    write(path, pyarrow.DictionaryArray.from_arrays(places, ["a" * MB]), 4_096, compression="zstd")


def prefixes(path: Path) -> None:
    write(path, ["a" * MB] * 64, 64, column_encoding={"x": "DELTA_BYTE_ARRAY"}, **ZEROS)


def texts(path: Path) -> None:
    write(path, ["a" * 200_000] * 400, 400, write_batch_size=16, **ZEROS)


def row_of_numbers(path: Path) -> None:
    write(path, pyarrow.array([np.zeros(3 * MB)]))


def rows_of_numbers(path: Path) -> None:
    write(path, pyarrow.array([np.zeros(2**18)] * 4), 4)


def nulls(path: Path) -> None:
    """Missing values of 1 MB each."""
    write(path, pyarrow.array([None] * 64, pyarrow.binary(MB)), 64)


BOMBS = {
    page: "Too large: a page and its dictionary unpack to more than",
    dictionary: "Unpacks to too much",
    prefixes: "Unpacks to too much",
    texts: "Unpacks to too much",
    row_of_numbers: "Too large: a row, or the lists of a row group, unpack to more than",
    rows_of_numbers: "Too large: the lists of a row have more than 1,048,576 bytes",
    nulls: "Too many rows refused",
}
_CHILD = """
import json, re, sys
from pathlib import Path
from tests import test_datasets_parquet
from training.datasets.errors import DatasetError

def most():
    return int(re.search(r"VmHWM:\\s+(\\d+)", Path("/proc/self/status").read_text())[1]) // 1024

test_datasets_parquet.small_limits(setattr)
told = {}
for number, path in enumerate(sys.argv[1:]):
    Path("/proc/self/clear_refs").write_text("5")
    before = most()
    try:
        test_datasets_parquet.read(Path(path), str(number))
        said = "read"
    except DatasetError as err:
        said = str(err)
    told[Path(path).stem] = [said, most() - before]
print(json.dumps(told))
"""


def small_limits(change: Callable[[Any, str, int], Any]) -> None:
    """Make all limits an eighth or less of what they are, so that bombs are small, too."""
    for name, most in {
        "AT_ONCE": 8 * MB,
        "MOST_VALUES": 16 * MB,
        "MOST_PAGE": 32 * MB,
        "MOST_HELD": 64 * MB,
    }.items():
        change(parquet_pages, name, most)
    change(files, "FREE", 32 * MB)
    change(__import__("training.datasets.readers.parquet", fromlist=["MOST_ROW"]), "MOST_ROW", MB)


TEXTS = ModelSpec(
    summary="a text to a number",
    network=LINE.network,
    inputs={"x": Text(max_chars=10 * MB)},
    encode=lambda sample, _: {"x": np.array([len(sample["x"])], np.float32)},
    postprocess=values,
    describe=describe_values,
    prediction=Value,
    example=[{"x": "a"}],
)


def read(path: Path, job: str = "j") -> None:
    """Ingest a file for a model of texts, all rows of which are good."""
    store = path.parent / "store"
    ingest(
        Request(model="m", spec=TEXTS, target="value", labels=None, store=store, job=job, source=path), lambda *_: None
    )


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="measures memory as Linux reports it")
def test_bombs_are_refused_with_words_in_bounded_memory(tmp_path: Path) -> None:
    paths = []
    for bomb in BOMBS:
        paths.append(tmp_path / f"{bomb.__name__}.parquet")
        bomb(paths[-1])
        assert paths[-1].stat().st_size < MB
    done = subprocess.run([sys.executable, "-c", _CHILD, *paths], cwd=ROOT, capture_output=True, text=True, check=True)
    told = json.loads(done.stdout)
    for bomb, words in BOMBS.items():
        said, grown_mb = told[bomb.__name__]
        assert said.startswith(words), (bomb.__name__, said)
        assert grown_mb < 120, (bomb.__name__, grown_mb)


@pytest.mark.slow
def test_rows_at_once_follow_from_the_longest_value(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    path = tmp_path / "a.parquet"

    def at_once(x: Any, x_type: Any = None, **options: Any) -> Any:
        write(path, pyarrow.array(x, x_type), len(x), **options)
        file = parquet.ParquetFile(path)
        return parquet_pages.rows_at_once(path, file.metadata, file.schema, 0)

    words = [f"{number % 3_000:020}" for number in range(20_000)]
    for options in ({}, {"compression": "zstd"}, {"compression": "none"}, {"data_page_version": "2.0"}, ZEROS):
        assert at_once(words, **options) == 1_024
    assert at_once([rng.bytes(200_000) for _ in range(300)]) == 256
    assert at_once(["a" * 8 * MB] * 3, compression="zstd") == 4
    assert at_once(["a" * MB] * 70, column_encoding={"x": "DELTA_BYTE_ARRAY"}, **ZEROS) == 32
    assert at_once([None] * 3, x_type=pyarrow.binary(8 * MB)) == 4
    assert at_once([np.zeros(16)] * 1_000) == 1_024


@pytest.mark.slow
def test_forged_counts_and_damaged_bytes_are_refused_or_harmless(tmp_path: Path) -> None:
    path = write_csv(tmp_path / "a.csv", line_rows(300))
    rows = np.arange(300, dtype=np.float64)
    table = pyarrow.table({"x": rows, "y": 2 * rows + 2, "text": [str(number) for number in range(300)]})
    parquet.write_table(table, tmp_path / "a.parquet", row_group_size=100)
    whole = (tmp_path / "a.parquet").read_bytes()
    count = made(tmp_path, path).summary.rows
    rng = np.random.default_rng(0)
    refused = 0
    forged = [whole.replace(b"\x16\xd8\x04", b"\x16\xfe\x7f"), whole.replace(b"\x16\xd8\x04", b"\x16\x81\x7f")]
    for _ in range(150):
        damaged = bytearray(whole)
        for place in rng.integers(4, len(whole) - 8, 3):
            damaged[place] = rng.integers(256)
        forged.append(bytes(damaged))
    for content in forged:
        (tmp_path / "b.parquet").write_bytes(content)
        try:
            done = made(tmp_path, tmp_path / "b.parquet", allow_rejected=1.0, format="parquet")
            assert done.summary.rows <= 10 * count
        except DatasetError:
            refused += 1
    assert refused > 50


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\x15",
        b"\x15" + b"\xff" * 11,
        b"\x18\x05ab",
        b"\x1c" * 40,
        b"\x19" + b"\x19" * 40,
        b"\x1d\x00",
        b"\x1b\x00",
    ],
    ids=range(8),
)
def test_damaged_structs_of_thrift_are_errors(content: bytes) -> None:
    with pytest.raises(Damaged):
        read_struct(content)


def test_structs_of_thrift_are_read() -> None:
    parts = [
        "1506",
        "1504",
        "11",
        "12",
        "18026162",
        "19250204",
        "17" + 8 * "00",
        "1c150200",
        "19210102",
        "05280a",
        "00",
    ]
    content = bytes.fromhex("".join(parts))
    found = {1: 3, 2: 2, 3: True, 4: False, 5: b"ab", 6: [1, 2], 7: bytes(8), 8: {1: 1}, 9: [1, 2], 20: 5}
    assert read_struct(content + b"rest") == (found, len(content))


def test_more_rows_than_a_version_takes_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("training.datasets.ingest.MOST_ROWS", 1_000)
    rows = [*line_rows(600), *([("x", "y")] * 600)]
    with pytest.raises(DatasetError, match="a version takes"):
        made(tmp_path, write_csv(tmp_path / "a.csv", rows), allow_rejected=1.0)
