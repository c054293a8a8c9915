"""Content-Encoding gzip and deflate, with a limit on the decompressed size.

Clients of HTTP need read no more than these; br and zstd would take two more libraries.
"""

import zlib
from typing import Any

from models.errors import shown
from service.errors import Malformed, TooLarge, UnsupportedMediaType

# HTTP's deflate is zlib's format; some clients send the raw stream.
_WINDOWS = {"gzip": 16 + zlib.MAX_WBITS, "deflate": zlib.MAX_WBITS}
_RAW = -zlib.MAX_WBITS
_GZIP_MAGIC = b"\x1f\x8b"
_LEVEL = 1  # fastest: the client waits meanwhile
MAX_MEMBERS = 10_000  # of a gzip body: an empty member of 20 bytes takes as long as many bytes of a large one
_MEMBER_BYTES = 4096  # a large body may have a member for so many of its bytes: bgzip writes one for each 64 kB
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
            f"the body came with Content-Encoding {shown(header)!r}; send one of {known}, or none",
            {"Accept-Encoding": known},
        )
    return coding


def inflate(body: bytes, coding: str, limit: int) -> bytes:
    """Decompress a whole body in a coding of `coding_of` to at most `limit` bytes. Raises TooLarge, Malformed."""
    stream = Inflating(coding, limit, "send it in parts")
    stream.add(body)
    content = b"".join(iter(lambda: stream.read(limit + 1), b""))
    stream.end()
    return content


class Inflating:
    """Decompresses a body, as it arrives, in a coding of `coding_of` to at most `limit` bytes.

    A gzip body may have several members (RFC 1952, section 2.2), of at most `limit` bytes together. `way_out` ends the
    error for a larger body.
    """

    def __init__(self, coding: str, limit: int, way_out: str) -> None:
        self._coding = coding
        self._limit = limit
        self._way_out = way_out
        self._input = memoryview(b"")
        self._start = 0  # of the input that zlib has not got
        self._stream: Any = None  # of the current member
        self._step = _SMALL
        self._is_full = False  # the last piece was as large as it could be: more may follow without input
        self._members = 0
        self._added = 0  # bytes of input
        self._total = self._total_before = 0  # bytes of output, and those before this member

    def add(self, piece: bytes) -> None:
        """Add input. Input from before must have been read to its end."""
        self._input = memoryview(bytes(self._input[self._start :]) + piece)
        self._start = 0
        self._added += len(piece)

    def read(self, most: int) -> bytes:
        """Return the next bytes, at most `most`; none if it needs more input.

        Raises TooLarge, and Malformed if something else follows the stream.
        """
        while self._can_go_on():
            piece = self._decompressed(most)
            if piece:
                self._total += len(piece)
                if self._total > self._limit:
                    raise TooLarge(f"the body is larger than {self._limit} bytes when it is unpacked: {self._way_out}")
                return piece
        return b""

    def end(self) -> None:
        """Raise Malformed if the body is cut off."""
        if self._stream is None or not self._stream.eof:
            raise Malformed(f"the body is not a whole {self._coding} stream: it is cut off. Send all of it")

    def _can_go_on(self) -> bool:
        """Return whether a member has begun, and there is input, or output is left. Raises Malformed."""
        left = self._input[self._start :]
        if self._stream is None or (self._stream.eof and left):
            if self._members and (self._coding != "gzip" or not _GZIP_MAGIC.startswith(left[:2])):
                raise _followed(self._coding)
            if len(left) < 2 and not self._members:  # they tell the two forms of deflate apart
                return False
            self._begin_member(left)
        if self._stream.eof:
            return False
        return self._is_full or bool(left or self._stream.unconsumed_tail)

    def _begin_member(self, begin: memoryview) -> None:
        if self._members >= max(MAX_MEMBERS, self._added // _MEMBER_BYTES):
            raise Malformed(f"the body has more than {self._members} gzip members: compress it as one")
        raw = self._coding == "deflate" and not _is_zlib(begin)
        self._stream = zlib.decompressobj(_RAW if raw else _WINDOWS[self._coding])
        self._members += 1
        self._step, self._is_full, self._total_before = _SMALL, False, self._total

    def _decompressed(self, most: int) -> bytes:
        """Give zlib its unconsumed input, or more. Raises Malformed."""
        given = self._stream.unconsumed_tail
        if not given:
            given = self._input[self._start : self._start + self._step]
            self._start += len(given)
            self._step = min(2 * self._step, _LARGE)
        try:
            piece: bytes = self._stream.decompress(given, most)
        except zlib.error as err:
            if self._total > self._total_before:
                raise Malformed(f"the {self._coding} stream of the body is damaged: send it again") from err
            if self._members == 1:
                raise Malformed(f"the body is no {self._coding} stream, which its Content-Encoding names") from err
            raise _followed(self._coding) from err
        self._is_full = len(piece) == most
        self._start -= len(self._stream.unused_data)
        return piece


def _followed(coding: str) -> Malformed:
    return Malformed(f"something that is no {coding} stream follows the {coding} stream of the body: leave it out")


def _is_zlib(body: bytes | memoryview) -> bool:
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
