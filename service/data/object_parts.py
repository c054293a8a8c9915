"""Parts of an upload in an object store: each is an object named by its offset.

Any number of processes may receive parts: of several that put a part at the same offset, one wins, because it is put
only if there is none. How much has arrived is the length of the parts that follow on from one another.
"""

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager, suppress
from io import BufferedReader
from pathlib import Path

from models.checkpoints.copies import Copies
from models.checkpoints.files import writing
from models.checkpoints.objects import Found
from models.errors import ObjectsUnavailable
from service.data.parts import PART_BYTES, require_all, require_offset
from service.errors import Conflict

_BEGUN = "begun"  # an empty object, which says that there is such an upload


class ObjectParts:
    """See Parts. Methods raise ObjectsUnavailable, too."""

    def __init__(self, copies: Copies, incoming: Path) -> None:
        """`incoming` is the path that the whole file gets in the store folder."""
        self._objects = copies.objects
        self._name = copies.name(incoming)
        self._incoming = incoming

    def begin(self) -> None:
        """See Parts."""
        self._objects.put(f"{self._name}/{_BEGUN}", b"")

    def received(self) -> int:
        """See Parts."""
        return sum(part.bytes for part in _joined(self._found()))

    def touched_at(self) -> float:
        """See Parts."""
        return max(found.modified for found in self._found())

    def put(self, offset: int, content: bytes) -> None:
        """Add a part. Raises Conflict if there is one at this offset."""
        if not self._objects.put(f"{self._name}/{offset:016d}", content):
            raise Conflict(
                f"another request has sent the part at offset {offset}, or this one came twice: GET says how much has "
                "arrived"
            )

    @contextmanager
    def receiving(self, offset: int, size: int) -> Iterator["ObjectPart"]:
        """See Parts."""
        yield ObjectPart(self, offset, size)

    @contextmanager
    def gathered(self, size: int) -> Iterator[BufferedReader]:
        """See Parts. The file is written first."""
        parts = _joined(self._found())
        require_all(sum(part.bytes for part in parts), size)
        with writing(self._incoming) as file:
            for part in parts:
                for piece in self._objects.read(part.key):
                    file.write(piece)
        with self._incoming.open("rb") as whole:
            yield whole

    def remove(self) -> None:
        """See Parts. The file that was gathered is removed, too."""
        self._incoming.unlink(missing_ok=True)
        self._objects.delete([found.key for found in self._objects.below(self._name)])

    def _found(self) -> list[Found]:
        found = self._objects.below(self._name)
        if not found:
            raise FileNotFoundError(self._name)
        return found


class ObjectPart:
    """A part that is put as it arrives. `left` is how many bytes may come."""

    def __init__(self, parts: ObjectParts, offset: int, size: int) -> None:
        self._parts = parts
        self._offset = offset
        self._buffer = bytearray()
        self.left = size - offset

    async def write(self, pieces: AsyncIterator[bytes]) -> int:
        """Put pieces as they arrive. Returns the size of the file. Raises Conflict.

        If they end early, the bytes so far are put as a shorter part, after which the client continues.
        """
        require_offset(self._offset, await asyncio.to_thread(self._parts.received))
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
