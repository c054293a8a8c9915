"""A short way to the pixels of the plainest PNG files: small, grey, 8 bits, one IDAT chunk, nothing else inside.

Pillow's general way spends four fifths of its time on what such a file does not have. Here its decoder alone is asked.
Whatever is not exactly of that form, or damaged in any way, is left to the general way and to its judgement.
PNG Specification, third edition, section 11: the chunks, and the fields of IHDR.
"""

import struct
from zlib import crc32

from PIL import Image

_BEGIN = b"\x89PNG\r\n\x1a\n\x00\x00\x00\rIHDR"
_SIZES = struct.Struct(">II")
_GREY = b"\x08\x00\x00\x00\x00"  # bit depth 8, grey, deflate, the five filters, not interlaced
_NUMBER = struct.Struct(">I")
_DATA = 41  # where the bytes of an IDAT chunk begin that follows IHDR
_END = b"\x00\x00\x00\x00IEND\xaeB`\x82"
_MAX_PIXELS = 65_536


def read_plain_png(content: bytes) -> Image.Image | None:
    """The decoded picture, mode L; None where the bytes are of any other form."""
    if not (content.startswith(_BEGIN) and content[24:29] == _GREY and content[37:41] == b"IDAT"):
        return None
    size = _SIZES.unpack_from(content, 16)
    end = _DATA + _NUMBER.unpack_from(content, 33)[0]
    if content[end + 4 :] != _END or not 0 < size[0] * size[1] <= _MAX_PIXELS:
        return None
    if crc32(content[12:29]) != _NUMBER.unpack_from(content, 29)[0]:
        return None
    if crc32(content[37:end]) != _NUMBER.unpack_from(content, end)[0]:
        return None
    try:
        return Image.frombytes("L", size, content[_DATA:end], "zip", "L", 0)
    except (ValueError, OSError):
        return None
