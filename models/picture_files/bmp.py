"""Check that BMP files are whole. They have no metadata that matters.

Source: Microsoft, "Bitmap Storage" (BITMAPFILEHEADER, BITMAPINFOHEADER).
"""

import struct

from models.picture_files.stripped import Stripped

MAGIC = b"BM"
_HEADERS = struct.Struct("<10xIIiiHHI")  # offset of the pixels, size of the second header, width, height, -, bits, kind
_LEAST_HEADER = 40  # bytes of the second header: older ones have other fields
_UNCOMPRESSED = {0, 3}
_PADDINGS = b"\x00", b"\xa5"


def strip(content: bytes) -> Stripped:
    """Return the file; padded to the end of its pixels if it is truncated. A compressed file is returned unchanged."""
    if len(content) < _HEADERS.size:
        return Stripped(())
    offset, header, width, height, _, bits, kind = _HEADERS.unpack_from(content)
    if header < _LEAST_HEADER or kind not in _UNCOMPRESSED:
        return Stripped((content,))
    missing = offset + (width * bits + 31) // 32 * 4 * abs(height) - len(content)
    if missing <= 0:
        return Stripped((content,))
    if missing > len(content):  # so much padding would be a bomb, and most of the picture is missing
        return Stripped(())
    return Stripped(tuple(content + padding * missing for padding in _PADDINGS))
