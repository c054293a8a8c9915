"""Thumbnails that an ingest has written: of examples in the folder of a version, of refused rows in one of the job."""

from pathlib import Path
from typing import Any

import orjson

from models.checkpoints.storage import Storage
from service.errors import NotFound

_MAGIC = b"\x89PNG\r\n\x1a\n"
_MOST_BYTES = 65_536  # of a thumbnail of 96 x 96 pixels


def examples(storage: Storage, folder: Path) -> list[dict[str, Any]]:
    """Return digest, label and split of those examples of the version in a folder that have a thumbnail."""
    path = storage.newest(folder / "thumbnails" / "examples.json")
    try:
        found: list[dict[str, Any]] = orjson.loads(path.read_bytes())
    except FileNotFoundError:
        return []
    return found


def example(storage: Storage, folder: Path, digest: str) -> bytes:
    """Return the PNG file of an example of the version in a folder. Raises NotFound."""
    return _png(storage.newest(folder / "thumbnails" / f"{digest}.png"))


def refused(storage: Storage, folder: Path, row: int) -> bytes:
    """Return the PNG file of a refused row, in a folder of such files. Raises NotFound."""
    return _png(storage.newest(folder / f"{row}.png"))


def _png(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            content = file.read(_MOST_BYTES + 1)
    except FileNotFoundError:
        content = b""
    if not content.startswith(_MAGIC) or len(content) > _MOST_BYTES:
        raise NotFound(
            "there is no thumbnail of this row: the report and the list of examples name those that have one"
        )
    return content
