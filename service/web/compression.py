"""Content-Encoding gzip and deflate, with a limit on the decompressed size.

Clients of HTTP need read no more than these; br and zstd would take two more libraries.
"""

import zlib
from typing import Any

from service.errors import Malformed, TooLarge, UnsupportedMediaType

# HTTP's deflate is zlib's format; some clients send the raw stream.
_WINDOWS = {"gzip": 16 + zlib.MAX_WBITS, "deflate": zlib.MAX_WBITS}
_RAW = -zlib.MAX_WBITS
_LEVEL = 1  # fastest: the client waits meanwhile


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

    Raises TooLarge, and Malformed if it is not one complete stream.
    """
    window = _WINDOWS[coding]
    if coding == "deflate" and not _is_zlib(body):
        window = _RAW
    stream = zlib.decompressobj(window)
    try:
        inflated = stream.decompress(body, limit + 1)
    except zlib.error as err:
        raise _no_stream(coding) from err
    if len(inflated) > limit:
        raise TooLarge(f"the body is larger than {limit} bytes when it is unpacked: send it in parts")
    if not stream.eof or stream.unused_data:
        raise _not_whole(coding)
    return inflated


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
