"""Content-Encoding: gzip and deflate, within a limit on what comes out."""

import zlib

from service.errors import Malformed, TooLarge, UnsupportedMediaType

_WINDOWS = {"gzip": 16 + zlib.MAX_WBITS, "deflate": zlib.MAX_WBITS}  # HTTP's deflate is zlib's format
_LEVEL = 1  # an answer is compressed while its caller waits


def inflate(body: bytes, coding: str, limit: int) -> bytes:
    """The body that was encoded; never more than `limit` bytes of it are made.

    Raises UnsupportedMediaType for another coding, TooLarge, and Malformed where it is no one whole stream.
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
    """The body encoded with one of the codings that `accepted` names."""
    stream = zlib.compressobj(_LEVEL, wbits=_WINDOWS[coding])
    return stream.compress(body) + stream.flush()


def accepted(header: str) -> str | None:
    """The coding to answer in, by the request's Accept-Encoding; None for none."""
    offers = {}
    for offer in header.lower().split(","):
        coding, _, weight = offer.partition(";")
        offers[coding.strip()] = weight.replace(" ", "").rstrip("0") not in {"q=", "q=0.", "q"}
    return next((coding for coding in _WINDOWS if offers.get(coding)), None)
