"""Find the format of a file by its first bytes, and open it."""

import gzip
import re
import zlib
from collections.abc import Callable, Mapping
from pathlib import Path

from models.errors import shown
from training.datasets.errors import DatasetError
from training.datasets.readers.archives import Archive, Folder, Member, Tar, Zip
from training.datasets.readers.arrays import (
    NPY_MAGIC,
    Part,
    is_idx,
    mapped_idx,
    mapped_npy,
    open_arrays,
    open_npy,
    open_parts,
)
from training.datasets.readers.files import GZIP
from training.datasets.readers.parquet import open_parquet
from training.datasets.readers.pictures import are_pictures, open_pictures
from training.datasets.readers.tables import open_csv, open_jsonl
from training.datasets.source import Source, Wanted

_IDX_NAME = re.compile(r"(?P<part>.*?)[-_.]?(?P<what>images?|labels?)[-_.]idx\d[-_.]ubyte(\.gz)?", re.IGNORECASE)
_TEST = ("t10k", "test")
_OPEN: Mapping[str, Callable[[Path, Wanted], Source]] = {
    "csv": open_csv,
    "jsonl": open_jsonl,
    "npy": open_npy,
    "parquet": open_parquet,
}
_ARCHIVES: Mapping[str, Callable[[Path], Archive]] = {"zip": Zip, "npz": Zip, "tar": Tar, "folder": Folder}
_STARTS = {
    b"PK\x03\x04": "zip",
    b"PK\x05\x06": "zip",
    b"\xfd7zXZ\0": "tar",
    NPY_MAGIC: "npy",
    b"PAR1": "parquet",
}
_OLD_OFFICE = b"\xd0\xcf\x11\xe0"  # .xls
_KNOWN = "CSV, JSON Lines (an object in each line), .npy, .npz, Parquet, and zip or tar of pictures"
FORMATS = ("auto", *_OPEN, *_ARCHIVES)


def open_source(path: Path, form: str, wanted: Wanted) -> Source:
    """Open a file or folder of any format. Raises DatasetError."""
    if form not in FORMATS:
        raise DatasetError("Unknown format", f"there is no format {shown(form)!r}; there are {', '.join(FORMATS)}")
    found = form_of(path) if form == "auto" else form
    if found in _OPEN:
        return _OPEN[found](path, wanted)
    return _open_archive(found, _ARCHIVES[found](path), wanted)


def form_of(path: Path) -> str:
    """Return the format of a file by its content. Raises DatasetError."""
    if path.is_dir():
        return "folder"
    with path.open("rb") as file:
        head = file.read(512)
    if not head:
        raise DatasetError("Empty file", "the file is empty")
    if head.startswith(GZIP):
        head = _unpacked_head(path)
    if head[257:262] == b"ustar":
        return "tar"
    if is_idx(head):
        raise DatasetError(
            "Half of a pair", "an IDX file has pictures or labels: send both, with their usual names, in a zip or tar"
        )
    return next((form for start, form in _STARTS.items() if head.startswith(start)), None) or _form_of_text(head)


def _form_of_text(head: bytes) -> str:
    """Return the format of a file of text. Raises DatasetError for other files."""
    start = head.removeprefix(b"\xef\xbb\xbf").lstrip()
    if start.startswith(b"{"):
        return "jsonl"
    if start.startswith(b"["):
        raise DatasetError(
            "Unknown format", "the file is one JSON list: write JSON Lines, each object in a line of its own"
        )
    if head.startswith(_OLD_OFFICE):
        raise _workbook()
    is_utf16 = head.startswith((b"\xff\xfe", b"\xfe\xff"))
    if any(byte < 9 for byte in head) and not is_utf16:
        raise DatasetError("Unknown format", f"the file is none of {_KNOWN}")
    return "csv"


def _workbook() -> DatasetError:
    return DatasetError("Workbook", "the file is an Excel workbook: save the sheet as CSV UTF-8")


def _unpacked_head(path: Path) -> bytes:
    try:
        with gzip.open(path) as file:
            return file.read(512)
    except (EOFError, zlib.error, gzip.BadGzipFile) as err:
        raise DatasetError("Damaged file", "the gzip file is damaged or cut short: pack it again") from err


def _open_archive(form: str, archive: Archive, wanted: Wanted) -> Source:
    members = archive.members
    if not members:
        raise DatasetError("Empty archive", "there are no files in it, apart from hidden ones")
    if any(member.name == "xl/workbook.xml" for member in members):
        raise _workbook()
    if pairs := _idx_pairs(members):
        return _open_idx(archive, pairs, wanted)
    if all(member.name.endswith(".npy") for member in members):
        paths = {member.name: wanted.scratch / f"array-{place}.npy" for place, member in enumerate(members)}
        archive.extract(paths)
        arrays = {member.parts[-1].removesuffix(".npy"): mapped_npy(paths[member.name]) for member in members}
        return open_arrays("npz", arrays, wanted)
    if are_pictures(members):
        return open_pictures(form, archive, wanted)
    if len(members) == 1:
        path = wanted.scratch / "member"
        archive.extract({members[0].name: path})
        inner = form_of(path)
        if inner in _OPEN:
            return _OPEN[inner](path, wanted)
    named = ", ".join(shown(member.name) for member in members[:5])
    raise DatasetError(
        "Unknown content",
        f"the archive has {len(members)} files ({named}), but no pictures, no pair of IDX files, no arrays, and no "
        "single table",
    )


def _idx_pairs(members: list[Member]) -> dict[str, dict[str, Member]]:
    """Return part -> {"image": file, "label": file}, of the pairs of IDX files."""
    found: dict[str, dict[str, Member]] = {}
    for member in sorted(members, key=lambda member: member.name.endswith(".gz")):
        if match := _IDX_NAME.fullmatch(member.parts[-1]):
            what = match["what"].lower().removesuffix("s")
            found.setdefault(match["part"].lower(), {}).setdefault(what, member)
    return found


def _open_idx(archive: Archive, pairs: Mapping[str, Mapping[str, Member]], wanted: Wanted) -> Source:
    parts: list[Part] = []
    for name, pair in sorted(pairs.items(), key=lambda item: (item[0] in _TEST, item[0])):
        if len(pair) < 2:
            raise DatasetError(
                "Half of a pair", f"{shown(next(iter(pair.values())).name)} has no file of the other kind"
            )
        paths = {member.name: wanted.scratch / f"{len(parts)}-{what}" for what, member in pair.items()}
        archive.extract(paths)
        pictures, labels = (
            mapped_idx(paths[pair[what].name], pair[what].name, archive.size) for what in ("image", "label")
        )
        key = next(iter(wanted.spec.inputs)) if len(wanted.spec.inputs) == 1 else "x"
        split = "test" if name in _TEST and len(pairs) > 1 else "train" if name == "train" and len(pairs) > 1 else None
        parts.append(Part({key: pictures}, labels, split=split))
    return open_parts("idx", parts, wanted)
