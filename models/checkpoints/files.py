"""Files that are whole or not there, and the digest of sources."""

import hashlib
import os
import tempfile
from functools import cache
from pathlib import Path

_ROOT = Path(__file__).parents[2]  # of the packages


def write_whole(content: bytes, path: Path) -> None:
    """Write to a temporary file, sync, rename, and sync the folder. Raises OSError, with the old file as it was."""
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
    """What to tell a caller who wanted something kept; it names no folder."""
    return f"the store folder cannot be written ({err.strerror}): make room there, or see to its permissions"


def sync_folder(folder: Path) -> None:
    """Make the names of a folder's files last."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


@cache
def sources_digest(*packages: str) -> str:
    """A digest of the source files of these packages: what was made with other code has another one."""
    digest = hashlib.sha256()
    for package in packages:
        for path in sorted((_ROOT / package).rglob("*.py")):
            digest.update(path.relative_to(_ROOT).as_posix().encode() + path.read_bytes())
    return digest.hexdigest()
