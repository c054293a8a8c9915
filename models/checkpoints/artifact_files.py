"""Files of large artifacts: they lie in the folder of the weights, named after their digests. Nothing is pickled.

The record keeps small artifacts itself. Of a large one it keeps the digest and the form of its file: .npy for an array,
or JSON as the record would have it.
"""

import hashlib
import json
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from tokenize import TokenError
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from models.artifacts import ArtifactError, Artifacts, pack, unpack
from models.checkpoints.files import writing
from models.checkpoints.record import Record
from models.errors import CheckpointError

Content = bytes | NDArray[Any]

_MOST_BYTES = 4 * 2**20  # of the artifacts in a record, packed: every list of versions reads them
_DIGEST, _FORM = "sha256 of file", "form"  # the keys of a large artifact in the record
SUFFIX = ".artifact"
# Errors of NumPy and json for damaged or forged files.
_ERRORS = (ValueError, TypeError, EOFError, RecursionError, SyntaxError, ArithmeticError, TokenError, MemoryError)


def divided(artifacts: Artifacts) -> tuple[dict[str, Any], dict[str, Content]]:
    """Return artifacts in the form of the record, and the contents of files by name, the largest ones.

    Raises ArtifactError for a value that neither can carry.
    """
    sizes: dict[str, int] = {}
    kept: dict[str, Any] = {}
    for name, value in artifacts.items():
        if isinstance(value, Mapping) and value.keys() == {_DIGEST, _FORM}:
            raise ArtifactError(f"the artifact {name} has the keys of a file's entry in the record: rename one")
        if isinstance(value, np.ndarray) and value.nbytes > _MOST_BYTES and not value.dtype.hasobject:
            kept[name], sizes[name] = value, value.nbytes
        else:
            kept |= pack({name: value})
            sizes[name] = len(json.dumps({name: kept[name]}))
    files: dict[str, Content] = {}
    total = sum(sizes.values())
    for name in sorted(sizes, key=lambda name: (-sizes[name], name)):
        if total <= _MOST_BYTES:
            break
        total -= sizes[name]
        kept[name] = _moved(artifacts[name], kept[name], files)
    return kept, files


def write(files: Mapping[str, Content], folder: Path) -> None:
    """Write the contents that `divided` returned, each atomically. Raises OSError."""
    for name, content in files.items():
        with writing(folder / name) as file:
            _save(content, file)


def load(found: Mapping[str, Any], folder: Path) -> Artifacts:
    """Return the artifacts of a record whose weights are in `folder`; tuples are lists.

    Raises CheckpointError if a file is missing or has another digest.
    """
    try:
        return {name: _loaded(name, value, folder) for name, value in found.items()}
    except _ERRORS as err:
        raise CheckpointError("the artifacts in the record cannot be read: restore the record or train again") from err


def copy(record: Record, source: Path, folder: Path) -> None:
    """Copy the files of a record's artifacts between folders, verified, a piece at a time.

    Raises CheckpointError if a file is missing or has another digest, and OSError if it cannot be written.
    """
    for name, value in record.artifacts.items():
        if (file := _file(value)) is None:
            continue
        _verified(name, value, source)
        with (source / file).open("rb") as content, writing(folder / file) as copied:
            shutil.copyfileobj(content, copied)


def names(record: Record) -> Iterator[str]:
    """Yield the names of the files of a record's artifacts."""
    return iter(digests(record))


def digests(record: Record) -> dict[str, str]:
    """Return the SHA-256 of each file of a record's artifacts, by file name. Raises CheckpointError if one is none."""
    return {_name(value[_DIGEST]): value[_DIGEST] for value in entries(record).values()}


def entries(record: Record) -> dict[str, Any]:
    """Return the artifacts of a record that are files, in its form. Raises CheckpointError for a forged digest."""
    return {name: value for name, value in record.artifacts.items() if _file(value) is not None}


def _moved(value: Any, kept: Any, files: dict[str, Content]) -> dict[str, str]:
    """Add the content of a large artifact to `files` and return its entry in the record."""
    array = isinstance(value, np.ndarray)
    content: Content = value if array else json.dumps(kept, allow_nan=False).encode()
    digest = _Digest()
    _save(content, digest)
    entry = {_DIGEST: digest.sha256.hexdigest(), _FORM: "npy" if array else "json"}
    files[_name(entry[_DIGEST])] = content
    return entry


class _Digest:
    """A file that keeps the digest of its content only."""

    def __init__(self) -> None:
        self.sha256 = hashlib.sha256()

    def write(self, piece: bytes) -> int:
        """Add a piece."""
        self.sha256.update(piece)
        return len(piece)


def _save(content: Content, file: IO[bytes] | _Digest) -> None:
    if isinstance(content, bytes):
        file.write(content)
    else:
        np.lib.format.write_array(file, content, allow_pickle=False)  # which only writes


def _name(sha256: str) -> str:
    return f"{sha256[:24]}{SUFFIX}"


def _file(value: Any) -> str | None:
    """Return the file name of an artifact in a record; None if the record carries its value.

    Raises CheckpointError for a digest that is none: it would be part of a path.
    """
    if not isinstance(value, Mapping) or value.keys() != {_DIGEST, _FORM}:
        return None
    digest = value[_DIGEST]
    if not isinstance(digest, str) or len(digest) != 64 or set(digest) - set("0123456789abcdef"):
        raise CheckpointError("the record names the file of an artifact by something else than a SHA-256 digest")
    return _name(digest)


def _loaded(name: str, value: Any, folder: Path) -> Any:
    file = _file(value)
    if file is None:
        return unpack({name: value})[name]
    _verified(name, value, folder)
    try:
        if value[_FORM] == "npy":
            # mapped first: a header that declares more than the file has is refused before memory is allocated
            return np.array(np.load(folder / file, mmap_mode="r", allow_pickle=False))
        return unpack({name: json.loads((folder / file).read_bytes())})[name]
    except OSError as err:
        raise _missing(name, file, err) from err


def _verified(name: str, value: Mapping[str, Any], folder: Path) -> None:
    """Raise CheckpointError if the file of an artifact is missing or has another digest."""
    file = _name(value[_DIGEST])
    try:
        with (folder / file).open("rb") as content:
            digest = hashlib.file_digest(content, "sha256").hexdigest()
    except OSError as err:
        raise _missing(name, file, err) from err
    if digest != value[_DIGEST]:
        raise CheckpointError(
            f"{file}, the file of the artifact {name}, is not the one that the record names (sha256 differs): "
            "restore it or train again"
        )


def _missing(name: str, file: str, err: OSError) -> CheckpointError:
    return CheckpointError(
        f"{file}, the file of the artifact {name}, cannot be read ({err.strerror}): it belongs beside the weights; "
        "restore it or train again"
    )
