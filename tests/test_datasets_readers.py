"""Readers: each format gives the same rows, and files that are none are refused with words."""

import gzip
import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from models.mnist import SPEC as DIGIT
from models.spec import ModelSpec
from tests.dataset_files import (
    digit,
    idx,
    index,
    line_rows,
    made,
    png,
    write_csv,
    write_folder,
    write_jsonl,
    write_tar,
    write_zip,
)
from tests.fakes import LINE
from tests.signatures import DENOISER, SERIES, SIAMESE, TABLE
from training.datasets.errors import DatasetError
from training.datasets.splits import SPLITS

MNIST: dict[str, Any] = {"model": "mnist", "spec": DIGIT, "target": "label", "labels": tuple("0123456789")}
CONTENTS = {f"{label}/{number}.png": png(digit(10 * number + label)) for label in range(3) for number in range(4)}


def npy(array: Any) -> bytes:
    file = io.BytesIO()
    np.save(file, array)
    return file.getvalue()


def counts(folder: Path, source: Path, spec: ModelSpec = LINE, **values: Any) -> tuple[str, int, list[Any]]:
    """Return digest, count and targets of a version."""
    done = made(folder, source, **({"spec": spec, **values}))
    return done.sha256, sum(done.summary.examples.values()), sorted(np.asarray(index(folder, done).targets).ravel())


def test_tables_in_every_format_are_the_same_version(tmp_path: Path) -> None:
    rows = line_rows(30)
    x, y = np.arange(30, dtype=np.float32)[:, None], 2 * np.arange(30) + 2
    plain = write_csv(tmp_path / "a.csv", rows)
    expected = counts(tmp_path, plain)
    assert expected[1] == 30
    text = plain.read_text()
    sources = {
        "gz": gzip.compress(text.encode()),
        "bom": b"\xef\xbb\xbf" + text.encode(),
        "semicolons": text.replace(",", ";").encode(),
        "excel": b"sep=;\r\n" + text.replace(",", ";").encode(),
        "tabs": text.replace(",", "\t").encode(),
        "array": npy(np.concatenate([x, y[:, None]], axis=1)),
        "structured": npy(np.array([*zip(range(30), y, strict=True)], [("x", "f8"), ("y", "i8")])),
    }
    for name, content in sources.items():
        (tmp_path / name).write_bytes(content)
        assert counts(tmp_path, tmp_path / name) == expected, name
    np.savez(tmp_path / "a.npz", x=x, y=y)
    np.savez_compressed(tmp_path / "b.npz", x_train=x[:20], y_train=y[:20], x_test=x[20:], y_test=y[20:])
    assert counts(tmp_path, tmp_path / "a.npz") == expected
    assert counts(tmp_path, tmp_path / "b.npz")[1:] == expected[1:]
    inner = write_zip(tmp_path / "c.zip", {"folder/a.csv": plain.read_bytes(), ".DS_Store": b"x"})
    assert counts(tmp_path, inner) == expected
    for name in ("input", "features"):
        nested = write_jsonl(tmp_path / "d.jsonl", [{name: [row[0]], "label": row[1]} for row in rows[1:]])
        assert counts(tmp_path, nested) == expected


def test_pictures_in_zip_tar_and_folder_are_the_same_version(tmp_path: Path) -> None:
    expected = counts(tmp_path, write_zip(tmp_path / "a.zip", CONTENTS), **MNIST)
    assert expected[1:] == (12, [0] * 4 + [1] * 4 + [2] * 4)
    junk = {
        "__MACOSX/0/._0.png": b"x",
        "data/.DS_Store": b"x",
        "data/0/Thumbs.db": b"x",
        "data/.ipynb_checkpoints/a": b"x",
    }
    deeper = {**{f"data/{name}": content for name, content in CONTENTS.items()}, **junk}
    assert counts(tmp_path, write_zip(tmp_path / "b.zip", deeper), **MNIST) == expected
    for mode in ("w", "w:gz", "w:xz"):
        assert counts(tmp_path, write_tar(tmp_path / "c.tar", deeper, mode), **MNIST) == expected
    assert counts(tmp_path, write_folder(tmp_path / "folder", deeper), **MNIST) == expected
    table = b"file_name,label\n" + b"".join(
        f"p/{place}.png,{name[0]}\n".encode() for place, name in enumerate(CONTENTS)
    )
    flat = {f"p/{place}.png": content for place, content in enumerate(CONTENTS.values())}
    assert counts(tmp_path, write_zip(tmp_path / "d.zip", {"metadata.csv": table, **flat}), **MNIST) == expected


@pytest.mark.parametrize("name", ["val", "valid", "validation", "Validation"])
def test_folders_above_the_labels_are_splits(tmp_path: Path, name: str) -> None:
    files = {f"set/train/{path}": content for path, content in CONTENTS.items()}
    files |= {f"set/{name}/0/a.png": png(digit(201)), "set/test/1/b.png": png(digit(202))}
    done = made(tmp_path, write_zip(tmp_path / "a.zip", files), **MNIST)
    assert done.summary.examples == {"train": 12, "validation": 1, "test": 1}


def test_a_table_of_labels_may_name_splits_and_groups_and_misses_are_refused(tmp_path: Path) -> None:
    lines = [
        b'{"file_name": "a.png", "label": 7, "split": "test"}',
        b'{"file_name": "b.png", "label": 8, "split": "train", "group": "x"}',
        b'{"file_name": "gone.png", "label": 8}',
    ]
    files = {
        "metadata.jsonl": b"\n".join(lines),
        **{name: png(digit(place)) for place, name in enumerate(["a.png", "b.png", "c.png"])},
    }
    done = made(tmp_path, write_zip(tmp_path / "a.zip", files), allow_rejected=0.5, **MNIST)
    assert done.summary.examples["test"] == 1
    details = {reason.title: (reason.first[0].value, reason.first[0].detail) for reason in done.summary.by_reason}
    assert details == {
        "No label": ("c.png", "the table of labels does not name this file"),
        "Missing file": ("gone.png", "the table of labels names a file that is not there"),
    }


def test_texts_beside_pictures_are_left_out_with_a_warning(tmp_path: Path) -> None:
    expected = counts(tmp_path, write_zip(tmp_path / "a.zip", CONTENTS), **MNIST)
    files = {"README": b"x", "set/classes.txt": b"x", **{f"set/{name}": content for name, content in CONTENTS.items()}}
    beside = write_zip(tmp_path / "b.zip", {**files, "set/1/labels.csv": b"x"})
    assert counts(tmp_path, beside, **MNIST) == expected
    assert made(tmp_path, beside, **MNIST).summary.warnings[:2] == (
        "files that are no pictures were left out: README, set/classes.txt, set/1/labels.csv",
        "if set/1/labels.csv has the labels, call it metadata.csv or metadata.jsonl, with file_name and label",
    )


def test_a_table_of_labels_may_have_semicolons_and_needs_file_names(tmp_path: Path) -> None:
    pictures = {name.replace("/", "-"): content for name, content in CONTENTS.items()}
    rows = "".join(f"{name};{name[0]}\n" for name in pictures).encode()
    table = {"metadata.csv": b"\xef\xbb\xbffile_name;label\n" + rows, "notes.txt": b"x"}
    assert counts(tmp_path, write_zip(tmp_path / "a.zip", {**table, **pictures}), **MNIST)[1] == 12
    table = {"metadata.csv": b"filename;label\n" + rows}
    with pytest.raises(DatasetError, match=r"row 1 of metadata.csv has no file_name, .* it has filename, label"):
        made(tmp_path, write_zip(tmp_path / "b.zip", {**table, **pictures}), **MNIST)


def test_a_broken_picture_is_a_refused_row_with_its_name(tmp_path: Path) -> None:
    done = made(
        tmp_path, write_zip(tmp_path / "a.zip", {**CONTENTS, "1/x.png": b"no picture"}), allow_rejected=0.1, **MNIST
    )
    (reason,) = done.summary.by_reason
    assert (reason.title, reason.first[0].value) == ("No picture", "1/x.png")


@pytest.mark.parametrize("packed", [False, True])
def test_idx_files_in_a_tar_keep_their_splits(tmp_path: Path, packed: bool) -> None:
    pictures, labels = np.stack([digit(place) for place in range(40)]), np.arange(40) % 10
    files = {
        "train-images-idx3-ubyte": idx(pictures[:30]),
        "train-labels-idx1-ubyte": idx(labels[:30]),
        "t10k-images-idx3-ubyte": idx(pictures[30:]),
        "t10k-labels-idx1-ubyte": idx(labels[30:]),
    }
    if packed:
        files = {f"MNIST/raw/{name}.gz": gzip.compress(content) for name, content in files.items()}
    done = made(tmp_path, write_tar(tmp_path / "a.tar", files), **MNIST)
    assert done.summary.format == "idx"
    assert done.summary.examples["test"] == 10
    assert sum(done.summary.examples.values()) == 40


def test_named_inputs_of_every_kind_are_read(tmp_path: Path) -> None:
    rows = [{"age": 30, "sex": "male", "label": 1.5}, {"age": 31, "sex": "female", "fare": 7.5, "label": [2]}]
    table: dict[str, Any] = {"model": "table", "spec": TABLE, "target": "value"}
    assert counts(tmp_path, write_jsonl(tmp_path / "a.jsonl", rows), **table)[1:] == (2, [1.5, 2.0])
    series: dict[str, Any] = {"model": "series", "spec": SERIES, "target": "value"}
    lines = [{"inputs": {"series": [[1, 2], [3, 4]]}, "value": 1}, {"series": [[1, 2]], "value": 2}]
    assert counts(tmp_path, write_jsonl(tmp_path / "b.jsonl", lines[:1]), **series)[1] == 1
    assert counts(tmp_path, write_jsonl(tmp_path / "c.jsonl", lines[1:]), **series)[1] == 1
    pictures = np.arange(128, dtype=np.uint8).reshape(2, 8, 8)
    np.savez(tmp_path / "d.npz", left=pictures, right=pictures[::-1], y=np.array([0.0, 1.0]))
    siamese: dict[str, Any] = {"model": "siamese", "spec": SIAMESE, "target": "value"}
    assert counts(tmp_path, tmp_path / "d.npz", **siamese)[1:] == (2, [0.0, 1.0])
    denoiser: dict[str, Any] = {"model": "denoiser", "spec": DENOISER, "target": "label"}
    assert counts(tmp_path, write_zip(tmp_path / "e.zip", CONTENTS), **denoiser)[1] == 12


def test_rows_that_cannot_be_read_are_refused_and_the_next_ones_are_not(tmp_path: Path) -> None:
    content = b'x,y\n1,3\n2\n4,9\n"broken,5\n'
    (tmp_path / "a.csv").write_bytes(content)
    done = made(tmp_path, tmp_path / "a.csv", allow_rejected=1.0)
    assert [reason.title for reason in done.summary.by_reason] == ["Wrong number of cells"]
    (tmp_path / "b.csv").write_bytes(b"x,y\n1,3\n\xff\xfe,5\n4,9\n")
    done = made(tmp_path, tmp_path / "b.csv", allow_rejected=1.0)
    assert [reason.title for reason in done.summary.by_reason] == ["Not UTF-8"]
    (tmp_path / "c.jsonl").write_bytes(b'{"x": 1, "y": 3}\n{"x": 2\n\n[4]\n{"x": 4, "y": true}\n{"x": 5, "y": 11}\n')
    done = made(tmp_path, tmp_path / "c.jsonl", allow_rejected=1.0)
    rows = {reason.title: [row.row for row in reason.first] for reason in done.summary.by_reason}
    assert rows == {"Malformed JSON": [2], "Wrong row": [3], "Wrong value": [4]}
    assert sum(done.summary.examples.values()) == 2
    (tmp_path / "d.jsonl").write_bytes(b'{"x": 2\n{"x": 1, "y": 3}\n')
    done = made(tmp_path, tmp_path / "d.jsonl", allow_rejected=1.0)
    assert [(reason.title, reason.rows) for reason in done.summary.by_reason] == [("Malformed JSON", 1)]


@pytest.mark.parametrize(("value", "number"), [("2,5", "2.5"), ("-1.234,50", "-1234.50"), ("1,234.5", None)])
def test_a_decimal_comma_has_a_warning(tmp_path: Path, value: str, number: str | None) -> None:
    (tmp_path / "a.csv").write_text(f"x;y\n1;3\n{value};4\n")
    warnings = made(tmp_path, tmp_path / "a.csv", allow_rejected=1.0).summary.warnings
    expected = f"values such as {value} seem to have a decimal comma: write numbers with a point, such as {number}"
    assert (expected in warnings) == (number is not None)
    assert any("decimal comma" in warning for warning in warnings) == (number is not None)


def test_inputs_that_may_be_missing_and_have_no_column_are_named(tmp_path: Path) -> None:
    table: dict[str, Any] = {"spec": TABLE, "model": "table", "target": "value"}
    done = made(tmp_path, write_csv(tmp_path / "a.csv", [("age", "sex", "y"), (30, "male", 1)]), **table)
    assert "inputs of the model without a column, missing in every row: fare" in done.summary.warnings


def test_arrays_of_unequal_lengths_are_refused_with_their_shapes(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", x=np.zeros((3, 1)), y=np.zeros(2))
    with pytest.raises(DatasetError, match=r"targets, splits and groups have the shapes \[3, 1\], \[2\]"):
        made(tmp_path, tmp_path / "a.npz")


REFUSED = {
    "empty": (b"", "the file is empty"),
    "no header": (b"1,2\n3,4\n", "the first row of a CSV file must be the names of its columns"),
    "no label": (b"x,z\n1,2\n", "name the column of the answers label or target"),
    "wide": (b"a,b,y\n1,2,3\n", "the model takes 1 numbers a sample, but the file has 2 columns besides label (y)"),
    "latin": ("L\u00e4nge,y\n1,2\n".encode("cp1252"), "save the file as CSV UTF-8"),
    "twice": (b"x,x,y\n1,2,3\n", "two columns have the name 'x'"),
    "json list": (b'[{"x": 1}]', "one JSON list: write JSON Lines, each object in a line of its own"),
    "json": (b'{"x": 1,\n"y": 2}\n', "each line must be a JSON object; the first one is not: the line is not valid"),
    "xls": (b"\xd0\xcf\x11\xe0" + bytes(99), "an Excel workbook: save the sheet as CSV UTF-8"),
    "binary": (b"\x00\x01\x02\x03" * 9, "the file is none of CSV"),
    "utf-16": ("x,y\n1,2\n".encode("utf-16"), "the file is UTF-16: save it as CSV UTF-8"),
    "half": (idx(np.zeros((2, 28, 28))), "an IDX file has pictures or labels: send both"),
    "no targets": (npy(np.zeros((3, 4))), "has the shape [3, 4] and no targets"),
    "pickle": (npy(np.array([{}])), "arrays of Python objects are refused"),
    "long npy": (npy(np.zeros((3, 2))) + b"x", "promises 48 bytes of data, it has 49"),
    "gzip": (gzip.compress(b"x,y\n" + b"1,3\n" * 999)[:-9], "damaged or cut short"),
    "header only": (b"x,y\n", "the file has no rows"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_a_file_that_is_no_dataset_is_refused_with_words(tmp_path: Path, name: str) -> None:
    content, words = REFUSED[name]
    (tmp_path / "file").write_bytes(content)
    with pytest.raises(DatasetError) as error:
        made(tmp_path, tmp_path / "file")
    assert words in error.value.detail


def test_options_name_the_columns_and_a_wrong_one_is_refused(tmp_path: Path) -> None:
    source = write_csv(tmp_path / "a.csv", [("x", "price", "part"), *((n, n, SPLITS[n % 3]) for n in range(9))])
    done = made(tmp_path, source, label_column="price", split_column="part")
    assert done.summary.examples == {"train": 3, "validation": 3, "test": 3}
    with pytest.raises(DatasetError, match="label_column is 'prize'; the columns are x, price, part"):
        made(tmp_path, source, label_column="prize")
    with pytest.raises(DatasetError, match="there is no format 'xls'; there are auto, csv"):
        made(tmp_path, source, format="xls")
    with pytest.raises(DatasetError, match="the file has no column sex, which the model needs"):
        made(tmp_path, write_csv(tmp_path / "b.csv", [("age", "y"), (1, 1)]), TABLE, model="table")


def test_pictures_for_a_model_without_them_and_without_labels_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match="the model takes no pictures"):
        made(tmp_path, write_zip(tmp_path / "a.zip", CONTENTS))
    with pytest.raises(DatasetError, match="the pictures lie in no folders"):
        made(tmp_path, write_zip(tmp_path / "b.zip", {"a.png": png(digit(1))}), **MNIST)
    with pytest.raises(DatasetError, match=r"the archive has 2 files \(a.txt, b.txt\), but no pictures"):
        made(tmp_path, write_zip(tmp_path / "c.zip", {"a.txt": b"x", "b.txt": b"y"}), **MNIST)
    book = write_zip(tmp_path / "book.xlsx", {"[Content_Types].xml": b"x", "xl/workbook.xml": b"x"})
    with pytest.raises(DatasetError, match="an Excel workbook: save the sheet as CSV UTF-8"):
        made(tmp_path, book, **MNIST)
    with pytest.raises(DatasetError, match="has no file of the other kind"):
        made(tmp_path, write_zip(tmp_path / "d.zip", {"train-images-idx3-ubyte": idx(np.zeros((1, 28, 28)))}), **MNIST)


def test_parquet_without_pyarrow_says_how_to_install_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "pyarrow.parquet", None)
    (tmp_path / "a.parquet").write_bytes(b"PAR1" + bytes(100))
    with pytest.raises(DatasetError, match=r"pip install torchloop\[parquet\]"):
        made(tmp_path, tmp_path / "a.parquet")


def test_parquet_is_the_same_version_as_csv(tmp_path: Path) -> None:
    pyarrow, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    rows = line_rows(30)
    columns = pyarrow.table({"x": [float(str(row[0])) for row in rows[1:]], "y": [row[1] for row in rows[1:]]})
    parquet.write_table(columns, tmp_path / "a.parquet")
    assert counts(tmp_path, tmp_path / "a.parquet") == counts(tmp_path, write_csv(tmp_path / "a.csv", rows))
    files = [{"bytes": content, "path": name} for name, content in CONTENTS.items()]
    pictures = pyarrow.table({"image": files, "label": [int(name[0]) for name in CONTENTS]})
    parquet.write_table(pictures, tmp_path / "b.parquet")
    assert counts(tmp_path, tmp_path / "b.parquet", **MNIST)[1] == 12
    (tmp_path / "c.parquet").write_bytes((tmp_path / "a.parquet").read_bytes()[:100])
    with pytest.raises(DatasetError, match="the Parquet file cannot be read"):
        made(tmp_path, tmp_path / "c.parquet")
