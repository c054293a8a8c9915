"""Content-Encoding gzip and deflate, with a limit on the decompressed size.

Clients of HTTP need read no more than these; br and zstd would take two more libraries.
"""

import zlib
from typing import Any

from service.errors import Malformed, TooLarge, UnsupportedMediaType

# HTTP's deflate is zlib's format; some clients send the raw stream.
_WINDOWS = {"gzip": 16 + zlib.MAX_WBITS, "deflate": zlib.MAX_WBITS}
_RAW = -zlib.MAX_WBITS
_GZIP_MAGIC = b"\x1f\x8b"
_LEVEL = 1  # fastest: the client waits meanwhile
MAX_MEMBERS = 10_000  # of a gzip body: an empty member of 20 bytes takes as long as many bytes of a large one
_SMALL, _LARGE = 4096, 1_048_576  # bytes given to zlib at once, which copies the rest of them at the end of a member


def coding_of(header: str) -> str | None:
    """Return the coding that a Content-Encoding header names; None for none. Raises UnsupportedMediaType."""
    named = [
        coding for coding in (part.strip().lower() for part in header.split(",")) if coding not in {"", "identity"}
    ]
    if not named:
        return None
    coding = named[0].removeprefix("x-")
    if len(named) > 1 or coding not in _WINDOWS:
        known = ", ".join(_WINDOWS)
        raise UnsupportedMediaType(
            f"the body came with Content-Encoding {header[:40]!r}; send one of {known}, or none",
            {"Accept-Encoding": known},
        )
    return coding


def inflate(body: bytes, coding: str, limit: int) -> bytes:
    """Decompress a body in a coding of `coding_of` to at most `limit` bytes.

    A gzip body may have several members (RFC 1952, section 2.2), of at most `limit` bytes together.
    Raises TooLarge, and Malformed if the body is cut off, or something else follows the stream.
    """
    window = _RAW if coding == "deflate" and not _is_zlib(body) else _WINDOWS[coding]
    rest = memoryview(body)
    pieces: list[bytes] = []
    left = limit
    for _ in range(MAX_MEMBERS):
        try:
            member, length = _member(rest, window, left, limit)
        except zlib.error as err:
            if not pieces:
                raise _no_stream(coding) from err
            raise _followed(coding) from err
        if length is None:
            raise Malformed(f"the body is not a whole {coding} stream: it is cut off. Send all of it")
        pieces += member
        left -= sum(map(len, member))
        rest = rest[length:]
        if not rest:
            return b"".join(pieces)
        if coding != "gzip" or not _GZIP_MAGIC.startswith(rest[:2]):
            raise _followed(coding)
    raise Malformed(f"the body has more than {MAX_MEMBERS} gzip members: compress it as one")


def _member(content: memoryview, window: int, most: int, limit: int) -> tuple[list[bytes], int | None]:
    """Decompress the first stream in `content`, of at most `most` bytes.

    Returns it in pieces, at least one, and its compressed length; None if it is cut off. Raises zlib.error, TooLarge.
    """
    stream = zlib.decompressobj(window)
    pieces: list[bytes] = []
    start, step, left = 0, _SMALL, most
    while not stream.eof and start < len(content):
        piece = stream.decompress(content[start : start + step], left + 1)
        left -= len(piece)
        if left < 0:
            raise TooLarge(f"the body is larger than {limit} bytes when it is unpacked: send it in parts")
        pieces.append(piece)
        start, step = min(start + step, len(content)), min(2 * step, _LARGE)
    return pieces, start - len(stream.unused_data) if stream.eof else None


def _followed(coding: str) -> Malformed:
    return Malformed(f"something that is no {coding} stream follows the {coding} stream of the body: leave it out")


class Inflating:
    """Decompresses a body of any size, piece by piece. `coding` is one of `coding_of`."""

    def __init__(self, coding: str) -> None:
        self._coding = coding
        self._stream: Any = None
        self._begin = b""  # until two bytes have come, which tell the two forms of deflate apart

    def feed(self, piece: bytes, most: int) -> bytes:
        """Decompress a piece into at most `most` bytes; call it with `rest` until that is empty. Raises Malformed."""
        if self._stream is None:
            piece = self._begin = self._begin + piece
            if len(piece) < 2:
                return b""
            raw = self._coding == "deflate" and not _is_zlib(piece)
            self._stream = zlib.decompressobj(_RAW if raw else _WINDOWS[self._coding])
        try:
            inflated: bytes = self._stream.decompress(piece, most)
        except zlib.error as err:
            raise _no_stream(self._coding) from err
        if self._stream.unused_data:
            raise _not_whole(self._coding)
        return inflated

    @property
    def rest(self) -> bytes:
        """Input that `feed` has not decompressed yet."""
        return b"" if self._stream is None else bytes(self._stream.unconsumed_tail)

    def end(self) -> None:
        """Check that the stream was whole. Raises Malformed."""
        if self._stream is None or not self._stream.eof:
            raise _not_whole(self._coding)


def _no_stream(coding: str) -> Malformed:
    return Malformed(f"the body is no {coding} stream, which its Content-Encoding names")


def _not_whole(coding: str) -> Malformed:
    return Malformed(f"the body is not one whole {coding} stream: it is cut off, or something follows it")


def _is_zlib(body: bytes) -> bool:
    """Whether a deflate stream begins with the header of zlib's format (RFC 1950, section 2.2)."""
    return len(body) > 1 and body[0] & 0x0F == 8 and int.from_bytes(body[:2]) % 31 == 0


def deflate(body: bytes, coding: str) -> bytes:
    """Compress a body with a coding returned by `accepted`."""
    stream = zlib.compressobj(_LEVEL, wbits=_WINDOWS[coding])
    return stream.compress(body) + stream.flush()


def accepted(header: str) -> str | None:
    """Return the coding to compress an answer with, from the Accept-Encoding header; None for no compression."""
    offers = {}
    for offer in header.lower().split(","):
        coding, _, weight = offer.partition(";")
        offers[coding.strip()] = weight.replace(" ", "").rstrip("0") not in {"q=", "q=0.", "q"}
    return next((coding for coding in _WINDOWS if offers.get(coding)), None)
