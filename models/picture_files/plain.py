"""Fast reader for the simplest PNG files: small, grey, 8 bits, one IDAT chunk, no other chunks.

Pillow's general reader spends nine tenths of its time on features that such a file does not use. This module calls its
decoder and its raw encoder directly, as Pillow's own `frombytes` and `tobytes` do. A file of any other form, or a
damaged one, is left to the general reader.
Source: PNG Specification, third edition, section 11 (chunks, and the fields of IHDR).
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
_DATA = 41  # offset of the data of an IDAT chunk directly after IHDR
_END = b"\x00\x00\x00\x00IEND\xaeB`\x82"
_MAX_PIXELS = 102_400
_UNSET = 1  # grey level of each pixel before it is decoded: rarely that of a whole last row


def read_plain_png(content: bytes) -> Array | None:
    """Return the pixels, uint8 (height, width), or None if the file has any other form."""
    if not (content.startswith(_BEGIN) and content[24:29] == _GREY and content[37:41] == b"IDAT"):
        return None
    width, height = _SIZES.unpack_from(content, 16)
    end = _DATA + _NUMBER.unpack_from(content, 33)[0]
    if content[end + 4 :] != _END or not 0 < width * height <= _MAX_PIXELS:
        return None
    header, data = _NUMBER.unpack_from(content, 29), _NUMBER.unpack_from(content, end)
    if header != (crc32(content[12:29]),) or data != (crc32(content[37:end]),):
        return None
    picture, box = core.fill("L", (width, height), _UNSET), (0, 0, width, height)
    decoder, encoder = core.zip_decoder("L", "L", 0), core.raw_encoder("L", "L")
    try:
        decoder.setimage(picture, box)
        unfinished, fault = decoder.decode(content[_DATA:end])
    except (ValueError, OSError):
        return None
    encoder.setimage(picture, box)
    pixels: bytes = encoder.encode(width * height)[2]
    lacks_rows = pixels.count(_UNSET, -width) == width  # maybe: the decoder does not report a stream that ends early
    if unfinished >= 0 or fault or lacks_rows:
        return None
    return np.frombuffer(pixels, np.uint8).reshape(height, width)
