"""Parts of an upload in an object store: each is an object named by its offset.

Any number of processes may receive parts: of several that put a part at the same offset, one wins, because it is put
only if there is none. How much has arrived is the length of the parts that follow on from one another.
"""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from pathlib import Path

from models.checkpoints.copies import Copies
from models.checkpoints.files import writing
from models.checkpoints.objects import Found
from models.errors import ObjectsUnavailable
from service.errors import Conflict

PART_BYTES = 8_388_608  # of a part that clients are advised to send, and of an object
_BEGUN = "begun"  # an empty object, which says that there is such an upload


class StoredParts:
    """The parts of one upload. Methods block, and raise ObjectsUnavailable."""

    def __init__(self, copies: Copies, incoming: Path) -> None:
        """`incoming` is the path that the whole file gets in the store folder."""
        self._objects = copies.objects
        self._name = copies.name(incoming)
        self._incoming = incoming

    def begin(self) -> None:
        """Make an upload without parts."""
        self._objects.put(f"{self._name}/{_BEGUN}", b"")

    def received(self) -> int:
        """Return how many bytes have arrived. Raises FileNotFoundError if there is no such upload."""
        return sum(part.bytes for part in _joined(self._found()))

    def touched_at(self) -> float:
        """Return when the last part arrived, in seconds since 1970. Raises FileNotFoundError."""
        return max(found.modified for found in self._found())

    def put(self, offset: int, content: bytes) -> None:
        """Add a part. Raises Conflict if there is one at this offset."""
        if not self._objects.put(f"{self._name}/{offset:016d}", content):
            raise Conflict(
                f"another request has sent the part at offset {offset}, or this one came twice: GET says how much has "
                "arrived"
            )

    def gather(self) -> Path:
        """Write the whole file into the store folder and return its path. Raises FileNotFoundError."""
        parts = _joined(self._found())
        with writing(self._incoming) as file:
            for part in parts:
                for piece in self._objects.read(part.key):
                    file.write(piece)
        return self._incoming

    def remove(self) -> None:
        """Remove all parts, and the file that was gathered of them."""
        self._incoming.unlink(missing_ok=True)
        self._objects.delete([found.key for found in self._objects.below(self._name)])

    def _found(self) -> list[Found]:
        found = self._objects.below(self._name)
        if not found:
            raise FileNotFoundError(self._name)
        return found


class StoredPart:
    """A part that is being received, and put as it arrives. `left` is how many bytes may come.

    `check`, which may block, raises if the part must not begin at `offset`.
    """

    def __init__(self, parts: StoredParts, offset: int, left: int, check: Callable[[], None]) -> None:
        self._parts = parts
        self._check = check
        self._offset = offset
        self._buffer = bytearray()
        self.left = left

    async def write(self, pieces: AsyncIterator[bytes]) -> int:
        """Put pieces as they arrive. Returns the size of the file. Raises Conflict.

        If they end early, the bytes so far are put as a shorter part, after which the client continues.
        """
        await asyncio.to_thread(self._check)
        try:
            async for piece in pieces:
                self._buffer += piece
                while len(self._buffer) >= PART_BYTES:
                    await asyncio.to_thread(self._put)
        except BaseException:
            with suppress(ObjectsUnavailable, Conflict):
                await asyncio.shield(asyncio.to_thread(self._put))
            raise
        await asyncio.to_thread(self._put)
        return self._offset

    def _put(self) -> None:
        content = bytes(self._buffer[:PART_BYTES])
        if content:
            self._parts.put(self._offset, content)
            self._offset += len(content)
            del self._buffer[: len(content)]


def _joined(found: list[Found]) -> list[Found]:
    """Return the parts that follow on from one another, from the beginning of the file."""
    joined, end = [], 0
    for part in found:
        name = part.key.rpartition("/")[2]
        if name != _BEGUN and int(name) == end and part.bytes:
            joined.append(part)
            end += part.bytes
    return joined
