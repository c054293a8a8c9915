"""Parts of an upload: the interface of their store, and the check of a part's offset."""

from collections.abc import AsyncIterator
from contextlib import AbstractContextManager
from io import BufferedIOBase
from typing import Protocol

from service.errors import Conflict

PART_BYTES = 8_388_608  # of a part that clients are advised to send, and of an object


class Receiving(Protocol):
    """A part that is being received. `left` is how many bytes may come."""

    left: int

    async def write(self, pieces: AsyncIterator[bytes]) -> int:
        """Append pieces as they arrive. Returns how much of the file has arrived then. Raises Conflict."""
        ...


class Parts(Protocol):
    """The parts of one upload. Methods block; those of an upload that was removed raise FileNotFoundError."""

    def begin(self) -> None:
        """Make an upload without parts."""
        ...

    def received(self) -> int:
        """Return how many bytes have arrived."""
        ...

    def touched_at(self) -> float:
        """Return when the last part arrived, in seconds since 1970."""
        ...

    def receiving(self, offset: int, size: int) -> AbstractContextManager[Receiving]:
        """Receive a part that begins at `offset`, of a file of `size` bytes. Raises Conflict."""
        ...

    def gathered(self, size: int) -> AbstractContextManager[BufferedIOBase]:
        """Open the whole file of `size` bytes in the store folder. Raises Conflict if parts are missing."""
        ...

    def remove(self) -> None:
        """Remove all received bytes; nothing happens if they were removed."""
        ...


def require_offset(offset: int, received: int) -> None:
    """Raise Conflict, with the right offset, if a part does not begin where the last one ended."""
    if offset != received:
        raise Conflict(
            f"{received} bytes have arrived, so the next part begins at offset {received}, not {offset}",
            {"Upload-Offset": str(received)},
        )


def require_all(received: int, size: int) -> None:
    """Raise Conflict, with the next offset, if parts are missing."""
    if received != size:
        raise Conflict(
            f"{received} of {size} bytes have arrived: send the rest, from offset {received}",
            {"Upload-Offset": str(received)},
        )
