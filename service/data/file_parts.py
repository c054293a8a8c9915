"""Parts of an upload that are appended to a file in the store folder.

The size of the file is how much of it has arrived. A part holds the lock of the file while it is appended, so that web
processes on all machines of the folder take turns. A process that is killed during a part leaves a shorter part, after
which the client continues.
"""

import asyncio
import fcntl
import hashlib
import os
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from io import BufferedRandom
from pathlib import Path
from typing import IO

from service.data.parts import require_all, require_offset
from service.errors import Conflict


class FileParts:
    """See Parts."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def begin(self) -> None:
        """See Parts."""
        self._path.parent.mkdir(parents=True, exist_ok=True)
        self._path.touch()

    def received(self) -> int:
        """See Parts."""
        return self._path.stat().st_size

    def touched_at(self) -> float:
        """See Parts."""
        return self._path.stat().st_mtime

    @contextmanager
    def receiving(self, offset: int, size: int) -> Iterator["Part"]:
        """See Parts. Raises Conflict if another part is being received, too."""
        with self._locked() as file:
            received = file.seek(0, os.SEEK_END)
            require_offset(offset, received)
            yield Part(file, size - received)

    @contextmanager
    def gathered(self, size: int) -> Iterator[BufferedRandom]:
        """See Parts. Raises Conflict if a part is being received, too."""
        with self._locked() as file:
            require_all(file.seek(0, os.SEEK_END), size)
            file.seek(0)
            yield file

    def remove(self) -> None:
        """See Parts."""
        self._path.unlink(missing_ok=True)

    @contextmanager
    def _locked(self) -> Iterator[BufferedRandom]:
        with self._path.open("r+b") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as err:
                raise Conflict(
                    "another request sends a part of this upload, or finishes it: send one part after the other"
                ) from err
            yield file


class Part:
    """A part, or a whole file, that is appended to an open file. `left` is how many bytes may come."""

    def __init__(self, file: IO[bytes], left: int) -> None:
        self._file = file
        self._digest = hashlib.sha256()
        self.left = left

    @property
    def path(self) -> Path:
        """Return the path of the file."""
        return Path(self._file.name)

    @property
    def sha256(self) -> str:
        """Return the SHA-256 of the written bytes."""
        return self._digest.hexdigest()

    async def write(self, pieces: AsyncIterator[bytes]) -> int:
        """Append pieces as they arrive, in threads. Returns the size of the file."""
        async for piece in pieces:
            await asyncio.to_thread(self._append, piece)
        await asyncio.to_thread(os.fsync, self._file.fileno())
        return self._file.tell()

    def _append(self, piece: bytes) -> None:
        self._file.write(piece)
        self._file.flush()
        self._digest.update(piece)
