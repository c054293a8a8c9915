"""Content-Encoding gzip and deflate, with a limit on the decompressed size."""

import zlib

from service.errors import Malformed, TooLarge, UnsupportedMediaType

_WINDOWS = {"gzip": 16 + zlib.MAX_WBITS, "deflate": zlib.MAX_WBITS}  # HTTP's deflate is zlib's format
_LEVEL = 1  # fastest: the client waits meanwhile


def inflate(body: bytes, coding: str, limit: int) -> bytes:
    """Decompress a body to at most `limit` bytes.

    Raises UnsupportedMediaType for another coding, TooLarge, and Malformed if it is not one complete stream.
    """
    if coding not in _WINDOWS:
        known = ", ".join(_WINDOWS)
        raise UnsupportedMediaType(
            f"the body came with Content-Encoding {coding[:40]!r}; send one of {known}, or none",
            {"Accept-Encoding": known},
        )
    stream = zlib.decompressobj(_WINDOWS[coding])
    try:
        inflated = stream.decompress(body, limit + 1)
    except zlib.error as err:
        raise Malformed(f"the body is no {coding} stream") from err
    if len(inflated) > limit:
        raise TooLarge(f"the body is larger than {limit} bytes when it is unpacked: send it in parts")
    if not stream.eof or stream.unused_data:
        raise Malformed(f"the body is not one whole {coding} stream: it is cut off, or something follows it")
    return inflated


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
