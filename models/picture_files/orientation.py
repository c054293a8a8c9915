"""Read the orientation from EXIF and XMP blocks of any content, without errors.

Only the entry for the orientation is looked at, so that no other entry, and no damage to one, matters.
Source: Exif 2.32, sections 4.5 and 4.6.2 (TIFF header, image file directory, tag 0x0112).
"""

import re
from typing import Literal

_TAG = 0x0112
_WHOLE_NUMBERS = {1: 1, 3: 2, 4: 4}  # TIFF type -> bytes: BYTE, SHORT, LONG
_ENTRY = 12  # bytes
_PREFIX = b"Exif\x00\x00"  # in JPEG always, in other files by mistake
_XMP = re.compile(rb"tiff:Orientation\s*(?:=\s*[\"']|>)\s*([1-8])\s*[\"'<]")
_XMP_BYTES = 65_536  # read from the beginning of the block


def exif_orientation(block: bytes) -> int:
    """Return the orientation, 1..8, in an EXIF block; 1 (as stored) if it has none or cannot be read."""
    tiff = block.removeprefix(_PREFIX)
    order: Literal["little", "big"]
    if tiff[:4] == b"II*\x00":
        order = "little"
    elif tiff[:4] == b"MM\x00*":
        order = "big"
    else:
        return 1

    def number(at: int, size: int) -> int:
        return int.from_bytes(tiff[at : at + size], order)

    directory = number(4, 4)
    entries = min(number(directory, 2), (len(tiff) - directory - 2) // _ENTRY)
    for at in range(directory + 2, directory + 2 + max(entries, 0) * _ENTRY, _ENTRY):
        if number(at, 2) == _TAG:
            size = _WHOLE_NUMBERS.get(number(at + 2, 2))
            value = number(at + 8, size) if size and number(at + 4, 4) == 1 else 1
            return value if 1 <= value <= 8 else 1
    return 1


def xmp_orientation(block: bytes) -> int:
    """Return the orientation, 1..8, in an XMP block; 1 (as stored) if it has none."""
    found = _XMP.search(block[:_XMP_BYTES])
    return int(found[1]) if found else 1


def orientation(exif: bytes, xmp: bytes) -> int:
    """Return the orientation in the EXIF block if there is one, else in the XMP block. Either may be empty."""
    turned = exif_orientation(exif)
    return turned if turned != 1 else xmp_orientation(xmp)
