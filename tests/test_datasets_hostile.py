"""Bombs, forged counts and hostile names are refused with words, in bounded memory."""

import bz2
import gzip
import io
import struct
import tarfile
import tracemalloc
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from models.messages import decode_message, encode_message
from models.mnist import SPEC as DIGIT
from tests.dataset_files import digit, idx, made, png, write_tar, write_zip
from training.datasets.errors import DatasetError
from training.datasets.readers import files
from training.datasets.readers.archives import Tar, Zip

MNIST: dict[str, Any] = {"model": "mnist", "spec": DIGIT, "target": "label", "labels": tuple("0123456789")}
PICTURE = {"1/a.png": png(digit(1))}
NAMES = ["../a.png", "1/../../a.png", "/etc/a.png", "C:\\a.png", "..\\a.png", "\\a.png", "1/" + "x" * 2_000]


@pytest.mark.parametrize("name", NAMES, ids=range(len(NAMES)))
def test_a_name_that_leads_out_of_the_archive_is_refused(tmp_path: Path, name: str) -> None:
    for source in (write_zip(tmp_path / "a.zip", {**PICTURE, name: b"x"}), write_tar(tmp_path / "a.tar", {name: b"x"})):
        with pytest.raises(DatasetError, match="names are relative, without"):
            made(tmp_path, source, **MNIST)
    assert not (tmp_path.parent / "a.png").exists()


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.FIFOTYPE])
def test_links_and_devices_in_a_tar_are_refused(tmp_path: Path, kind: bytes) -> None:
    with tarfile.open(tmp_path / "a.tar", "w") as archive:
        info = tarfile.TarInfo("1/a.png")
        info.type, info.linkname = kind, "/etc/passwd"
        archive.addfile(info)
    with pytest.raises(DatasetError, match="is a link or a device: pack files only"):
        made(tmp_path, tmp_path / "a.tar", **MNIST)


def test_a_link_in_a_zip_is_refused(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        info = zipfile.ZipInfo("1/a.png")
        info.external_attr = 0o120777 << 16
        archive.writestr(info, "/etc/passwd")
    with pytest.raises(DatasetError, match="is a link: pack the files themselves"):
        made(tmp_path, tmp_path / "a.zip", **MNIST)


def bomb_zip(path: Path) -> None:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for number in range(8):
            archive.writestr(f"1/{number}.png", bytes(2**19))


def bomb_gzip(path: Path) -> None:
    path.write_bytes(gzip.compress(b"x,y\n" + (b"1," + b" " * 2_000 + b"3\n") * 2_000))


def bomb_tar(path: Path) -> None:
    write_tar(path, {f"1/{number}.png": bytes(2**19) for number in range(8)}, "w:gz")


def bomb_npz(path: Path) -> None:
    with path.open("wb") as file:
        np.savez_compressed(file, x=np.zeros((2**20, 1), np.float32), y=np.zeros(2**20, np.float32))


def bomb_idx(path: Path) -> None:
    images, labels = idx(np.zeros((5_000, 28, 28))), idx(np.zeros(5_000))
    write_zip(
        path,
        {"train-images-idx3-ubyte.gz": gzip.compress(images), "train-labels-idx1-ubyte.gz": gzip.compress(labels)},
    )


@pytest.mark.parametrize("bomb", [bomb_zip, bomb_gzip, bomb_tar, bomb_npz, bomb_idx])
def test_a_file_that_unpacks_to_too_much_is_refused_in_little_memory(
    tmp_path: Path, bomb: Callable[[Path], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    bomb(tmp_path / "bomb")
    monkeypatch.setattr(files, "FREE", 2**20)
    monkeypatch.setattr(files, "RATIO", 10)
    values = {} if bomb in {bomb_gzip, bomb_npz} else MNIST
    tracemalloc.start()
    with pytest.raises(DatasetError, match="unpack to more than 1,048,576: send the file in parts"):
        made(tmp_path, tmp_path / "bomb", **values)
    assert tracemalloc.get_traced_memory()[1] < 24 * 2**20
    tracemalloc.stop()


@pytest.mark.slow
def test_a_header_of_a_tar_that_declares_a_giant_is_refused_in_little_memory(tmp_path: Path) -> None:
    info = tarfile.TarInfo("1/a.png")
    info.type, info.size = tarfile.XHDTYPE, 2**27
    with gzip.open(tmp_path / "a.tar", "wb") as file:
        file.write(info.tobuf() + bytes(2**27))
    tracemalloc.start()
    with pytest.raises(DatasetError, match="a header of the tar file is too long"):
        Tar(tmp_path / "a.tar")
    assert tracemalloc.get_traced_memory()[1] < 16 * 2**20
    tracemalloc.stop()


def test_a_zip_with_a_giant_list_of_files_is_refused_before_it_is_read(tmp_path: Path) -> None:
    path = tmp_path / "a.zip"
    with path.open("wb") as file:
        file.truncate(2**28 + 10_000)  # a file with a hole
        file.seek(0, 2)
        file.write(struct.pack("<4s4H2LH", b"PK\x05\x06", 0, 0, 65_535, 65_535, 2**28 + 1, 0, 0))
    with pytest.raises(DatasetError, match="the list of files in the zip is too long"):
        Zip(path)


def forged(content: bytes) -> bytes:
    """Declare a smaller size of the first member than it has."""
    size = content.rindex(b"PK\x01\x02") + 24
    return content[:size] + struct.pack("<L", 10) + content[size + 4 :]


def test_a_member_with_a_forged_size_is_a_refused_row(tmp_path: Path) -> None:
    source = write_zip(tmp_path / "a.zip", {"1/a.png": png(digit(3)), "1/b.png": png(digit(4))})
    source.write_bytes(forged(source.read_bytes()))
    done = made(tmp_path, source, allow_rejected=0.5, **MNIST)
    assert done.summary.rejected == 1


@pytest.mark.parametrize(
    ("head", "words"),
    [
        (bytes([0, 0, 8, 3]) + b"\xff" * 12, "promises"),
        (bytes([0, 0, 8, 3]) + bytes(3), "cut short within its header"),
        (b"\x00\x00\x07\x03", "does not begin as an IDX file does"),
    ],
)
def test_idx_files_with_forged_counts_are_refused(tmp_path: Path, head: bytes, words: str) -> None:
    source = write_zip(tmp_path / "a.zip", {"a-images-idx3-ubyte": head, "a-labels-idx1-ubyte": idx(np.zeros(3))})
    with pytest.raises(DatasetError, match=words):
        made(tmp_path, source, **MNIST)


def test_damaged_archives_are_refused(tmp_path: Path) -> None:
    whole = write_zip(tmp_path / "a.zip", {f"1/{number}.png": png(digit(number)) for number in range(5)}).read_bytes()
    (tmp_path / "cut.zip").write_bytes(whole[:-30])
    with pytest.raises(DatasetError, match="the zip file is damaged or cut short"):
        made(tmp_path, tmp_path / "cut.zip", **MNIST)
    tar = write_tar(tmp_path / "a.tar", {f"1/{number}.png": png(digit(number)) for number in range(50)}, "w:gz")
    tar.write_bytes(tar.read_bytes()[:1_000])
    with pytest.raises(DatasetError, match="damaged or cut short"):
        made(tmp_path, tar, **MNIST)
    with zipfile.ZipFile(tmp_path / "odd.zip", "w", zipfile.ZIP_BZIP2) as archive:
        archive.writestr("1/a.png", png(digit(1)))
    with pytest.raises(DatasetError, match="the zip file is not stored or deflated"):
        made(tmp_path, tmp_path / "odd.zip", **MNIST)
    (tmp_path / "a.bz2").write_bytes(bz2.compress(b"x,y\n"))
    with pytest.raises(DatasetError):
        made(tmp_path, tmp_path / "a.bz2", **MNIST)


def test_a_line_without_an_end_is_refused_in_little_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "MOST_LINE", 2**16)
    content = io.BytesIO(b"x,y\n" + b"1" * 2**18)
    (tmp_path / "a.csv").write_bytes(content.getvalue())
    with pytest.raises(DatasetError, match="a line has more than 65,536 bytes"):
        made(tmp_path, tmp_path / "a.csv")


def test_names_that_are_not_utf_8_reach_the_report_escaped(tmp_path: Path) -> None:
    odd = b"\xff".decode("utf-8", "surrogateescape")
    files = {f"{odd}/a.png": png(digit(1)), f"1/{odd}.png": b"none", "1/b.png": png(digit(2))}
    source = write_tar(tmp_path / "a.tar", files)
    done = made(tmp_path, source, **{**MNIST, "labels": None}, allow_rejected=1.0)
    assert decode_message(encode_message(done)) == done
    assert {reason.title: reason.first[0].value for reason in done.summary.by_reason} == {
        "Wrong label": "\\udcff",
        "No picture": "1/\\udcff.png",
    }
