"""A short way to the pixels of the plainest PNG files: small, grey, 8 bits, one IDAT chunk, nothing else inside.

Pillow's general way spends nine tenths of its time on what such a file does not have. Here its decoder alone is asked,
and its encoder of plain bytes: both are what its own `frombytes` and `tobytes` call.
Whatever is not exactly of that form, or damaged in any way, is left to the general way and to its judgement.
PNG Specification, third edition, section 11: the chunks, and the fields of IHDR.
"""

import struct
from zlib import crc32

import numpy as np
from PIL import _imaging as core

from models.spec import Array

_BEGIN = b"\x89PNG\r\n\x1a\n\x00\x00\x00\rIHDR"
_SIZES = struct.Struct(">II")
_GREY = b"\x08\x00\x00\x00\x00"  # bit depth 8, grey, deflate, the five filters, not interlaced
_NUMBER = struct.Struct(">I")
_DATA = 41  # where the bytes of an IDAT chunk begin that follows IHDR
_END = b"\x00\x00\x00\x00IEND\xaeB`\x82"
_MAX_PIXELS = 65_536


def read_plain_png(content: bytes) -> Array | None:
    """Its pixels, uint8 (height, width); None where the bytes are of any other form."""
    if not (content.startswith(_BEGIN) and content[24:29] == _GREY and content[37:41] == b"IDAT"):
        return None
    width, height = _SIZES.unpack_from(content, 16)
    end = _DATA + _NUMBER.unpack_from(content, 33)[0]
    if content[end + 4 :] != _END or not 0 < width * height <= _MAX_PIXELS:
        return None
    if any(crc32(content[a:b]) != _NUMBER.unpack_from(content, b)[0] for a, b in ((12, 29), (37, end))):
        return None
    picture, box = core.new("L", (width, height)), (0, 0, width, height)
    decoder, encoder = core.zip_decoder("L", "L", 0), core.raw_encoder("L", "L")
    try:
        decoder.setimage(picture, box)
        unfinished, fault = decoder.decode(content[_DATA:end])
    except (ValueError, OSError):
        return None
    if unfinished >= 0 or fault:
        return None
    encoder.setimage(picture, box)
    pixels: bytes = encoder.encode(width * height)[2]
    return np.frombuffer(pixels, np.uint8).reshape(height, width)
