"""Strip JPEG files: keep the segments that pixels are decoded from.

Source: ITU-T T.81, annex B (segments, markers); T.871 (JFIF); Adobe Technical Note 5116 (APP14).
"""

from models.picture_files.orientation import orientation
from models.picture_files.stripped import Stripped, damaged_picture

MAGIC = b"\xff\xd8\xff"
_BEGIN, _END = b"\xff\xd8", b"\xff\xd9"
_WITHOUT_LENGTH = {0x00, 0x01, *range(0xD0, 0xD9)}  # stuffing, TEM, RSTn, SOI
_EOI, _SOS, _APP0, _APP1, _APP14, _APP15, _COM = 0xD9, 0xDA, 0xE0, 0xE1, 0xEE, 0xEF, 0xFE
_JFIF = b"\xff\xe0\x00\x10JFIF\x00\x01\x01\x00\x00\x01\x00\x01\x00\x00"  # its presence decides about the colour space
_EXIF, _XMP = b"Exif\x00\x00", b"http://ns.adobe.com/xap/1.0/\x00"
_MOST_SEGMENTS = 10_000
_NOISE = bytes(place * place * 37 % 251 for place in range(1 << 14))  # entropy-coded data of no picture, no marker


def strip(content: bytes) -> Stripped:
    """Drop application segments and comments up to the first scan; JFIF and Adobe segments are normalised.

    As libjpeg does, skip bytes between segments. Raises InvalidInput if there are too many segments.
    """
    kept, metadata, position = [_BEGIN], _Metadata(), len(_BEGIN)
    for _ in range(_MOST_SEGMENTS):
        position = _next_marker(content, position)
        if position < 0 or position + 4 > len(content):
            return Stripped((), metadata.orientation())
        marker = content[position + 1]
        if marker in {_SOS, _EOI}:
            break
        end = position + 2
        if marker not in _WITHOUT_LENGTH:
            end += max(2, int.from_bytes(content[position + 2 : position + 4]))
            if _APP0 <= marker <= _APP15 or marker == _COM:
                kept.append(metadata.take(marker, content[position + 4 : end]))
            else:
                kept.append(content[position:end])
        position = end
    else:
        raise damaged_picture("the picture has too many metadata segments")
    clean = b"".join([*kept, content[position:]])
    whole = content.find(_END, position) >= 0
    # The noise cannot be decoded if the file is cut between two scans: then no pixel is missing.
    files = (clean,) if whole else (clean + _END, clean + _NOISE + _END, clean + _END)
    return Stripped(files, metadata.orientation())


def _next_marker(content: bytes, position: int) -> int:
    """Return the offset of the next marker; -1 if there is none."""
    position = content.find(b"\xff", position)
    while position >= 0 and content[position + 1 : position + 2] == b"\xff":  # fill bytes
        position += 1
    return position


class _Metadata:
    """The first EXIF and XMP segments of a file."""

    def __init__(self) -> None:
        self._exif = self._xmp = b""

    def take(self, marker: int, body: bytes) -> bytes:
        """Look at one segment. Returns the segment to keep in its place, or nothing."""
        if marker == _APP0 and body.startswith(b"JFIF\x00") and len(body) >= 14:
            return _JFIF
        if marker == _APP14 and body.startswith(b"Adobe") and len(body) >= 12:
            return b"\xff\xee\x00\x0e" + body[:12]
        if marker == _APP1 and body.startswith(_EXIF):
            self._exif = self._exif or body
        elif marker == _APP1 and body.startswith(_XMP):
            self._xmp = self._xmp or body
        return b""

    def orientation(self) -> int:
        """Return the orientation, 1..8."""
        return orientation(self._exif, self._xmp)
