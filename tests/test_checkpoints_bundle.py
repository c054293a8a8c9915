"""Bundles: tar archives of a version. Whatever they contain, only the members that the record names are written."""

import io
import json
import subprocess
import tarfile
import tracemalloc
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

from models.checkpoints import artifact_files, bundle
from models.checkpoints.record import Record, verify
from models.errors import CheckpointError
from tests.signatures import VOCABULARY, save

LARGE = {**VOCABULARY, "labels": ["a", "b", "-" * 5_000_000]}


def packed(path: Path, members: Mapping[str, bytes | tarfile.TarInfo]) -> Path:
    """Write a tar archive: contents by name, or headers alone."""
    with path.open("wb") as file:
        for name, member in members.items():
            header = member if isinstance(member, tarfile.TarInfo) else tarfile.TarInfo(name)
            content = b"" if isinstance(member, tarfile.TarInfo) else member
            header.size = len(content) or header.size
            file.write(header.tobuf(tarfile.GNU_FORMAT) + content + bytes(-len(content) % 512))
        file.write(bytes(1024))
    return path


def record(**values: Any) -> bytes:
    return json.dumps({**asdict(Record(model="text", sha256="0" * 64)), **values}).encode()


def refusal(path: Path) -> str:
    with pytest.raises(CheckpointError) as caught:
        bundle.read("text", path)
    assert str(path.parent) not in str(caught.value)
    return str(caught.value)


def bundled(folder: Path, **options: Any) -> tuple[Path, Record]:
    """Write a checkpoint with a large artifact into a folder, and its bundle beside the folder."""
    folder.mkdir()
    path = save(folder, "text", **{"artifacts": LARGE, **options})
    made, found = folder.with_suffix(".tar"), verify("text", path)
    parts = bundle.parts_of("text-3", path, found)
    made.write_bytes(b"".join(bundle.written(parts)))
    assert made.stat().st_size == bundle.size_of(parts)
    return made, found


def test_a_bundle_has_all_of_a_version_and_comes_back_as_it_was(tmp_path: Path) -> None:
    made, written = bundled(tmp_path / "one")
    assert bundle.is_bundle(made)
    assert not bundle.is_bundle(tmp_path / "one" / "text.pt")
    found = bundle.read("text", made)
    assert found.record == written
    (tmp_path / "two").mkdir()
    weights = found.unpack(tmp_path / "two")
    assert weights.read_bytes() == (tmp_path / "one" / "text.pt").read_bytes()
    artifacts = artifact_files.load(found.record.artifacts, tmp_path / "two")
    assert (artifacts["words"], artifacts["labels"]) == (LARGE["words"], LARGE["labels"])


def test_tar_unpacks_a_bundle_into_a_checkpoint(tmp_path: Path) -> None:
    made, written = bundled(tmp_path / "one")
    (tmp_path / "two").mkdir()
    subprocess.run(["tar", "xf", made, "-C", tmp_path / "two"], check=True)
    assert verify("text", tmp_path / "two" / "text-3.pt") == written
    assert artifact_files.load(written.artifacts, tmp_path / "two")["labels"] == LARGE["labels"]


@pytest.mark.parametrize("form", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_bundles_that_tarfile_makes_of_a_checkpoint_are_read(tmp_path: Path, form: int) -> None:
    _, written = bundled(tmp_path / "one")
    made = tmp_path / "made.tar"
    with tarfile.open(made, "w", format=form) as archive:  # with PAX_FORMAT, headers of precise times
        for path in sorted((tmp_path / "one").iterdir()):
            archive.add(path, path.name)
    assert bundle.read("text", made).record == written


@pytest.mark.slow
def test_a_bundle_is_written_and_unpacked_in_little_memory(tmp_path: Path) -> None:
    weights = tmp_path / "large.pt"
    with weights.open("wb") as file:
        file.truncate(100_000_000)
    parts = bundle.parts_of("large", weights, Record(model="text", sha256="0"))
    tracemalloc.start()
    try:
        with (tmp_path / "large.tar").open("wb") as file:
            for piece in bundle.written(parts):
                file.write(piece)
        (tmp_path / "unpacked").mkdir()
        unpacked = bundle.read("text", tmp_path / "large.tar").unpack(tmp_path / "unpacked")
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert unpacked.stat().st_size == 100_000_000
    assert peak < 8_000_000


def test_a_file_that_is_cut_short_while_it_is_sent_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / "text.pt"
    path.write_bytes(bytes(3_000_000))
    pieces = bundle.written({"text.pt": path})
    next(pieces)
    path.write_bytes(bytes(1_500_000))
    with pytest.raises(OSError, match=r"text\.pt was cut short"):
        list(pieces)


@pytest.mark.parametrize(
    "name",
    ["../x.pt", "/etc/x.pt", "a/x.pt", "./x.pt", ".x.pt", "..", "C:\\x.pt", "x\\..\\y.pt", "../" * 20 + "x.artifact"],
)
def test_names_with_folders_are_refused(tmp_path: Path, name: str) -> None:
    said = refusal(packed(tmp_path / "b.tar", {"x.json": record(), "x.pt": b"x", name: b"x"}))
    assert "is not the name of a file without a folder" in said
    assert "send NAME.pt, NAME.json and the .artifact files" in said


@pytest.mark.parametrize(
    "kind",
    [
        tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.DIRTYPE, tarfile.CHRTYPE, tarfile.FIFOTYPE, tarfile.GNUTYPE_SPARSE,
        tarfile.GNUTYPE_LONGNAME, tarfile.CONTTYPE, b"?",
    ],
)  # fmt: skip
def test_what_is_no_plain_file_is_refused(tmp_path: Path, kind: bytes) -> None:
    header = tarfile.TarInfo("x.pt")
    header.type, header.linkname = kind, "/etc/passwd"
    assert "x.pt is not a plain file" in refusal(packed(tmp_path / "b.tar", {"x.json": record(), "x.pt": header}))


def declaring(size: int, kind: bytes = tarfile.REGTYPE) -> tarfile.TarInfo:
    header = tarfile.TarInfo("x.pt")
    header.size, header.type = size, kind
    return header


BROKEN: Mapping[str, tuple[Callable[[], Mapping[str, Any]], str]] = {
    "no record": (lambda: {"x.pt": b"x"}, "it has 0 records"),
    "two records": (lambda: {"x.json": record(), "y.json": record(), "x.pt": b"x"}, "it has 2 records"),
    "no weights": (lambda: {"x.json": record()}, "the weights of that name, it has none"),
    "other weights": (lambda: {"x.json": record(), "y.pt": b"x"}, "the weights of that name, it has y.pt"),
    "two weights": (lambda: {"x.json": record(), "x.pt": b"x", "x.bin": b"x"}, "it has x.pt, x.bin"),
    "a foreign file": (
        lambda: {"x.json": record(), "x.pt": b"x", "y.artifact": b"x"},
        "its record does not name y.artifact",
    ),
    "a missing artifact": (
        lambda: {
            "x.json": record(artifacts={"words": {"sha256 of file": "0" * 64, "form": "json"}}),
            "x.pt": b"x",
        },
        f"{'0' * 24}.artifact, the file of an artifact, is missing",
    ),
    "a petabyte": (lambda: {"x.json": record(), "x.pt": declaring(10**15)}, "it is cut short or damaged"),
    "a terabyte of pax headers": (
        lambda: {"x.pt": declaring(10**12, tarfile.XHDTYPE)},
        "it is cut short or damaged",
    ),
    "a negative size": (lambda: {"x.pt": declaring(-512)}, "it is cut short or damaged"),
    "many members": (
        lambda: {"x.json": record(), **{f"{i}.artifact": b"" for i in range(1000)}},
        "it has more than 1,000 members",
    ),
    "no JSON": (lambda: {"x.json": b"{", "x.pt": b"x"}, "its record cannot be read"),
    "deep JSON": (lambda: {"x.json": b"[" * 100_000, "x.pt": b"x"}, "its record cannot be read"),
    "deep artifacts": (
        lambda: {"x.json": record(artifacts={"x": json.loads("[" * 300 + "]" * 300)}), "x.pt": b"x"},
        "its record cannot be read",
    ),
    "NaN": (lambda: {"x.json": record(arguments={"x": float("nan")}), "x.pt": b"x"}, "its record cannot be read"),
    "infinity": (
        lambda: {"x.json": record(arguments={"x": 5.5}).replace(b"5.5", b"1e999"), "x.pt": b"x"},
        "its record cannot be read",
    ),
    "a lone surrogate": (lambda: {"x.json": record(config={"x": "\ud800"}), "x.pt": b"x"}, "its record cannot be read"),
    "artifacts in a list": (lambda: {"x.json": record(artifacts=["x"]), "x.pt": b"x"}, "its record cannot be read"),
    "no digest": (lambda: {"x.json": record(sha256=5), "x.pt": b"x"}, "its record cannot be read"),
    "a large record": (
        lambda: {"x.json": record(config={"x": "x" * 9_000_000}), "x.pt": b"x"},
        "its record has more than 8,388,608 bytes",
    ),
    "a huge record": (
        lambda: {"x.json": record(config={"x": "x" * 70_000_000}), "x.pt": b"x"},
        "its record has more than 8,388,608 bytes",
    ),
    "another model": (lambda: {"x.json": record(model="table"), "x.pt": b"x"}, "a checkpoint of table, not of text"),
    "a path for a digest": (
        lambda: {
            "x.json": record(artifacts={"words": {"sha256 of file": "../../etc/passwd", "form": "json"}}),
            "x.pt": b"x",
        },
        "by something else than a SHA-256 digest",
    ),
}


@pytest.mark.many
@pytest.mark.parametrize("kind", BROKEN)
def test_a_broken_bundle_is_refused_in_words(tmp_path: Path, kind: str) -> None:
    members, said = BROKEN[kind]
    assert said in refusal(packed(tmp_path / "b.tar", members()))


def test_a_member_that_comes_twice_is_refused(tmp_path: Path) -> None:
    content = packed(tmp_path / "b.tar", {"x.json": record(), "x.pt": b"x"}).read_bytes()[:-1024]
    (tmp_path / "b.tar").write_bytes(content + content)
    assert "it has two members named x.json" in refusal(tmp_path / "b.tar")


def test_a_bundle_cut_anywhere_is_refused(tmp_path: Path) -> None:
    content = packed(tmp_path / "b.tar", {"x.json": record(), "x.pt": b"x" * 700}).read_bytes()[: -1024 - 324]
    for length in range(0, len(content), 100):
        (tmp_path / "b.tar").write_bytes(content[:length])
        assert "the upload is a tar archive, and no bundle" in refusal(tmp_path / "b.tar")


def test_a_damaged_header_is_refused(tmp_path: Path) -> None:
    content = bytearray(packed(tmp_path / "b.tar", {"x.json": record(), "x.pt": b"x"}).read_bytes())
    for at in (0, 124, 148, 156):
        (tmp_path / "b.tar").write_bytes(content[:at] + b"\xff" + content[at + 1 :])
        assert "it is damaged" in refusal(tmp_path / "b.tar")


def test_a_pax_header_cannot_rename_a_member(tmp_path: Path) -> None:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for name, content in (("x.json", record()), ("x.pt", b"x")):
            header = tarfile.TarInfo(name)
            header.size, header.pax_headers = len(content), {"path": "../../etc/passwd", "mtime": "1.5"}
            archive.addfile(header, io.BytesIO(content))
    (tmp_path / "b.tar").write_bytes(file.getvalue())
    (tmp_path / "out").mkdir()
    bundle.read("text", tmp_path / "b.tar").unpack(tmp_path / "out")
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["checkpoint.pt"]
