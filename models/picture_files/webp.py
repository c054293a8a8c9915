"""Strip WebP files: keep the chunks that pixels are decoded from.

Source: WebP Container Specification (RFC 9649, section 2).
"""

from models.picture_files.orientation import orientation
from models.picture_files.stripped import Stripped, damaged_picture

_PIXELS = {b"VP8 ", b"VP8L", b"ALPH", b"ANIM", b"ANMF"}
_METADATA_FLAGS = 0x20 | 0x08 | 0x04  # ICC profile, EXIF, XMP: in the first byte of VP8X
_MOST_CHUNKS = 10_000


def is_webp(content: bytes) -> bool:
    """Whether the file begins as a WebP file does."""
    return content[:4] == b"RIFF" and content[8:12] == b"WEBP"


def strip(content: bytes) -> Stripped:
    """Drop the chunks for EXIF, XMP, colour profiles and unknown ones. Raises InvalidInput if there are too many."""
    kept: list[bytes] = []
    exif = xmp = b""
    position = 12
    for _ in range(_MOST_CHUNKS):
        if position + 8 > len(content):
            break
        kind, size = content[position : position + 4], int.from_bytes(content[position + 4 : position + 8], "little")
        body = content[position + 8 : position + 8 + size]
        if kind == b"VP8X" and size >= 10:
            body = body.ljust(10, b"\x00")[:10]
            kept.append(_chunk(kind, bytes([body[0] & ~_METADATA_FLAGS]) + body[1:]))
        elif kind in _PIXELS:
            if len(body) < size:  # libwebp decodes no part of a picture
                return Stripped((), orientation(exif, xmp))
            kept.append(_chunk(kind, body))
        elif kind == b"EXIF":
            exif = exif or body
        elif kind == b"XMP ":
            xmp = xmp or body
        position += 8 + size + size % 2
    else:
        raise damaged_picture("the picture has too many metadata chunks")
    chunks = b"".join(kept)
    file = b"RIFF" + (len(chunks) + 4).to_bytes(4, "little") + b"WEBP" + chunks
    return Stripped((file,) if kept else (), orientation(exif, xmp))


def _chunk(kind: bytes, body: bytes) -> bytes:
    return kind + len(body).to_bytes(4, "little") + body + bytes(len(body) % 2)
