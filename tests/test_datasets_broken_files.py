"""Files made to break a reader are refused with words: odd names, forged shapes, open quotes, many lists."""

import gzip
import io
import lzma
import struct
import tarfile
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from models.mnist import SPEC as DIGIT
from tests.dataset_files import digit, idx, line_rows, made, png, split_of, write_csv, write_jsonl, write_tar, write_zip
from training.datasets import joined
from training.datasets.errors import DatasetError
from training.datasets.readers import archives
from training.datasets.readers.archives import Tar
from training.datasets.source import Row, in_parts, weight

MNIST: dict[str, Any] = {"model": "mnist", "spec": DIGIT, "target": "label", "labels": tuple("0123456789")}
PICTURE = png(digit(1))


def npy(shape: tuple[int, ...], content: bytes = b"") -> bytes:
    file = io.BytesIO()
    np.lib.format.write_array_header_2_0(file, {"descr": "<f4", "fortran_order": False, "shape": shape})
    return file.getvalue() + content


@pytest.mark.parametrize("name", [".", "./."])
@pytest.mark.parametrize("write", [write_zip, write_tar])
def test_a_file_without_a_name_is_refused(
    tmp_path: Path, write: Callable[[Path, dict[str, bytes]], Path], name: str
) -> None:
    with pytest.raises(DatasetError, match="Hostile name"):
        made(tmp_path, write(tmp_path / "a", {"1/a.png": PICTURE, name: b"x"}), **MNIST)


def test_an_archive_may_name_its_root(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "a.tar", "w") as archive:
        root = tarfile.TarInfo("./")
        root.type = tarfile.DIRTYPE
        archive.addfile(root)
        info = tarfile.TarInfo("./1/a.png")
        info.size = len(PICTURE)
        archive.addfile(info, io.BytesIO(PICTURE))
    zipped = write_zip(tmp_path / "a.zip", {"./": b"", "./1/a.png": PICTURE})
    assert [made(tmp_path, path, **MNIST).summary.rows for path in (tmp_path / "a.tar", zipped)] == [1, 1]


@pytest.mark.parametrize("line", [b"[1, 2]", b'"x"', b"null", b"7"])
def test_a_table_of_labels_with_a_line_that_is_no_object_is_refused(tmp_path: Path, line: bytes) -> None:
    source = write_zip(tmp_path / "a.zip", {"metadata.jsonl": line, "a.png": PICTURE})
    with pytest.raises(DatasetError, match="Unreadable table"):
        made(tmp_path, source, **MNIST)


def test_tables_of_labels_are_bounded_together(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("training.datasets.readers.pictures.MOST_TABLES", 30)
    table = b"file_name,label\n"
    source = write_zip(tmp_path / "a.zip", {"a/metadata.csv": table, "b/metadata.csv": table, "a/a.png": PICTURE})
    with pytest.raises(DatasetError, match="the tables of labels have more than 30 bytes"):
        made(tmp_path, source, **MNIST)


def test_names_of_idx_files_may_be_longer_than_those_of_the_file_system(tmp_path: Path) -> None:
    name, digits = "x" * 300, np.stack([digit(number) for number in range(3)])
    source = write_zip(
        tmp_path / "a.zip", {f"{name}-images-idx3-ubyte": idx(digits), f"{name}-labels-idx1-ubyte": idx(np.arange(3))}
    )
    assert made(tmp_path, source, **MNIST).summary.added == 3


@pytest.mark.parametrize(
    ("shape", "content", "words"),
    [
        ((0, 2**62), b"", "too many axes, or too long ones"),
        ((0, 10**30), b"", "too many axes, or too long ones"),
        ((1,) * 70, bytes(4), "too many axes, or too long ones"),
        ((-1, -1), bytes(4), "a negative axis"),
    ],
    ids=["overflow", "giant", "axes", "negative"],
)
def test_shapes_that_no_array_can_have_are_refused(
    tmp_path: Path, shape: tuple[int, ...], content: bytes, words: str
) -> None:
    source = write_zip(tmp_path / "a.npz", {"x.npy": npy(shape, content), "y.npy": npy((1,), bytes(4))})
    with pytest.raises(DatasetError, match=words):
        made(tmp_path, source)


def test_an_idx_file_of_no_pictures_with_giant_axes_is_refused(tmp_path: Path) -> None:
    head = bytes([0, 0, 8, 4]) + bytes(4) + b"\xff" * 12
    source = write_zip(tmp_path / "a.zip", {"a-images-idx3-ubyte": head, "a-labels-idx1-ubyte": idx(np.zeros(0))})
    with pytest.raises(DatasetError, match="too many axes, or too long ones"):
        made(tmp_path, source, **MNIST)


@pytest.mark.parametrize("name", ["y", "split", "group"])
def test_texts_that_are_no_unicode_are_refused_rows_or_kept(tmp_path: Path, name: str) -> None:
    digits, codes = np.stack([digit(number) for number in range(3)]), np.full(3, 0x7FFFFFFF, np.uint32)
    arrays: dict[str, Any] = {"x": digits, "y": np.arange(3), name: codes.view("<U1")}
    np.savez(tmp_path / "a.npz", **arrays)
    with pytest.raises(DatasetError, match="the row has a text that is not Unicode"):
        made(tmp_path, tmp_path / "a.npz", **MNIST)
    np.savez(tmp_path / "b.npz", x=digits, y=np.arange(3), group=np.full(3, 0xD800, np.uint32).view("<U1"))
    assert made(tmp_path, tmp_path / "b.npz", **MNIST).summary.added == 3


@pytest.mark.parametrize("shape", [(3, 0, 28), (3, 28, 0), (3, 0, 0, 3)])
def test_pictures_without_pixels_are_refused_rows(tmp_path: Path, shape: tuple[int, ...]) -> None:
    np.savez(tmp_path / "a.npz", x=np.zeros(shape, np.uint8), y=np.zeros(3, int))
    with pytest.raises(DatasetError, match=r"all 3 rows were refused. Most often: Wrong shape"):
        made(tmp_path, tmp_path / "a.npz", **MNIST, allow_rejected=1.0)


@pytest.mark.slow
def test_giant_samples_and_targets_are_refused_in_little_memory(tmp_path: Path) -> None:
    np.savez_compressed(tmp_path / "a.npz", x=np.zeros((1, 2**27 + 1), np.uint8), y=np.zeros(1))
    np.savez_compressed(tmp_path / "b.npz", x=np.zeros((1, 1)), y=np.zeros((1, 2**25), bool))
    for name, words in (("a", "the sample has more than 134,217,728 bytes"), ("b", "more than 10,000 values")):
        tracemalloc.start()
        with pytest.raises(DatasetError, match=words):
            made(tmp_path, tmp_path / f"{name}.npz")
        assert tracemalloc.get_traced_memory()[1] < 24 * 2**20
        tracemalloc.stop()


@pytest.mark.parametrize("rows", [5_000, 50_000], ids=["to the end", "to the limit of a cell"])
def test_a_quote_that_is_never_closed_does_not_swallow_rows(tmp_path: Path, rows: int) -> None:
    lines = [f"{number},{number}\n" for number in range(rows)]
    lines[500] = '500,"5\n'
    (tmp_path / "a.csv").write_text("x,y\n" + "".join(lines))
    with pytest.raises(DatasetError, match="a quote in the row that begins in line 502 is not closed"):
        made(tmp_path, tmp_path / "a.csv", allow_rejected=0.5)


def test_a_cell_with_nul_is_not_read_without_it(tmp_path: Path) -> None:
    padding = b"".join(b"%d,1\n" % number for number in range(200))  # the first bytes tell the format
    (tmp_path / "a.csv").write_bytes(b"x,y\n" + padding + b"1\x002,3\n4,5\x006\n")
    assert made(tmp_path, tmp_path / "a.csv", allow_rejected=0.5).summary.rejected == 2


def test_a_table_of_very_many_columns_is_read_in_linear_time(tmp_path: Path) -> None:
    source = write_csv(tmp_path / "a.csv", [[*(f"c{number}" for number in range(100_000)), "y"]])
    with pytest.raises(DatasetError, match="Wrong columns"):
        made(tmp_path, source)


def test_lists_count_as_memory() -> None:
    assert weight([[]] * 1_000) > 50_000
    rows = [Row(number, 1, target=[[]] * 100_000) for number in range(10)]
    assert [len(part) for part in in_parts(iter(rows))] == [3, 3, 3, 1]


@pytest.mark.slow
def test_an_xz_file_with_a_giant_dictionary_is_refused(tmp_path: Path) -> None:
    tar = write_tar(tmp_path / "a.tar", {"1/a.png": PICTURE}).read_bytes()
    small = [{"id": lzma.FILTER_LZMA2, "preset": 1}]
    giant = [{"id": lzma.FILTER_LZMA2, "preset": 1, "dict_size": 2**30}]
    (tmp_path / "small").write_bytes(lzma.compress(tar[:5_000], filters=small) + lzma.compress(tar[5_000:]) + bytes(8))
    assert [member.name for member in Tar(tmp_path / "small").members] == ["1/a.png"]
    (tmp_path / "giant").write_bytes(lzma.compress(tar, filters=giant))
    with pytest.raises(DatasetError, match="xz dictionary has more than 134,217,728 bytes"):
        Tar(tmp_path / "giant")
    for damaged in (lzma.compress(tar)[:60], lzma.compress(tar)[:50] + b"x" * 40 + lzma.compress(tar)[90:]):
        (tmp_path / "damaged").write_bytes(damaged)
        with pytest.raises(DatasetError, match="damaged or cut short"):
            Tar(tmp_path / "damaged")


def test_the_names_of_a_tar_are_bounded_together(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archives, "MOST_NAMES", 1_000)
    source = write_tar(tmp_path / "a.tar", {f"1/{number}-{'x' * 90}.png": b"" for number in range(20)})
    with pytest.raises(DatasetError, match="the names in the archive have more than 1,000 characters"):
        Tar(source)


def test_a_gzip_within_an_archive_may_unpack_to_as_much_as_the_archive(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("training.datasets.readers.files.FREE", 2**10)
    monkeypatch.setattr("training.datasets.readers.files.RATIO", 1_000)
    head = bytes([0, 0, 8, 3]) + struct.pack(">3I", 3, 28, 28)
    inner = gzip.compress(gzip.compress(head + bytes(2**24)))  # packs well once more
    source = write_zip(
        tmp_path / "a.zip", {"a-images-idx3-ubyte.gz": gzip.decompress(inner), "a-labels-idx1-ubyte": b""}
    )
    with pytest.raises(DatasetError, match="Unpacks to too much"):
        made(tmp_path, source, **MNIST)


@pytest.mark.parametrize("other", [3.0, 3, " 3 ", "3.0"])
def test_a_group_is_the_same_in_all_forms_of_its_number(tmp_path: Path, other: object) -> None:
    def splits(name: str, group: object) -> dict[bytes, str]:
        rows = [{"x": number, "y": 1, "group": group} for number in range(40)]
        return split_of(tmp_path, made(tmp_path, write_jsonl(tmp_path / name, rows)))

    assert splits("b.jsonl", other) == splits("a.jsonl", "3")


def test_rows_without_a_group_are_not_one_group(tmp_path: Path) -> None:
    numbers = np.arange(400.0)
    np.savez(tmp_path / "a.npz", x=numbers[:, None], y=numbers, group=np.full(400, np.nan))
    assert set(split_of(tmp_path, made(tmp_path, tmp_path / "a.npz")).values()) == {"train", "validation", "test"}


def test_a_group_that_is_a_list_is_a_refused_row(tmp_path: Path) -> None:
    source = write_jsonl(tmp_path / "a.jsonl", [{"x": 1, "y": 1, "group": [1]}])
    with pytest.raises(DatasetError, match="the group is a list; it must be one text or number"):
        made(tmp_path, source)


def test_a_label_with_nul_is_a_refused_row(tmp_path: Path) -> None:
    source = write_jsonl(tmp_path / "a.jsonl", [{"input": digit(1).tolist(), "label": "a\0b"}])
    with pytest.raises(DatasetError, match="the label has the character NUL"):
        made(tmp_path, source, **{**MNIST, "labels": None})


def test_labels_are_bounded_together(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(joined, "MOST_NAMES", 100)
    rows = [{"input": digit(number).tolist(), "label": f"{number}{'x' * 30}"} for number in range(5)]
    with pytest.raises(DatasetError, match="or 100 characters of them"):
        made(tmp_path, write_jsonl(tmp_path / "a.jsonl", rows), **{**MNIST, "labels": None})


def test_a_file_of_refused_rows_only_keeps_its_report(tmp_path: Path) -> None:
    source = write_csv(tmp_path / "a.csv", [*line_rows(0), ("a", 1), ("b", 2)])
    with pytest.raises(DatasetError, match=r"all 2 rows were refused. Most often: Wrong sample \(2 rows\)") as caught:
        made(tmp_path, source, allow_rejected=1.0)
    assert caught.value.summary is not None
    assert caught.value.summary.rejected == 2
