"""Pictures in a zip, a tar or a folder: a folder for each label, or a table of labels (metadata.csv, .jsonl)."""

import csv
import io
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any

import orjson

from models.coding import picture_input
from models.errors import InvalidInput, shown
from models.spec import ModelSpec
from training.datasets.errors import DatasetError
from training.datasets.readers.archives import Archive, Member
from training.datasets.readers.tables import delimiter_of
from training.datasets.source import Row, Source, Wanted

SPLIT_FOLDERS = {
    "train": "train",
    "training": "train",
    "val": "validation",
    "valid": "validation",
    "validation": "validation",
    "test": "test",
}
MOST_TABLES = 2**28  # bytes
METADATA = {"metadata.csv", "metadata.jsonl"}
_PICTURES = {".png", ".jpg", ".jpeg", ".jpe", ".jfif", ".webp", ".bmp", ".dib", ".gif"}
_TABLES = {".csv", ".tsv", ".json", ".jsonl"}
_TEXTS = {".txt", ".md", ".rst", ".xml", ".yaml", ".yml", ".toml", ".html", ".pdf", ".py", ".ipynb", ".log", *_TABLES}
_NOTES = {"readme", "license", "licence", "copying", "notice", "authors", "changelog"}


@dataclass(frozen=True, slots=True)
class Place:
    """Label, split and group of a file by its path; `fault` if the path has none."""

    label: Any = None
    split: Any = None
    group: Any = None
    fault: InvalidInput | None = None


def are_pictures(members: Sequence[Member]) -> bool:
    """Return whether an archive is one of pictures: any of its files has such a name, or it has a table of labels."""
    return any(
        PurePosixPath(member.name).suffix.lower() in _PICTURES or member.parts[-1] in METADATA for member in members
    )


def open_pictures(form: str, archive: Archive, wanted: Wanted) -> Source:
    """Return the rows of an archive of pictures. Raises DatasetError."""
    spec = wanted.spec
    if not (spec.picture if not spec.inputs else picture_input(spec)):
        raise DatasetError("No pictures wanted", "the model takes no pictures: send CSV or JSON Lines")
    tables = [member for member in archive.members if member.parts[-1] in METADATA]
    listed = _from_tables(archive, tables, wanted) if tables else {}
    texts = [member.name for member in archive.members if _is_text(member) and member.name not in listed]
    skipped = {*texts, *(table.name for table in tables)}
    places = listed if tables else _from_folders([one for one in archive.members if one.name not in skipped])
    done = [0]

    def rows() -> Iterator[Row]:
        number = 0
        for member, content in archive.contents():
            if member.name in skipped:
                continue
            number += 1
            done[0] = number
            place = places.get(member.name, _UNLISTED)
            fault = place.fault
            if content is None and fault is None:
                fault = InvalidInput(
                    "Unreadable file", "the file is damaged in the archive, or too large for a picture"
                )
            values = _values(content, spec)
            yield Row(number, values, place.label, place.split, place.group, member.name, fault)
        for name in sorted(places.keys() - {member.name for member in archive.members}):
            number += 1
            fault = InvalidInput("Missing file", "the table of labels names a file that is not there")
            yield Row(number, place=name, fault=fault)

    total = len(archive.members) - len(skipped)
    warnings = tuple(_warnings(texts, tables=bool(tables)))
    return Source(format=form, rows=rows, progress=lambda: (done[0], total), warnings=warnings)


def _is_text(member: Member) -> bool:
    """Return whether a file is no picture by its name, but a text, as archives of pictures often have."""
    name = PurePosixPath(member.parts[-1].lower())
    return member.parts[-1] not in METADATA and (name.suffix in _TEXTS or name.name in _NOTES)


def _warnings(texts: Sequence[str], *, tables: bool) -> Iterator[str]:
    """Name the files that were left out, and the name that makes a table of labels of one of them."""
    if texts:
        more = f" and {len(texts) - 5:,} more" if len(texts) > 5 else ""
        yield f"files that are no pictures were left out: {', '.join(map(shown, texts[:5]))}{more}"
    table = next((name for name in texts if PurePosixPath(name).suffix.lower() in _TABLES), None)
    if table and not tables:
        yield f"if {shown(table)} has the labels, call it metadata.csv or metadata.jsonl, with file_name and label"


_UNLISTED = Place(fault=InvalidInput("No label", "the table of labels does not name this file"))


def _values(content: bytes | None, spec: ModelSpec) -> Any:
    return {picture_input(spec): content} if spec.inputs else content


def _from_folders(members: Sequence[Member]) -> Mapping[str, Place]:
    """Read labels and splits from the folders: [train|validation|test/]LABEL/.../FILE."""
    skipped = _common(members)
    paths = {member.name: member.parts[skipped:] for member in members}
    tops = {parts[0] for parts in paths.values() if len(parts) > 1}
    if not tops:
        raise DatasetError(
            "No labels",
            "the pictures lie in no folders: put each into a folder with the name of its label, or add a metadata.csv "
            "with file_name and label",
        )
    with_splits = all(top.lower() in SPLIT_FOLDERS for top in tops) and any(len(parts) > 2 for parts in paths.values())
    return {name: _place(parts, with_splits=with_splits) for name, parts in paths.items()}


def _place(parts: Sequence[str], *, with_splits: bool) -> Place:
    split = SPLIT_FOLDERS[parts[0].lower()] if with_splits and len(parts) > 1 else None
    folders = parts[1:-1] if with_splits else parts[:-1]
    if not folders:
        return Place(fault=InvalidInput("No label", "the file lies in no folder with the name of a label"))
    return Place(folders[0], split)


def _common(members: Sequence[Member]) -> int:
    """Count the folders around all files that are neither a label nor a split."""
    count = 0
    while True:
        tops = {member.parts[count] if len(member.parts) > count + 2 else "" for member in members}
        if len(tops) != 1 or "" in tops or tops.pop().lower() in SPLIT_FOLDERS:
            return count
        count += 1


def _from_tables(archive: Archive, tables: Sequence[Member], wanted: Wanted) -> Mapping[str, Place]:
    """Read metadata.csv and metadata.jsonl: file_name, relative to the table, label, split and group."""
    paths = {table.name: wanted.scratch / f"metadata-{place}" for place, table in enumerate(tables)}
    if sum(table.size for table in tables) > MOST_TABLES:
        raise DatasetError("Too large", f"the tables of labels have more than {MOST_TABLES:,} bytes")
    archive.extract(paths)
    found: dict[str, Place] = {}
    for table in tables:
        folder = table.parts[:-1]
        top = folder[0].lower() if folder else ""
        for number, record in enumerate(_records(paths[table.name].read_bytes(), table.name), 1):
            if not isinstance(record.get("file_name"), str):
                columns = ", ".join(shown(str(name)) for name in record if name)
                raise DatasetError(
                    "No file names",
                    f"row {number} of {shown(table.name)} has no file_name, the path of its picture; it has {columns}",
                )
            name = PurePosixPath(*folder, record["file_name"]).as_posix()
            label = next((record[key] for key in _label_keys(wanted) if record.get(key) is not None), None)
            split = record.get(wanted.options.split_column or "split") or SPLIT_FOLDERS.get(top)
            found[name] = Place(label, split, record.get(wanted.options.group_column or "group") or None)
    return found


def _label_keys(wanted: Wanted) -> Sequence[str]:
    chosen = wanted.options.label_column
    return (chosen,) if chosen else ("label", "target", "class", "value")


def _records(content: bytes, name: str) -> Iterator[Mapping[str, Any]]:
    try:
        if name.endswith(".jsonl"):
            for line in content.splitlines():
                if line.strip():
                    record = orjson.loads(line)
                    if not isinstance(record, dict):
                        raise ValueError("no object")
                    yield record
        else:
            text = content.decode("utf-8-sig")
            yield from csv.DictReader(io.StringIO(text), delimiter=delimiter_of(text.partition("\n")[0]))
    except (ValueError, csv.Error) as err:
        raise DatasetError("Unreadable table", f"{shown(name)} cannot be read as a table of labels in UTF-8") from err
