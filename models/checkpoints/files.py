"""Atomic file writes, and a digest of the source files."""

import hashlib
import os
import tempfile
from functools import cache
from pathlib import Path

_ROOT = Path(__file__).parents[2]  # the folder that contains the packages


def write_whole(content: bytes, path: Path) -> None:
    """Write atomically: temporary file, fsync, rename, fsync the folder. On OSError the old file is kept."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        Path(temporary).chmod(0o644)
        Path(temporary).replace(path)
    except BaseException:
        Path(temporary).unlink()
        raise
    sync_folder(path.parent)


def unwritable(err: OSError) -> str:
    """Build the message for a failed write; it names no folder."""
    return f"the store folder cannot be written ({err.strerror}): free some space or fix its permissions"


def sync_folder(folder: Path) -> None:
    """Flush a folder to disk, so that renames in it survive a crash."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


@cache
def sources_digest(*packages: str) -> str:
    """Digest of the source files of these packages: it changes with the code."""
    digest = hashlib.sha256()
    for package in packages:
        for path in sorted((_ROOT / package).rglob("*.py")):
            digest.update(path.relative_to(_ROOT).as_posix().encode() + path.read_bytes())
    return digest.hexdigest()
