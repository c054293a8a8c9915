"""Bundles: a version in one file, a tar archive of its weights, its record and the files of its artifacts.

Unpacked, the members are a checkpoint: NAME.pt, NAME.json, DIGEST.artifact. Nothing is compressed or pickled. A bundle
is read block by block: whatever its headers declare, no memory is allocated for it, and no name in it becomes a path.
"""

import json
import tarfile
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path, PurePosixPath

from pydantic import TypeAdapter

from models.checkpoints import artifact_files
from models.checkpoints.record import Record, record_path
from models.errors import CheckpointError, shown

_BLOCK = tarfile.BLOCKSIZE
_PIECE = 2**20  # bytes read and written at a time
_MOST_MEMBERS = 1000
_MOST_RECORD = 8 * 2**20  # bytes: the artifacts in it have up to 4 MiB
_MOST_SPACES = 8  # times as many bytes does a record have that is indented
_ANSWERED = "GET /models/MODEL/versions/N/checkpoint?artifacts=true"
BUNDLED = (
    f"upload a bundle, the tar archive of weights, record and artifacts that {_ANSWERED} answers and that the client "
    "makes of a .pt file with its record beside it; or train the model here"
)
_END = bytes(2 * _BLOCK)
_FORM = (
    "send NAME.pt, NAME.json and the .artifact files that the record names, without folders, as "
    f"{_ANSWERED} answers them; or unpack the state_dict file and send that"
)


@dataclass(frozen=True, slots=True)
class _Member:
    """A file in the archive: `size` bytes from `at`."""

    name: str
    at: int
    size: int


@dataclass(frozen=True, slots=True)
class Bundle:
    """A bundle whose names and sizes were checked; its digests were not."""

    path: Path
    record: Record
    weights: _Member
    files: tuple[_Member, ...]

    def unpack(self, folder: Path) -> Path:
        """Write weights and files into a new folder, a piece at a time. Returns the path of the weights.

        Raises OSError.
        """
        weights = folder / "checkpoint.pt"
        with self.path.open("rb") as archive:
            for member in (self.weights, *self.files):
                archive.seek(member.at)
                with (weights if member is self.weights else folder / member.name).open("wb") as file:
                    for size in _sizes(member.size):
                        file.write(archive.read(size))
        return weights


def is_bundle(path: Path) -> bool:
    """Return whether a file is a tar archive. Raises OSError."""
    with path.open("rb") as file:
        return file.read(_BLOCK)[257:262] == b"ustar"


def read(model: str, path: Path) -> Bundle:
    """Read the record of the bundle at `path`, and find its other members.

    Raises CheckpointError, if it is damaged, has other members than its record names, or is of another model.
    """
    members: dict[str, _Member] = {}
    for member in _members(path):
        if member.name in members:
            raise _refused(f"it has two members named {shown(member.name)}")
        members[member.name] = member
    records = [name for name in members if name.endswith(".json")]
    if len(records) != 1:
        raise _refused(f"it has {len(records)} records (.json)")
    weights = [name for name in members if name not in records and not name.endswith(artifact_files.SUFFIX)]
    if [PurePosixPath(name).stem for name in weights] != [PurePosixPath(records[0]).stem]:
        names = ", ".join(map(shown, weights[:5])) or "none"
        raise _refused(f"beside the record {shown(records[0])} it has to have the weights of that name, it has {names}")
    record = _record(model, path, members[records[0]])
    needed, found = set(artifact_files.names(record)), members.keys() - {*records, *weights}
    if missing := sorted(needed - found):
        raise _refused(f"{missing[0]}, the file of an artifact, is missing")
    if foreign := sorted(found - needed):
        raise _refused(f"its record does not name {shown(foreign[0])}")
    return Bundle(path, record, members[weights[0]], tuple(members[name] for name in sorted(found)))


def size_of(parts: Mapping[str, Path | bytes]) -> int:
    """Return the size in bytes of a bundle of these members: files, or bytes. Raises OSError."""
    sizes = (len(part) if isinstance(part, bytes) else part.stat().st_size for part in parts.values())
    return sum(_BLOCK + size + -size % _BLOCK for size in sizes) + len(_END)


def parts_of(name: str, path: Path, record: Record) -> Mapping[str, Path | bytes]:
    """Return the members of the bundle of a version, whose weights are at `path`; `name` has no suffix."""
    weights = f"{name}.pt"
    files = {file: path.parent / file for file in artifact_files.names(record)}
    text = json.dumps(asdict(record), allow_nan=False).encode()
    return {weights: path, record_path(Path(weights)).name: text, **files}


def written(parts: Mapping[str, Path | bytes]) -> Iterator[bytes]:
    """Yield a bundle of these members in pieces. Raises OSError, also if a file is cut short meanwhile."""
    for name, part in parts.items():
        size = len(part) if isinstance(part, bytes) else part.stat().st_size
        header = tarfile.TarInfo(name)
        header.size = size
        yield header.tobuf(tarfile.GNU_FORMAT)
        yield from (part,) if isinstance(part, bytes) else _content(part, size)
        yield bytes(-size % _BLOCK)
    yield _END


def _content(path: Path, size: int) -> Iterator[bytes]:
    with path.open("rb") as file:
        for wanted in _sizes(size):
            piece = file.read(wanted)
            if len(piece) != wanted:
                raise OSError(f"{path.name} was cut short")
            yield piece


def _sizes(size: int) -> Iterator[int]:
    """Yield the sizes of the pieces of a file."""
    return (min(_PIECE, size - at) for at in range(0, size, _PIECE))


def _members(path: Path) -> Iterator[_Member]:
    """Yield the files in the archive. Raises CheckpointError for any other kind of member, and for names of folders."""
    total = path.stat().st_size
    with path.open("rb") as file:
        for _ in range(_MOST_MEMBERS):
            block = file.read(_BLOCK)
            if not block.strip(b"\0"):
                return
            try:
                header = tarfile.TarInfo.frombuf(block, "utf-8", "strict")
            except (tarfile.TarError, ValueError) as err:
                raise _refused("it is damaged") from err
            at = file.tell()
            if header.size < 0 or at + header.size > total:
                raise _refused("it is cut short or damaged")
            file.seek(at + header.size + -header.size % _BLOCK)
            if header.type in {tarfile.XHDTYPE, tarfile.XGLTYPE}:  # of tar: precise times, owners
                continue
            if header.type not in {tarfile.REGTYPE, tarfile.AREGTYPE}:
                raise _refused(f"{shown(header.name)} is not a plain file")
            if not header.name or header.name.startswith(".") or set(header.name) & set("/\\\0"):
                raise _refused(f"{shown(header.name)!r} is not the name of a file without a folder")
            yield _Member(header.name, at, header.size)
    raise _refused(f"it has more than {_MOST_MEMBERS:,} members")


def _record(model: str, path: Path, member: _Member) -> Record:
    if member.size > _MOST_SPACES * _MOST_RECORD:
        raise _refused(f"its record has more than {_MOST_RECORD:,} bytes")
    with path.open("rb") as file:
        file.seek(member.at)
        content = file.read(member.size)
    try:
        record = _form().validate_python(json.loads(content))
        _form().dump_python(record, mode="json")  # as messages do: not too many levels of brackets
        text = json.dumps(asdict(record), allow_nan=False, ensure_ascii=False).encode()  # no NaN, no lone surrogates
    except (ValueError, RecursionError) as err:
        raise _refused("its record cannot be read") from err
    if len(text) > _MOST_RECORD:
        raise _refused(f"its record has more than {_MOST_RECORD:,} bytes")
    if record.model != model:
        raise CheckpointError(f"the upload is a checkpoint of {shown(record.model)}, not of {model}")
    return record


@cache
def _form() -> TypeAdapter[Record]:
    return TypeAdapter(Record)


def _refused(said: str) -> CheckpointError:
    return CheckpointError(f"the upload is a tar archive, and no bundle: {said}; {_FORM}")
