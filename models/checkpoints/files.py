"""Atomic writes of files, their age and size, and the digest of sources."""

import contextlib
import hashlib
import os
import shutil
import stat
import tempfile
from collections.abc import Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import IO

import models


def write_whole(content: bytes, path: Path) -> None:
    """Write atomically, see `writing`. On OSError the old file is kept."""
    with writing(path) as file:
        file.write(content)


@contextlib.contextmanager
def writing(path: Path, mode: int = 0o644) -> Iterator[IO[bytes]]:
    """Open a file to write atomically: temporary file, fsync, rename, fsync the folder. It gets the permissions `mode`.

    On an exception the old file is kept.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        Path(temporary).chmod(mode)
        Path(temporary).replace(path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)  # renamed already, if a signal came then
        raise
    sync_folder(path.parent)


def unwritable(err: OSError) -> str:
    """Return a message for callers, without the folder's name."""
    return f"the store folder cannot be written ({err.strerror}): free some space or fix its permissions"


def sync_folder(folder: Path) -> None:
    """Sync a folder, so that the names of its files survive a crash."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def age_s(path: Path, now: float) -> float:
    """Return how many seconds ago a file was written; 0 if it does not exist."""
    try:
        return now - path.stat().st_mtime
    except FileNotFoundError:  # removed by its process
        return 0.0


def size(path: Path) -> int:
    """Return the size of a file, of a link itself, or of the files in a folder, in bytes; 0 if it does not exist."""
    try:
        status = path.lstat()
        return sum(map(size, path.iterdir())) if stat.S_ISDIR(status.st_mode) else status.st_size
    except FileNotFoundError:
        return 0


def remove(path: Path) -> None:
    """Remove a file, or a folder with all that is in it; another process may be removing it, too. Raises OSError."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def file_digest(path: Path) -> str:
    """Return the SHA-256 of a file, in hexadecimal. Raises OSError."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def sources_digest(*packages: str) -> str:
    """Return the digest of the source files of these packages, with those of the project folder, as a cache key.

    It differs with and without the built-in models, because these change the order of the folders.
    """
    return _sources_digest(tuple(str(Path(folder).parent) for folder in models.__path__), packages)


@cache
def _sources_digest(roots: Sequence[str], packages: Sequence[str]) -> str:
    digests = [digest_of_sources(Path(root), *packages) for root in roots]
    return hashlib.sha256("".join(digests).encode()).hexdigest()


def sources(folder: Path) -> list[Path]:
    """Return the .py files below a folder, without hidden files and folders.

    Those are lock files of editors, often links to nowhere, metadata of macOS, and checkpoints of notebooks.
    """

    def hidden(path: Path) -> bool:
        return any(part.startswith(".") for part in path.relative_to(folder).parts)

    return sorted(path for path in folder.rglob("*.py") if not hidden(path) and not path.is_dir())


def digest_of_sources(root: Path, *packages: str) -> str:
    """Return the digest of names and contents of all .py files in the folders `packages` of `root`."""
    digest = hashlib.sha256()
    for path in (path for package in packages for path in sources(root / package)):
        with contextlib.suppress(OSError):  # it cannot be imported either
            if path.is_file():  # a named pipe would wait for a writer
                digest.update(path.relative_to(root).as_posix().encode() + path.read_bytes())
    return digest.hexdigest()
